"""What the name of a dimension says it is: a gripper, a joint, a rotation, a length."""

from __future__ import annotations

import re

GRIPPER, QUATERNION, ROTATION, LENGTH, JOINT, UNKNOWN = "gripper", "quaternion", "rotation", "length", "joint", ""
ANGLES = (ROTATION, JOINT)
_WORDS = (
    (GRIPPER, {"gripper", "grip", "finger", "fingers", "jaw", "claw", "hand_opening"}),
    (QUATERNION, {"quat", "quaternion", "qx", "qy", "qz", "qw"}),
    (ROTATION, {"roll", "pitch", "yaw", "droll", "dpitch", "dyaw", "rx", "ry", "rz", "drx", "dry", "drz"}
     | {"rot", "axis", "angle", "axisangle", "euler"}),
    (LENGTH, {"x", "y", "z", "dx", "dy", "dz", "px", "py", "pz"}),
    (JOINT, {"joint", "joints", "shoulder", "elbow", "wrist", "waist", "forearm", "hip", "knee", "ankle", "neck", "torso"}),
)  # fmt: skip


def kind_of(name: str) -> str:
    """What a dimension's name says it is: one of the constants of this module, "" where it says nothing."""
    lowered = name.lower()
    words = set(re.findall(r"[a-z]+", lowered))
    if "joint" in words and not words & _WORDS[0][1]:
        return JOINT  # "joint_x" is a joint
    for kind, known in _WORDS:
        if words & known or any(word.startswith("gripper") for word in words if kind == GRIPPER):
            return JOINT if kind == ROTATION and words & _WORDS[4][1] else kind  # "wrist_roll" is a joint
    return UNKNOWN
