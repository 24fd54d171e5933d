"""A robot that implements LeRobot's `Robot` interface as the `Robot` of a workcell: keys become vectors, units the contract's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model_core.spec.embodiment import CameraSpec, EmbodimentSpec
from model_core.spec.errors import SpecError
from model_core.spec.types import Observation
from serving.workcell.robot.interface import CommandRejected
from serving.workcell.robot.strict_driver import Step

logger = logging.getLogger(__name__)

_CLIPPED = 1e-3  # of a dimension's range: a command that the robot changed by more is told


@runtime_checkable
class LeRobotRobot(Protocol):
    """What of LeRobot's `Robot` is used (lerobot 0.4.4, `lerobot.robots.Robot`)."""

    @property
    def observation_features(self) -> Mapping[str, Any]:
        """Key -> `float`, or the shape (height, width, 3) of an image."""
        ...

    @property
    def action_features(self) -> Mapping[str, Any]:
        """Key -> `float`."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether it answers."""
        ...

    @property
    def is_calibrated(self) -> bool:
        """Whether its joint zeros are known."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Open its ports."""
        ...

    def get_observation(self) -> Mapping[str, Any]:
        """One value or image per observation key."""
        ...

    def send_action(self, action: dict[str, Any]) -> Mapping[str, Any]:
        """Command one value per action key; the answer is what was really sent."""
        ...

    def disconnect(self) -> None:
        """Close its ports."""
        ...


@dataclass(slots=True, kw_only=True)
class LeRobotArm:
    """A `Robot` of a workcell. It knows neither stops nor the age of images: `stop_state` and `ages_ms` are not offered.

    factors: embodiment's number = robot's number * factor, by robot key. clipped: commands that the robot changed before it sent them.
    """

    embodiment: EmbodimentSpec
    task: str
    instruction: str
    robot: LeRobotRobot
    state_keys: tuple[str, ...]
    action_keys: tuple[str, ...]
    camera_keys: Mapping[str, str]
    factors: Mapping[str, float]
    steps: int
    clipped: int = 0
    _done: int = 0

    def reset(self, seed: int) -> None:
        """The next episode. LeRobot's interface lays out no scene: a person has done it before the episode is started."""
        if not self.robot.is_connected:
            raise CommandRejected("the robot is not connected any more")
        self._done = 0

    def observe(self) -> Observation:
        """Images and state of one reading."""
        seen = self.robot.get_observation()
        images = {camera.name: _image(camera, self.camera_keys[camera.name], seen) for camera in self.embodiment.cameras}
        proprio_P = np.array([float(seen[key]) * self.factors[key] for key in self.state_keys], np.float32)
        return Observation(images=images, proprio_P=proprio_P, instruction=self.instruction)

    def act(self, action_A: NDArray[np.float32]) -> Step:
        """Command every dimension as an absolute target, in the robot's units."""
        wanted = {key: float(value) / self.factors[key] for key, value in zip(self.action_keys, action_A, strict=True)}
        sent = self.robot.send_action(dict(wanted))
        changed = [
            f"{key} {wanted[key]:.5g} -> {float(sent[key]):.5g}"
            for key, dim in zip(self.action_keys, self.embodiment.action.dims, strict=True)
            if key in sent and abs(float(sent[key]) - wanted[key]) * abs(self.factors[key]) > _CLIPPED * (dim.high - dim.low)
        ]
        if changed:
            self.clipped += 1
            logger.warning("driver.clipped number=%d: the robot changed the command: %s", self.clipped, "; ".join(changed))
        self._done += 1
        return Step(success=False, done=self._done >= self.steps)

    def close(self) -> None:
        """Disconnect. Whether its motors keep their torque is a setting of the robot."""
        if self.robot.is_connected:
            self.robot.disconnect()


def _image(camera: CameraSpec, key: str, seen: Mapping[str, Any]) -> NDArray[np.uint8]:
    image_HW3 = np.asarray(seen[key])
    if image_HW3.shape != (camera.height, camera.width, 3) or image_HW3.dtype != np.uint8:
        raise SpecError(f"camera {key!r} gave {image_HW3.dtype} {image_HW3.shape}, the contract has uint8 {camera.height, camera.width, 3}")
    return image_HW3.copy()  # its buffer is filled again
