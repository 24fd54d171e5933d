"""Meta-World v3 (Farama, MIT) on MuJoCo: fifty tasks of one arm, each with a scripted expert.

Facts that decide this file, each seen in the package: `reset(seed=)` is ignored, the scene comes from `env.seed`;
one unit of action moves the arm's target by 1 cm per simulator step (80 Hz); `tcp_center` is between the finger
pads, `get_endeff_pos` is the wrist; multisampling, shadows and reflections cost ten times the rest of a picture;
several live off-screen renderers in one process corrupt each other's pictures.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import FreeCamera, StepOutcome
from components.simulation.metaworld_tasks import INSTRUCTIONS
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import SimulatorError
from model_core.spec.types import Observation

SIM_HZ = 80.0
OFFICIAL_HORIZON = 500
EMBODIMENT = "metaworld-sawyer"
RENDER_FLAGS = {"shadow": "off", "reflection": "off", "skybox": "off", "offsamples": "0"}


def embodiment(*, sim_steps_per_action: int = 4, cameras: tuple[FreeCamera, ...] = (FreeCamera(),)) -> EmbodimentSpec:
    """The Sawyer arm as we drive it: needs no simulator to be installed."""
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


def versions() -> dict[str, str]:
    """Versions of everything that decides what a scene looks like and how it moves."""
    from importlib.metadata import version

    return {name: version(name) for name in ("metaworld", "mujoco", "gymnasium", "numpy")}


def _import_mujoco() -> Any:
    # MuJoCo reads this once, at its first import, to choose how pictures are drawn without a screen.
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    try:
        import mujoco
    except (ImportError, AttributeError, OSError) as error:
        raise SimulatorError(
            f"MuJoCo cannot draw off screen ({os.environ['MUJOCO_GL']}): {error}. Do: apt-get install libosmesa6, or run 'make setup'"
        ) from error
    return mujoco


class _Eye:
    """The one off-screen renderer of this process.

    Its graphics context holds the meshes of one model file, so scenes of one task share it (the model pointer is
    swapped) and a change of task or picture size closes it and opens another.
    """

    def __init__(self) -> None:
        self._renderer: Any = None
        self._holds: tuple[str, int, int] | None = None

    def look(self, sim: MetaWorld, camera: FreeCamera, *, depth: bool) -> NDArray[Any]:
        mujoco = _import_mujoco()
        wanted = (sim.task, camera.width, camera.height)
        if self._holds != wanted:
            self.close()
            self._renderer = _open_renderer(mujoco, sim.env.model, camera)
            self._holds = wanted
        self._renderer._model = sim.env.model
        self._renderer.update_scene(sim.env.data, _mujoco_camera(mujoco, camera))
        if not depth:
            return self._renderer.render()
        self._renderer.enable_depth_rendering()
        try:
            return self._renderer.render()
        finally:
            self._renderer.disable_depth_rendering()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer, self._holds = None, None


_EYE = _Eye()


def _open_renderer(mujoco: Any, model: Any, camera: FreeCamera) -> Any:
    model.vis.quality.offsamples = 0
    try:
        renderer = mujoco.Renderer(model, camera.height, camera.width)
    except Exception as error:  # the GL bindings raise whatever the missing library makes them raise
        raise SimulatorError(f"no off-screen renderer: {error}. Do: apt-get install libosmesa6, or run 'make setup'") from error
    flag = mujoco.mjtRndFlag
    for off in (flag.mjRND_SHADOW, flag.mjRND_REFLECTION, flag.mjRND_SKYBOX):
        renderer.scene.flags[off] = 0
    return renderer


def _mujoco_camera(mujoco: Any, camera: FreeCamera) -> Any:
    made = mujoco.MjvCamera()
    made.type = mujoco.mjtCamera.mjCAMERA_FREE
    made.lookat[:] = camera.lookat
    made.azimuth, made.elevation, made.distance = camera.azimuth, camera.elevation, camera.distance
    return made


class MetaWorld:
    """Meta-World behind the `Simulator` port.

    Physics of many instances may live in one process (a batch of scenes); pictures go through the process's one
    renderer, which is cheap as long as consecutive pictures are of the same task. instructions: task -> the sentence
    that replaces ours.
    """

    def __init__(
        self,
        *,
        sim_steps_per_action: int = 4,
        horizon_sim_steps: int = OFFICIAL_HORIZON,
        cameras: tuple[FreeCamera, ...] = (FreeCamera(),),
        instructions: Mapping[str, str] | None = None,
    ) -> None:
        self.embodiment = embodiment(sim_steps_per_action=sim_steps_per_action, cameras=cameras)
        self.cameras = cameras
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
        """Lay out scene `seed` of `task`."""
        self.instruction(task)
        self.env = self._env(task)
        self.task = task
        self.env.seed(int(seed))
        state_39, _ = self.env.reset()
        self._state_39 = np.asarray(state_39, np.float64)
        self._sim_steps, self._success = 0, False
        return self._observation(render=render)

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """Hold `action_A` (clipped to -1..1) for one control step, or until the horizon."""
        self._ready()
        held = np.clip(np.asarray(action_A, np.float32), -1.0, 1.0)
        for _ in range(min(self._hold_steps, self._horizon - self._sim_steps)):
            state_39, _, _, _, info = self.env.step(held)
            self._state_39 = np.asarray(state_39, np.float64)
            self._sim_steps += 1
            self._success = self._success or bool(info["success"])
        done = self._success or self._sim_steps >= self._horizon
        return StepOutcome(
            success=self._success, done=done, sim_steps=self._sim_steps, observation=self._observation(render=True) if render else None
        )

    def observe(self) -> Observation:
        """What a policy may see now, rendered."""
        self._ready()
        return self._observation(render=True)

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """Metric depth (H, W) of each camera, clipped at the camera's `max_depth_m`."""
        self._ready()
        return {c.name: np.minimum(_EYE.look(self, c, depth=True), np.float32(c.max_depth_m)) for c in self.cameras}

    def proprio_P(self) -> NDArray[np.float32]:
        """Hand x, y, z in metres and the gripper's opening 0..1."""
        return self._state_39[:4].astype(np.float32)

    def tcp_3(self) -> NDArray[np.float32]:
        """The point between the finger pads, world metres."""
        self._ready()
        return np.asarray(self.env.tcp_center, np.float32)

    def geometry(self) -> dict[str, CameraGeometry]:
        """Each camera's pinhole; MuJoCo's default field of view is 45 degrees."""
        fovy = float(self.env.model.vis.global_.fovy) if self.env is not None else 45.0
        return {c.name: c.geometry(fovy) for c in self.cameras}

    def expert_action_A(self) -> NDArray[np.float32]:
        """The package's scripted expert, clipped to the action limits."""
        self._ready()
        return np.clip(np.asarray(self._expert.get_action(self._state_39), np.float32), -1.0, 1.0)

    def close(self) -> None:
        """Close the scenes and the process's renderer."""
        _EYE.close()
        for env in self._envs.values():
            env.close()
        self._envs.clear()
        self.env = None

    def _env(self, task: str) -> Any:
        if task not in self._envs:
            _import_mujoco()
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
        images = {c.name: _EYE.look(self, c, depth=False).copy() for c in self.cameras} if render else {}
        return Observation(images=images, proprio_P=self.proprio_P(), instruction=self._instructions[self.task])

    def _ready(self) -> None:
        if self.env is None:
            raise SimulatorError("no scene is laid out: call reset(task, seed) first")


class MetaWorldRobot:
    """One workcell's robot: a simulated arm with one job. What `serving.workcell` drives, given by import string."""

    def __init__(self, task: str, seed: int, **options: Any) -> None:
        self._sim = MetaWorld(**options)
        self.embodiment = self._sim.embodiment
        self.task = task
        self.instruction = self._sim.instruction(task)
        self.versions = versions()
        self.render_flags = dict(RENDER_FLAGS)
        self.seed = seed
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Lay out another scene."""
        self.seed = seed
        self._sim.reset(self.task, seed, render=False)

    def observe(self) -> Observation:
        """A fresh observation."""
        return self._sim.observe()

    def act(self, action_A: NDArray[np.floating]) -> StepOutcome:
        """Execute one action for one control step."""
        return self._sim.step(action_A)

    def proprio_P(self) -> NDArray[np.float32]:
        """Measured now, without a picture."""
        return self._sim.proprio_P()

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """What the cell's depth camera sees now."""
        return self._sim.depth_m()

    def tcp_3(self) -> NDArray[np.float32]:
        """Gripper tip by forward kinematics, for the recording only."""
        return self._sim.tcp_3()

    def geometry(self) -> dict[str, CameraGeometry]:
        """Calibration of the cell's cameras."""
        return self._sim.geometry()

    def close(self) -> None:
        """Let go."""
        self._sim.close()


def make_robot(
    task: str,
    seed: int = 950_000,
    *,
    sim_steps_per_action: int = 4,
    horizon_sim_steps: int = OFFICIAL_HORIZON,
    image_size: int = 80,
    max_depth_m: float = 3.0,
    camera: dict[str, Any] | None = None,
    instructions: dict[str, str] | None = None,
) -> MetaWorldRobot:
    """A simulated arm for a workcell process (`components.simulation.metaworld:make_robot` on its command line).

    camera: fields of `FreeCamera` that differ from its defaults. instructions: task -> the sentence that replaces ours.
    """
    placed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in (camera or {}).items()}
    eye = FreeCamera(width=image_size, height=image_size, max_depth_m=max_depth_m, **placed)
    body: dict[str, Any] = {"sim_steps_per_action": sim_steps_per_action, "horizon_sim_steps": horizon_sim_steps, "cameras": (eye,)}
    return MetaWorldRobot(task, seed, instructions=instructions, **body)
