"""Meta-World v3 (Farama, MIT) on MuJoCo: fifty tasks of one arm, each with a scripted expert.

Facts that decide this file, each seen in the package: `reset(seed=)` is ignored, the initial state comes from `env.seed`; one unit
of action moves the arm's target by 1 cm per simulator step (80 Hz); `tcp_center` is between the finger pads, `get_endeff_pos` is the
wrist.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import AlreadySolvedError, FreeCamera, SceneCamera, StepOutcome
from components.simulation.metaworld_tasks import INSTRUCTIONS
from components.simulation.mujoco_renderer import RENDER_FLAGS, RENDERER, View, Views, import_mujoco
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import SimulatorError
from model_core.spec.types import Observation

SIM_HZ = 80.0
OFFICIAL_HORIZON = 500
EMBODIMENT = "metaworld-sawyer"
# cameras of the scene that can be asked for: our names, and those of the scene's file. Both move with the hand.
SCENE_CAMERAS: Mapping[str, str] = {"gripper": "gripperPOV", "behind_gripper": "behindGripper"}


def embodiment(*, sim_steps_per_action: int = 4, cameras: Sequence[FreeCamera | SceneCamera] = (FreeCamera(),)) -> EmbodimentSpec:
    """The Sawyer arm as it is controlled here; needs no simulator to be installed."""
    metres: dict[str, Any] = {"unit": "m", "frame": "world", "source": "end effector of the simulator"}
    steps: dict[str, Any] = {"unit": "cm per simulator step", "low": -1.0, "high": 1.0, "frame": "world"}
    return EmbodimentSpec(
        name=EMBODIMENT,
        cameras=tuple(CameraSpec(name=c.name, width=c.width, height=c.height, role=c.name) for c in cameras),
        proprio=VectorSpec(
            dims=(
                DimSpec(name="hand_x", low=-0.5, high=0.5, **metres),
                DimSpec(name="hand_y", low=0.3, high=1.05, **metres),
                DimSpec(name="hand_z", low=0.0, high=0.55, **metres),
                DimSpec(name="gripper_opening", unit="fraction", low=0.0, high=1.0, frame="gripper", source="distance of the fingers"),
            )
        ),
        action=VectorSpec(
            dims=(
                DimSpec(name="dx", **steps),
                DimSpec(name="dy", **steps),
                DimSpec(name="dz", **steps),
                DimSpec(name="gripper", unit="effort", low=-1.0, high=1.0, frame="gripper"),
            ),
            mode="delta",
        ),
        control_hz=SIM_HZ / sim_steps_per_action,
        gripper_dim="gripper",
        gripper_open=-1.0,
        hold=(0.0, 0.0, 0.0, None),
        gripper_range=(1.0, -1.0),
    )


class MetaWorld:
    """Meta-World behind the `Simulator` port.

    Physics of many instances may live in one process (a batch of episodes); images go through the process's one
    renderer, which is cheap as long as consecutive images are of the same task. instructions: task -> the sentence
    that replaces ours. scene_cameras: names of `SCENE_CAMERAS` that see too, in images of the first camera's size and without depth.
    """

    def __init__(
        self,
        *,
        sim_steps_per_action: int = 4,
        horizon_sim_steps: int = OFFICIAL_HORIZON,
        cameras: tuple[FreeCamera, ...] = (FreeCamera(),),
        instructions: Mapping[str, str] | None = None,
        scene_cameras: Sequence[str] = (),
    ) -> None:
        self.cameras = cameras
        self._moving = tuple(_scene_camera(name, cameras[0]) for name in scene_cameras)
        self.embodiment = embodiment(sim_steps_per_action=sim_steps_per_action, cameras=(*cameras, *self._moving))
        self._instructions = {**INSTRUCTIONS, **(instructions or {})}
        self.task = ""
        self.env: Any = None
        self._hold_steps = sim_steps_per_action
        self._horizon = min(horizon_sim_steps, OFFICIAL_HORIZON)
        self._envs: dict[str, Any] = {}
        self._state_39 = np.zeros(39)
        self._sim_steps = 0
        self._success = False
        self._expert: Any = None
        self._views = Views()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of everything that decides what the simulation looks like and how it moves."""
        from importlib.metadata import version

        return {name: version(name) for name in ("metaworld", "mujoco", "gymnasium", "numpy")}

    @property
    def render_flags(self) -> dict[str, str]:
        """How images are rendered."""
        return dict(RENDER_FLAGS)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of the package."""
        return tuple(sorted(INSTRUCTIONS))

    def instruction(self, task: str) -> str:
        """The sentence for `task`; raises `SimulatorError` for an unknown name."""
        if task not in INSTRUCTIONS:
            raise SimulatorError(f"Meta-World has no task {task!r}; it has {', '.join(sorted(INSTRUCTIONS))}")
        return self._instructions[task]

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        """Lay out initial state `seed` of `task`."""
        self.instruction(task)
        self._views.clear()
        self.env = self._env(task)
        self.task = task
        self.env.seed(int(seed))
        state_39, _ = self.env.reset()
        self._state_39 = np.asarray(state_39, np.float64)
        self._sim_steps, self._success = 0, False
        return self._observation(render=render)

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """Hold `action_A` (clipped to -1..1) for one control step, or until the horizon. Raises `AlreadySolvedError`."""
        self._ready()
        self._views.clear()
        held = np.clip(np.asarray(action_A, np.float32), -1.0, 1.0)
        for _ in range(min(self._hold_steps, self._horizon - self._sim_steps)):
            state_39, _, _, _, info = self.env.step(held)
            self._state_39 = np.asarray(state_39, np.float64)
            self._sim_steps += 1
            self._success = self._success or bool(info["success"])
            if self._success and self._sim_steps == 1:  # 12.5 ms: the hand has moved by a millimetre at most
                raise AlreadySolvedError(
                    f"{self.task}: its initial state solves the task before the robot has moved. Fix: leave this seed out"
                )
        done = self._success or self._sim_steps >= self._horizon
        return StepOutcome(
            success=self._success, done=done, sim_steps=self._sim_steps, observation=self._observation(render=True) if render else None
        )

    def observe(self) -> Observation:
        """What a policy may see now, rendered."""
        self._ready()
        return self._observation(render=True)

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """Metric depth (H, W) of each placed camera, clipped at the camera's `max_depth_m`."""
        self._ready()
        return {c.name: np.minimum(self._view(c).depth_HW, np.float32(c.max_depth_m)) for c in self.cameras}

    def proprio_P(self) -> NDArray[np.float32]:
        """Hand x, y, z in metres and the gripper's opening 0..1."""
        return self._state_39[:4].astype(np.float32)

    def tcp_3(self) -> NDArray[np.float32]:
        """The point between the finger pads, world metres."""
        self._ready()
        return np.asarray(self.env.tcp_center, np.float32)

    def geometry(self) -> dict[str, CameraGeometry]:
        """Each placed camera's pinhole; MuJoCo's default field of view is 45 degrees. A camera that moves with the hand has none."""
        fovy = float(self.env.model.vis.global_.fovy) if self.env is not None else 45.0
        return {c.name: c.geometry(fovy) for c in self.cameras}

    def expert_action_A(self) -> NDArray[np.float32]:
        """The package's scripted expert, clipped to the action limits."""
        self._ready()
        return np.clip(np.asarray(self._expert.get_action(self._state_39), np.float32), -1.0, 1.0)

    def close(self) -> None:
        """Close the simulators and the process's renderer."""
        RENDERER.close()
        for env in self._envs.values():
            env.close()
        self._envs.clear()
        self.env = None

    def _env(self, task: str) -> Any:
        if task not in self._envs:
            import_mujoco()
            # The experts warn at every step that they ask for more than the limits; they are clipped on purpose.
            warnings.filterwarnings("ignore", message="Constant.s. may be too high")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

                made: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-goal-observable"]
                env = made(seed=0)
            env._freeze_rand_vec = False
            env.seeded_rand_vec = True
            env.model.vis.quality.offsamples = 0
            self._envs[task] = env
        from metaworld.policies import ENV_POLICY_MAP

        self._expert = ENV_POLICY_MAP[task]()
        return self._envs[task]

    def _observation(self, *, render: bool) -> Observation:
        images = {c.name: self._view(c).image_HW3.copy() for c in (*self.cameras, *self._moving)} if render else {}
        return Observation(images=images, proprio_P=self.proprio_P(), instruction=self._instructions[self.task])

    def _view(self, camera: FreeCamera | SceneCamera) -> View:
        return self._views.of(camera, self.env.model, self.env.data, meshes=self.task)

    def _ready(self) -> None:
        if self.env is None:
            raise SimulatorError("no initial state is laid out: call reset(task, seed) first")


def _scene_camera(name: str, first: FreeCamera) -> SceneCamera:
    if name not in SCENE_CAMERAS:
        raise SimulatorError(f"Meta-World's scenes hold no camera {name!r}. Fix: name one of {', '.join(SCENE_CAMERAS)}")
    return SceneCamera(name=name, scene_name=SCENE_CAMERAS[name], width=first.width, height=first.height, max_depth_m=first.max_depth_m)
