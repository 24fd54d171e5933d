"""The ROS 2 message definitions that an exported log uses, in the form that its reader needs: each with those that it is made of."""

from __future__ import annotations

IMAGE, VALUES, POINT = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState", "geometry_msgs/msg/PointStamped"
TEXT, FLAG = "std_msgs/msg/String", "std_msgs/msg/Bool"

_NEXT = "=" * 80 + "\nMSG: "
_HEADER = f"{_NEXT}std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
_HEADER += f"{_NEXT}builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"

# ROS 2 common_interfaces: sensor_msgs/msg, geometry_msgs/msg, std_msgs/msg
DEFINITIONS: dict[str, str] = {
    IMAGE: f"std_msgs/Header header\nstring format\nuint8[] data\n{_HEADER}",
    VALUES: f"std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n{_HEADER}",
    POINT: f"std_msgs/Header header\ngeometry_msgs/Point point\n{_HEADER}{_NEXT}geometry_msgs/Point\nfloat64 x\nfloat64 y\nfloat64 z\n",
    TEXT: "string data\n",
    FLAG: "bool data\n",
}
