"""What a simulator must offer, so that collecting, evaluating and workcells do not depend on which one it is.

A control step holds one action for several simulator steps. Images cost far more than physics: nothing is rendered unless it is
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import CameraConfig
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import SimulatorError
from model_core.spec.types import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeCamera(CameraConfig):
    """A placed camera with its image: pixels, and metres at which depth is clipped. A simulator renders it."""

    width: int = 80
    height: int = 80
    max_depth_m: float = 3.0

    def geometry(self, fovy_degrees: float = 45.0) -> CameraGeometry:
        """The pinhole of this camera."""
        azimuth, elevation = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        forward_3 = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        right_3 = np.cross(forward_3, [0.0, 0.0, 1.0])
        right_3 /= np.linalg.norm(right_3)
        down_3 = np.cross(forward_3, right_3)
        rotation_33 = np.stack([right_3, down_3, forward_3])
        position_3 = np.array(self.lookat) - self.distance * forward_3
        return pinhole(rotation_33, position_3, fovy_degrees, width=self.width, height=self.height)


def pinhole(
    rotation_33: NDArray[np.float64], position_3: NDArray[np.float64], fovy_degrees: float, *, width: int, height: int
) -> CameraGeometry:
    """A camera at `position_3` with its axes (right, down, forward) as rows; pixel centres are on whole numbers, row 0 at the top."""
    world_to_camera_44 = np.eye(4)
    world_to_camera_44[:3, :3] = rotation_33
    world_to_camera_44[:3, 3] = -rotation_33 @ position_3
    focal = 0.5 * height / np.tan(np.deg2rad(fovy_degrees) / 2)
    intrinsics_33 = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return CameraGeometry(width=width, height=height, intrinsics_33=intrinsics_33, world_to_camera_44=world_to_camera_44)


class AlreadySolvedError(SimulatorError):
    """An initial state fulfils the task before the robot has moved: it is no trial and no demonstration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCamera:
    """A camera that the simulated scene itself holds, under the name `scene_name`: pixels, and metres at which depth is clipped.

    hidden_group: MuJoCo's group of shapes that it does not see (robosuite's group 0 only touches); None for MuJoCo's choice.
    """

    name: str
    scene_name: str
    width: int = 80
    height: int = 80
    max_depth_m: float = 3.0
    hidden_group: int | None = None


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
    """One initial state at a time: reset, step, observe. Not thread-safe."""

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The embodiment that is simulated."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of everything that decides what an image looks like and how the arm moves: provenance of each episode."""
        ...

    @property
    def render_flags(self) -> Mapping[str, str]:
        """How images are rendered: provenance of each episode."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names that `reset` knows."""
        ...

    def instruction(self, task: str) -> str:
        """The instruction by which a person would ask for `task`."""
        ...

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        """Lay out the initial state `seed` of `task`: equal seeds give equal states. There are no images unless `render`.

        Raises `AlreadySolvedError` for a state that solves the task already; a simulator that learns it by stepping raises it from `step`.
        """
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


class OpenSimulator(Protocol):
    """A simulator's class, as `components.config.simulators` names it."""

    def __call__(
        self, *, sim_steps_per_action: int, horizon_sim_steps: int, cameras: tuple[FreeCamera, ...], instructions: Mapping[str, str]
    ) -> Simulator:
        """Make one. instructions: task -> the sentence that replaces the simulator's. It must not load a renderer before it is used.

        One that lets a recipe choose among the scene's own cameras also takes `scene_cameras`, their names.
        """
        ...
