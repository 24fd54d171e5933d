"""A second simulated embodiment in one module: a two-link arm over a table, in numpy, with a rendered camera and depth.

It differs from the first where code could be tempted to assume: three action dimensions, the gripper is the first of them, the state
has joint angles, and 30 simulator steps are a second.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import AlreadySolvedError, FreeCamera, StepOutcome
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.types import Observation

LINKS = (0.3, 0.25)
RADIANS_PER_STEP = 0.02
SIM_HZ = 30.0
REACHED_M = 0.02
TABLE, ARM, TIP, TARGET = (120, 120, 110), (40, 40, 40), (20, 60, 240), (240, 30, 20)
SOLVED_SEEDS = (7_777,)  # an initial state whose target lies under the tip
TASK, INSTRUCTION = "reach-red", "touch the red square"


def joints(angles_2: NDArray[np.floating]) -> NDArray[np.float64]:
    """Elbow and tip (2, 3), metres, on the table."""
    a, b = angles_2[0], angles_2[0] + angles_2[1]
    elbow = np.array([np.cos(a), np.sin(a)]) * LINKS[0]
    tip = elbow + np.array([np.cos(b), np.sin(b)]) * LINKS[1]
    return np.array([[*elbow, 0.0], [*tip, 0.0]])


def reach(angles_2: NDArray[np.floating], target_2: NDArray[np.floating], steps: int) -> NDArray[np.float32]:
    """The action (gripper, shoulder, elbow) of `steps` simulator steps that brings the tip towards the target."""
    tip = joints(angles_2)[1, :2]
    columns = [(joints(angles_2 + shift)[1, :2] - tip) / 1e-4 for shift in np.eye(2) * 1e-4]
    jacobian_22 = np.stack(columns, axis=1)
    wanted_2 = jacobian_22.T @ np.linalg.solve(jacobian_22 @ jacobian_22.T + 1e-3 * np.eye(2), target_2 - tip)
    speeds_2 = wanted_2 / (RADIANS_PER_STEP * steps)
    speeds_2 /= max(1.0, np.abs(speeds_2).max())
    return np.array([0.3, *speeds_2], np.float32)


class PlanarArm:
    """The `Simulator` of the arm; its class is named in a recipe as "tests.planar_arm:PlanarArm"."""

    versions: Mapping[str, str] = {"planar-arm": "1"}
    render_flags: Mapping[str, str] = {"lights": "none"}
    tasks = (TASK,)

    def __init__(
        self, *, sim_steps_per_action: int, horizon_sim_steps: int, cameras: tuple[FreeCamera, ...], instructions: Mapping[str, str]
    ) -> None:
        self.cameras = cameras
        self._hold, self._horizon = sim_steps_per_action, horizon_sim_steps
        self._sentence = instructions.get(TASK, INSTRUCTION)
        self._angles_2, self._target_2, self._gripper = np.zeros(2), np.zeros(2), 0.0
        self._sim_steps, self._success = 0, False
        speed = {"unit": "share of full speed", "low": -1.0, "high": 1.0, "frame": "joint"}
        angle = {"unit": "rad", "low": -3.2, "high": 3.2, "frame": "joint"}
        grip = DimSpec(name="grip", unit="fraction", low=0.0, high=1.0, frame="gripper")
        self.embodiment = EmbodimentSpec(
            name="planar-arm",
            cameras=tuple(CameraSpec(name=c.name, width=c.width, height=c.height) for c in cameras),
            proprio=VectorSpec(dims=(grip, DimSpec(name="shoulder", **angle), DimSpec(name="elbow", **angle))),
            action=VectorSpec(dims=(grip, DimSpec(name="shoulder", **speed), DimSpec(name="elbow", **speed)), mode="velocity"),
            control_hz=SIM_HZ / sim_steps_per_action,
            gripper_dim="grip",
            gripper_open=1.0,
            hold=(None, 0.0, 0.0),
        )

    def instruction(self, task: str) -> str:
        return self._sentence

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        rng = np.random.default_rng(seed)
        self._angles_2 = rng.uniform([-1.2, 0.6], [-0.6, 1.2])
        distance, angle = rng.uniform(0.25, 0.45), rng.uniform(0.0, 1.0)
        self._target_2 = distance * np.array([np.cos(angle), np.sin(angle)])
        self._sim_steps, self._success, self._gripper = 0, False, 0.0
        if seed in SOLVED_SEEDS:
            self._target_2 = joints(self._angles_2)[1, :2]
        if self._is_reached():
            raise AlreadySolvedError(f"{task}: initial state {seed} has the tip on the target. Fix: leave this seed out")
        return self._observation(render=render)

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        held_A = np.clip(action_A, (0.0, -1.0, -1.0), 1.0)
        for _ in range(min(self._hold, self._horizon - self._sim_steps)):
            self._angles_2 = np.clip(self._angles_2 + held_A[1:] * RADIANS_PER_STEP, -3.2, 3.2)
            self._gripper = float(held_A[0])
            self._sim_steps += 1
            self._success = self._success or self._is_reached()
        done = self._success or self._sim_steps >= self._horizon
        seen = self._observation(render=True) if render else None
        return StepOutcome(success=self._success, done=done, sim_steps=self._sim_steps, observation=seen)

    def _is_reached(self) -> bool:
        return bool(np.linalg.norm(joints(self._angles_2)[1, :2] - self._target_2) < REACHED_M)

    def observe(self) -> Observation:
        return self._observation(render=True)

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        return {c.name: np.minimum(table_depth(c.geometry()), c.max_depth_m).astype(np.float32) for c in self.cameras}

    def proprio_P(self) -> NDArray[np.float32]:
        return np.array([self._gripper, *self._angles_2], np.float32)

    def tcp_3(self) -> NDArray[np.float32]:
        return joints(self._angles_2)[1].astype(np.float32)

    def geometry(self) -> dict[str, CameraGeometry]:
        return {c.name: c.geometry() for c in self.cameras}

    def expert_action_A(self) -> NDArray[np.float32]:
        return reach(self._angles_2, self._target_2, self._hold)

    def close(self) -> None:
        """Nothing is held."""

    def _observation(self, *, render: bool) -> Observation:
        images = {c.name: self._image(c) for c in self.cameras} if render else {}
        return Observation(images=images, proprio_P=self.proprio_P(), instruction=self._sentence)

    def _image(self, camera: FreeCamera) -> NDArray[np.uint8]:
        image = np.full((camera.height, camera.width, 3), TABLE, np.uint8)
        elbow, tip = joints(self._angles_2)
        share_N1 = np.linspace(0, 1, 40)[:, None]
        arm_N3 = np.concatenate([share_N1 * elbow, elbow + share_N1 * (tip - elbow)])
        for points_N3, color, half in ((arm_N3, ARM, 0), (np.array([[*self._target_2, 0.0]]), TARGET, 2), (tip[None], TIP, 1)):
            for u, v, _ in np.rint(camera.geometry().project(points_N3)).astype(int):
                image[max(v - half, 0) : max(v + half + 1, 0), max(u - half, 0) : max(u + half + 1, 0)] = color
        return image


def table_points(geometry: CameraGeometry) -> NDArray[np.float64]:
    """Where each pixel's ray meets the table: (H, W, 3), metres."""
    v_HW, u_HW = np.mgrid[: geometry.height, : geometry.width]
    rays_HW3 = np.stack([u_HW, v_HW, np.ones_like(u_HW)], axis=-1) @ np.linalg.inv(geometry.intrinsics_33).T
    rotation_33, offset_3 = geometry.world_to_camera_44[:3, :3], geometry.world_to_camera_44[:3, 3]
    position_3, directions_HW3 = -rotation_33.T @ offset_3, rays_HW3 @ rotation_33
    return position_3 + directions_HW3 * (-position_3[2] / directions_HW3[..., 2])[..., None]


def table_depth(geometry: CameraGeometry) -> NDArray[np.float64]:
    """Distance of the table along the camera's axis: (H, W), metres."""
    points_HW3 = table_points(geometry)
    return (points_HW3 @ geometry.world_to_camera_44[:3, :3].T + geometry.world_to_camera_44[:3, 3])[..., 2]
