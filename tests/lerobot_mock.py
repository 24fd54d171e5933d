"""An arm with the methods of LeRobot's `Robot` interface (lerobot 0.4.4) that needs no lerobot: joints in degrees, a gripper in percent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

JOINTS = ("shoulder", "elbow")
SIZE = (48, 64, 3)


class MockArm:
    """Goes where it is told at once, within its own limits of 100 degrees. config: settings that some robots of LeRobot have."""

    name = "mock_arm"

    def __init__(self, *, is_calibrated: bool = True, config: Any = None, more: tuple[str, ...] = ()) -> None:
        self.config = config or SimpleNamespace()
        self.at = {"shoulder.pos": 10.0, "elbow.pos": -20.0, "gripper.pos": 50.0, **dict.fromkeys(more, 0.0)}
        self.sent: list[dict[str, Any]] = []
        self._is_connected = False
        self._is_calibrated = is_calibrated
        self._frame = np.zeros(SIZE, np.uint8)

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(self.at, float), "front": SIZE}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self.at, float)

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def is_calibrated(self) -> bool:
        return self._is_calibrated

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate
        self._is_connected = True

    def calibrate(self) -> None:
        raise AssertionError("a cell never calibrates")

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        assert self.is_connected
        self._frame += 1
        return {**self.at, "front": self._frame}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        assert self.is_connected
        assert set(action) == set(self.action_features)
        self.sent.append(action)
        self.at = {key: float(np.clip(value, -100, 100)) for key, value in action.items()}
        return dict(self.at)

    def disconnect(self) -> None:
        self._is_connected = False


def make_arm(**options: Any) -> MockArm:
    """As a person's own module would."""
    return MockArm(**options)
