"""LeRobot's own `Robot` class against our bridge: its abstract members are those of the mock arm, and what the bridge uses is in them.

Run in an environment with lerobot 0.4.4: PYTHONPATH=. PYTHON -m tests.conformance.clients.lerobot_robot
Prints one JSON line; exit code 1 where the two differ.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import ModuleType

USED = Path(__file__).parents[3] / "serving" / "workcell" / "robot" / "lerobot_arm.py"


def members_used() -> set[str]:
    """The members of `LeRobotRobot`, read from its source: the robot's environment needs nothing of ours but the mock."""
    tree = ast.parse(USED.read_text(encoding="utf-8"))
    protocol = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "LeRobotRobot")
    return {node.name for node in protocol.body if isinstance(node, ast.FunctionDef)}


def main() -> int:
    """Compare, and drive a real subclass of LeRobot's class once."""
    # `lerobot.robots` takes two names of types from here, and with them all of torchvision, which this environment need not have
    types = ModuleType("lerobot.processor")
    types.RobotAction = types.RobotObservation = dict  # type: ignore[attr-defined]
    sys.modules["lerobot.processor"] = types

    from lerobot.robots import Robot, RobotConfig

    from tests.lerobot_mock import MockArm

    class RealArm(MockArm, Robot):
        """A robot of LeRobot: its class refuses to be made where a member is missing."""

        config_class = RobotConfig
        name = "mock_arm"

    arm = RealArm()
    arm.connect(calibrate=False)
    sent = arm.send_action({key: 1.0 for key in arm.action_features})  # noqa: C420 (one dict a call)
    found = {
        "abstract": sorted(Robot.__abstractmethods__),
        "used_but_not_theirs": sorted(members_used() - set(dir(Robot))),
        "missing_in_mock": sorted(set(Robot.__abstractmethods__) - set(dir(MockArm))),
        "sent": sent,
        "keys_match": set(arm.get_observation()) == set(arm.observation_features),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(found["used_but_not_theirs"] or found["missing_in_mock"] or not found["keys_match"]))


if __name__ == "__main__":
    sys.exit(main())
