"""What a simulator must offer, so that collecting, evaluating and workcells never know which one it is.

A control step holds one action for several simulator steps. Pictures cost far more than physics: nothing is
rendered unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.types import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeCamera:
    """A camera that looks at a fixed point from a distance. Angles in degrees (MuJoCo's free camera), metres, pixels."""

    name: str = "front"
    azimuth: float = 135.0
    elevation: float = -35.0
    distance: float = 1.0
    lookat: tuple[float, float, float] = (0.0, 0.74, 0.13)
    width: int = 80
    height: int = 80
    max_depth_m: float = 3.0

    def geometry(self, fovy_degrees: float = 45.0) -> CameraGeometry:
        """The pinhole of this camera; pixel centres lie on whole numbers, row 0 at the top."""
        azimuth, elevation = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        forward_3 = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        right_3 = np.cross(forward_3, [0.0, 0.0, 1.0])
        right_3 /= np.linalg.norm(right_3)
        down_3 = np.cross(forward_3, right_3)
        rotation_33 = np.stack([right_3, down_3, forward_3])
        position_3 = np.array(self.lookat) - self.distance * forward_3
        world_to_camera_44 = np.eye(4)
        world_to_camera_44[:3, :3] = rotation_33
        world_to_camera_44[:3, 3] = -rotation_33 @ position_3
        focal = 0.5 * self.height / np.tan(np.deg2rad(fovy_degrees) / 2)
        intrinsics_33 = np.array([[focal, 0.0, (self.width - 1) / 2], [0.0, focal, (self.height - 1) / 2], [0.0, 0.0, 1.0]])
        return CameraGeometry(width=self.width, height=self.height, intrinsics_33=intrinsics_33, world_to_camera_44=world_to_camera_44)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepOutcome:
    """After one control step. `observation` is None unless it was asked for.

    success: the task's own flag was seen at some simulator step of this episode. done: success, or the horizon passed.
    """

    success: bool
    done: bool
    sim_steps: int
    observation: Observation | None = None


class Simulator(Protocol):
    """One scene at a time: reset, step, look. Not thread-safe."""

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The body that is simulated."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names that `reset` knows."""
        ...

    def instruction(self, task: str) -> str:
        """What a person would say to get `task` done."""
        ...

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        """Lay out the scene `seed` of `task`: the same seed gives the same scene. Pictures are empty unless `render`."""
        ...

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """Hold `action_A` for one control step."""
        ...

    def observe(self) -> Observation:
        """Render now."""
        ...

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """Metric depth of each camera now: (H, W), metres, clipped at the camera's limit."""
        ...

    def proprio_P(self) -> NDArray[np.float32]:
        """The state that a policy may see, without rendering."""
        ...

    def tcp_3(self) -> NDArray[np.float32]:
        """Gripper tip in world metres. Privileged: for labels only, never for a policy."""
        ...

    def geometry(self) -> dict[str, CameraGeometry]:
        """Each camera's pinhole."""
        ...

    def expert_action_A(self) -> NDArray[np.float32]:
        """What the scripted expert (which sees the simulator's state) would do now."""
        ...

    def close(self) -> None:
        """Free what is held; safe to call twice."""
        ...
