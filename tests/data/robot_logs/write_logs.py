"""Write the robot logs beside this file with the public writers: rosbags 0.11.9 (ROS 2, CDR) and foxglove-sdk 0.30.3 (Protobuf, JSON).

    python -m venv ENV && ENV/bin/pip install rosbags==0.11.9 foxglove-sdk==0.30.3 numpy && ENV/bin/python write_logs.py FOLDER

One second of an arm: joints at 50 Hz (shoulder = t, elbow = 2 t, gripper = -t), images of 8x6 pixels at 20 Hz whose pixels are all
(number, 100, 200), commands at 10 Hz. Stamps begin at 1700000000 s; the log is 3 ms later.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

NS = 10**9
START = 1_700_000_000 * NS
DELAY = 3_000_000


def image(number: int) -> np.ndarray:
    """Image `number`, RGB."""
    return np.broadcast_to(np.array([number, 100, 200], np.uint8), (6, 8, 3)).copy()


def write_rosbags(target: Path) -> None:
    """JointState, raw bgr8 Image and Float64MultiArray; the log is what rosbags leaves in its folder."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    events = []
    for k in range(51):
        at = START + k * NS // 50
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](at // NS, at % NS), "base")
        none = np.zeros(0)
        joints = types["sensor_msgs/msg/JointState"](
            header, ["elbow", "shoulder", "gripper"], np.array([2 * k / 50, k / 50, -k / 50]), none, none
        )
        events.append((at + DELAY, "/joint_states", "sensor_msgs/msg/JointState", joints))
    for k in range(21):
        at = START + k * NS // 20
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](at // NS, at % NS), "front")
        shot = types["sensor_msgs/msg/Image"](header, 6, 8, "bgr8", 0, 24, image(k)[..., ::-1].reshape(-1).copy())
        events.append((at + DELAY, "/front/image_raw", "sensor_msgs/msg/Image", shot))
    for k in range(11):
        layout = types["std_msgs/msg/MultiArrayLayout"]([], 0)
        command = types["std_msgs/msg/Float64MultiArray"](layout, np.array([float(k), 0.5, 1.0]))
        events.append((START + k * NS // 10, "/command", "std_msgs/msg/Float64MultiArray", command))
    with TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            connections = {}
            for at, topic, kind, message in sorted(events, key=lambda event: event[0]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=store)
                writer.write(connections[topic], at, store.serialize_cdr(message, kind))
        target.write_bytes(next(bag.glob("*.mcap")).read_bytes())


def write_foxglove(target: Path) -> None:
    """RawImage as Protobuf, joints and commands as JSON."""
    import foxglove
    from foxglove import Channel
    from foxglove.channels import RawImageChannel
    from foxglove.messages import RawImage, Timestamp

    schema = {"type": "object", "properties": {"values": {"type": "array", "items": {"type": "number"}}}}
    with foxglove.open_mcap(target, allow_overwrite=True):
        joints, commands = Channel("/joint_states", schema=schema), Channel("/command", schema=schema)
        front = RawImageChannel("/front/image_raw")
        for k in range(51):
            at = START + k * NS // 50
            stamp = {"sec": at // NS, "nsec": at % NS}
            joints.log({"timestamp": stamp, "values": [k / 50, 2 * k / 50, -k / 50]}, log_time=at + DELAY)
        for k in range(21):
            at = START + k * NS // 20
            message = RawImage(
                timestamp=Timestamp(sec=at // NS, nsec=at % NS),
                frame_id="front",
                width=8,
                height=6,
                encoding="rgb8",
                step=24,
                data=image(k).tobytes(),
            )
            front.log(message, log_time=at + DELAY)
        for k in range(11):
            commands.log({"values": [float(k), 0.5, 1.0]}, log_time=START + k * NS // 10)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    write_rosbags(folder / "rosbags.mcap")
    write_foxglove(folder / "foxglove.mcap")
