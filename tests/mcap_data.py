"""Small robot logs, written by the public MCAP writers: ROS 2 (CDR), Protobuf and JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from model_core.spec.embodiment import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec

NS = 10**9
START = 1_700_000_000 * NS
NAMES = ("shoulder", "elbow", "gripper")
HEADER = "std_msgs/Header header\n"
_STAMP = "\n" + "=" * 80 + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
_STAMP += "=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
_ARRAY = "\n" + "=" * 80 + "\nMSG: std_msgs/MultiArrayLayout\nstd_msgs/MultiArrayDimension[] dim\nuint32 data_offset\n"
_ARRAY += "=" * 80 + "\nMSG: std_msgs/MultiArrayDimension\nstring label\nuint32 size\nuint32 stride\n"
_POSE = "\n" + "=" * 80 + "\nMSG: geometry_msgs/Pose\ngeometry_msgs/Point position\ngeometry_msgs/Quaternion orientation\n"
_POSE += "=" * 80 + "\nMSG: geometry_msgs/Point\nfloat64 x\nfloat64 y\nfloat64 z\n"
_POSE += "=" * 80 + "\nMSG: geometry_msgs/Quaternion\nfloat64 x\nfloat64 y\nfloat64 z\nfloat64 w\n"
SCHEMAS = {
    "sensor_msgs/msg/JointState": HEADER + "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n" + _STAMP,
    "sensor_msgs/msg/CompressedImage": HEADER + "string format\nuint8[] data\n" + _STAMP,
    "sensor_msgs/msg/Image": HEADER
    + "uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n"
    + _STAMP,
    "std_msgs/msg/Float64MultiArray": "std_msgs/MultiArrayLayout layout\nfloat64[] data\n" + _ARRAY,
    "std_msgs/msg/String": "string data\n",
    "std_msgs/msg/Bool": "bool data\n",
    "geometry_msgs/msg/PoseStamped": HEADER + "geometry_msgs/Pose pose\n" + _STAMP + _POSE,
}
BODY = EmbodimentSpec(
    name="two-joints",
    cameras=(CameraSpec(name="front", width=8, height=6),),
    proprio=VectorSpec(dims=tuple(DimSpec(name=n, unit="rad", low=-4, high=4) for n in NAMES)),
    action=VectorSpec(dims=tuple(DimSpec(name=n, unit="rad", low=-4, high=4) for n in NAMES), mode="absolute"),
    control_hz=10,
    gripper_dim="gripper",
    gripper_open=1,
    hold=(None, None, None),
)
MAPPING = {
    "format": 1,
    "clock": "header",
    "instruction": {"text": "push the button"},
    "cameras": {"front": {"topic": "/front/compressed", "max_gap_s": 0.04}},
    "state": [
        {
            "topic": "/joint_states",
            "field": "position",
            "dims": list(NAMES),
            "keys": list(NAMES),
            "method": "linear",
            "max_gap_s": 0.05,
        }
    ],
    "actions": [
        {"topic": "/command", "field": "data", "dims": list(NAMES), "method": "previous", "max_gap_s": 0.25, "clock": "log"},
    ],
}


def head(time_ns: int, **fields: Any) -> SimpleNamespace:
    """A ROS 2 message with a header stamped `time_ns`."""
    stamp = SimpleNamespace(sec=time_ns // NS, nanosec=time_ns % NS)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id=""), **fields)


def picture(number: int) -> np.ndarray:
    """Image `number`: each channel another flat value, so that an exchange is seen."""
    return np.broadcast_to(np.array([number % 250, 100, 200], np.uint8), (6, 8, 3)).copy()


def encoded(image_HW3: np.ndarray, kind: str = "PNG") -> bytes:
    """The image as a file."""
    sink = io.BytesIO()
    Image.fromarray(image_HW3).save(sink, kind)
    return sink.getvalue()


Entry = tuple[int, str, str, Any]  # log time, topic, schema, message


def write_ros2(path: Path, entries: Sequence[Entry], **options: Any) -> Path:
    """A log of ROS 2 messages, in this order."""
    from mcap_ros2.writer import Writer

    with path.open("wb") as file:
        writer = Writer(file, **options)
        schemas: dict[str, Any] = {}
        for log_ns, topic, schema, message in entries:
            if schema not in schemas:
                schemas[schema] = writer.register_msgdef(schema, SCHEMAS[schema])
            writer.write_message(topic=topic, schema=schemas[schema], message=message, log_time=log_ns)
        writer.finish()
    return path


def arm_entries(
    *,
    seconds: float = 1.0,
    state: Callable[[float], Sequence[float]] = lambda t: (t, 2 * t, -t),
    order: Sequence[str] = NAMES,
    delay_ns: int = 3_000_000,
    start_ns: int = START,
) -> list[Entry]:
    """State at 50 Hz (linear in time), images at 20 Hz (number n at n / 20 s), commands at 10 Hz; logged `delay_ns` after their stamps."""
    entries: list[Entry] = []
    for k in range(int(seconds * 50) + 1):
        at = start_ns + k * NS // 50
        values = dict(zip(NAMES, state(k / 50), strict=True))
        message = head(at, name=list(order), position=[values[n] for n in order], velocity=[], effort=[])
        entries.append((at + delay_ns, "/joint_states", "sensor_msgs/msg/JointState", message))
    for k in range(int(seconds * 20) + 1):
        at = start_ns + k * NS // 20
        entries.append(
            (at + delay_ns, "/front/compressed", "sensor_msgs/msg/CompressedImage", head(at, format="png", data=encoded(picture(k))))
        )
    for k in range(int(seconds * 10) + 1):
        at = start_ns + k * NS // 10
        layout = SimpleNamespace(dim=[], data_offset=0)
        entries.append((at, "/command", "std_msgs/msg/Float64MultiArray", SimpleNamespace(layout=layout, data=[float(k), 0.5, 1.0])))
    return sorted(entries, key=lambda entry: entry[0])


def write_json(path: Path, entries: Sequence[tuple[int, str, str, Mapping[str, Any]]]) -> Path:
    """A log of JSON messages, as Foxglove's tools write them."""
    from mcap.writer import Writer

    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channels: dict[str, int] = {}
        for log_ns, topic, schema, message in entries:
            if topic not in channels:
                number = writer.register_schema(schema, "jsonschema", b'{"type": "object"}')
                channels[topic] = writer.register_channel(topic, "json", number)
            writer.add_message(channels[topic], log_ns, json.dumps(message).encode(), log_ns)
        writer.finish()
    return path


def json_time(time_ns: int) -> dict[str, int]:
    """A time as Foxglove's JSON schemas write it."""
    return {"sec": time_ns // NS, "nsec": time_ns % NS}


def base64_of(data: bytes) -> str:
    """Bytes as JSON holds them."""
    return base64.b64encode(data).decode()


def protobuf_classes() -> dict[str, Any]:
    """foxglove.RawImage, foxglove.CompressedImage and a message of numbers, built from their field numbers."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    members: dict[str, list[tuple[str, int, int]]] = {
        "RawImage": [("frame_id", 7, 9), ("width", 2, 7), ("height", 3, 7), ("encoding", 4, 9), ("step", 5, 7), ("data", 6, 12)],
        "CompressedImage": [("frame_id", 4, 9), ("data", 2, 12), ("format", 3, 9)],
        "Numbers": [("values", 2, 1)],
    }
    file = descriptor_pb2.FileDescriptorProto(name="foxglove/all.proto", package="foxglove", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    for name, fields in members.items():
        message = file.message_type.add(name=name)
        message.field.add(
            name="timestamp", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp"
        )
        for field, number, kind in fields:
            label = kinds.LABEL_REPEATED if name == "Numbers" else kinds.LABEL_OPTIONAL
            message.field.add(name=field, number=number, label=label, type=kind)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"foxglove.{name}")) for name in members}


def write_protobuf(path: Path, entries: Sequence[tuple[int, str, Any]]) -> Path:
    """A log of Protobuf messages."""
    from mcap_protobuf.writer import Writer

    with path.open("wb") as file:
        writer = Writer(file)
        for log_ns, topic, message in entries:
            writer.write_message(topic=topic, message=message, log_time=log_ns, publish_time=log_ns)
        writer.finish()
    return path
