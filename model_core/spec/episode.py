"""A recorded episode: arrays over its control steps, who produced it, and how its cameras stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_core.spec.embodiment import EmbodimentSpec
from model_core.spec.types import Observation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraGeometry:
    """A pinhole camera: where a world point lands in its image.

    intrinsics_33: pixels; world_to_camera_44: metres, OpenCV axes (x right, y down, z forward).
    """

    width: int
    height: int
    intrinsics_33: NDArray[np.float64]
    world_to_camera_44: NDArray[np.float64]

    def project(self, points_T3: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (T, 3) in metres -> (T, 3): u and v in pixels, depth z in metres."""
        homogeneous_T4 = np.concatenate([np.asarray(points_T3, np.float64), np.ones((len(points_T3), 1))], axis=1)
        camera_T3 = (homogeneous_T4 @ self.world_to_camera_44.T)[:, :3]
        pixels_T3 = camera_T3 @ self.intrinsics_33.T
        return np.concatenate([pixels_T3[:, :2] / pixels_T3[:, 2:3], camera_T3[:, 2:3]], axis=1)

    def in_view(self, projected_T3: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points that `project` gave lie before the camera and inside its image, (T,)."""
        u_T, v_T, z_T = projected_T3.T
        return (u_T >= 0) & (u_T <= self.width - 1) & (v_T >= 0) & (v_T <= self.height - 1) & (z_T > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who or what produced an episode, and with what. Never a wall-clock time: equal work has equal bytes.

    producer: "expert:<name>", "teleop:<name>" or "policy:<model name>/<version>". versions: package -> version.
    render: render flags that change the image. seed: of the scene.
    """

    producer: str
    cell: str
    seed: int
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    render: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """One recorded attempt at one instruction, as arrays over its T control steps.

    success: whether it solved its task; None where it is not known, which is not a failure.
    images: camera -> uint8 (T, H, W, 3). depth_m: camera -> float32 (T, H, W), metres (empty where there is none).
    proprio_TP, actions_TA: float32; `actions_TA` is the *label* (what should be done), `executed_TA` what was sent.
    tcp_T3: gripper tip in world metres where known, used only by the truth annotator, never by a policy.
    timestamps_T: float64 seconds from the first step, as they were measured. body: the robot's own description of itself, where the
    recording carries one; its numbers and images are in the units, names and order of that. intervention_T: bool (T,), where a person
    acted in the place of the policy; None where the recording does not say.
    """

    episode_id: str
    embodiment: str
    task: str
    instruction: str
    success: bool | None
    provenance: Provenance
    images: Mapping[str, NDArray[np.uint8]]
    depth_m: Mapping[str, NDArray[np.float32]]
    geometry: Mapping[str, CameraGeometry]
    proprio_TP: NDArray[np.float32]
    actions_TA: NDArray[np.float32]
    executed_TA: NDArray[np.float32]
    timestamps_T: NDArray[np.float64]
    tcp_T3: NDArray[np.float32] | None = None
    body: EmbodimentSpec | None = None
    intervention_T: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.timestamps_T)

    def observation(self, t: int) -> Observation:
        """What a policy would have been shown at step `t`."""
        return Observation(
            images={name: frames[t] for name, frames in self.images.items()},
            proprio_P=self.proprio_TP[t],
            instruction=self.instruction,
        )

    def observations(self) -> Iterator[Observation]:
        """Every step's observation, in order."""
        return (self.observation(t) for t in range(len(self)))
