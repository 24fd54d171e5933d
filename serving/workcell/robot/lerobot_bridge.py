"""A robot that implements LeRobot's `Robot` interface, driven by a workcell. LeRobot itself is imported by your factory, not here.

    # my_arm.py
    from lerobot.robots.so101_follower import SO101Follower, SO101FollowerConfig
    def make_arm(port): return SO101Follower(SO101FollowerConfig(port=port, use_degrees=True))

    python -m serving.workcell --robot serving.workcell.robot.lerobot_bridge:make_robot --robot-option robot=my_arm:make_arm \
        --robot-option 'options={"port": "/dev/ttyACM0"}' --robot-option contract=contract.json --robot-option unit=deg \
        --robot-option gripper_unit=percent --robot-option gripper_open=100 --robot-option 'instruction="pick the cube"' ...

That interface names numbers and cameras, and says nothing of their units, of what opens the gripper, of the age of an image or of a stop.
Units and the gripper are stated by the options above and compared with the embodiment of the contract; nothing is guessed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_core.spec.documents import from_document
from model_core.spec.embodiment import DimSpec, EmbodimentSpec
from model_core.spec.errors import NotReady, SpecError
from serving.contract_file import read_contract
from serving.workcell.robot.lerobot_arm import LeRobotArm, LeRobotRobot

# unit -> (what it measures, how much of that one unit is)
UNITS: Mapping[str, tuple[str, float]] = {
    "rad": ("angle", 1.0),
    "deg": ("angle", float(np.pi / 180)),
    "m": ("length", 1.0),
    "mm": ("length", 0.001),
    "fraction": ("share", 1.0),
    "percent": ("share", 0.01),
    "range_100": ("calibrated range", 1.0),  # LeRobot's -100..100 between the ends that were found at calibration
}
_ABSOLUTE = ("absolute", "relative")  # the cell gives a relative number as the absolute target that it means


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedRobot:
    """What a person states about a robot of LeRobot, because its interface does not.

    unit: of all joints; gripper_unit: of the gripper; both of `UNITS`. gripper_open: the gripper's value, in its unit, that opens it.
    keys: our dimension or camera -> LeRobot's key, where it is neither the same nor the same with ".pos". steps: of an episode at most.
    """

    unit: str
    gripper_unit: str
    gripper_open: float
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    steps: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        for name in (self.unit, self.gripper_unit):
            if name not in UNITS:
                raise SpecError(f"unit {name!r} of the robot: expected one of {', '.join(UNITS)}")


def make_robot(task: str, seed: int, *, robot: str, contract: str, instruction: str, **stated: Any) -> LeRobotArm:
    """For `--robot serving.workcell.robot.lerobot_bridge:make_robot`: connect to the robot once everything fits.

    robot: "module:function" that gives a robot of LeRobot, called with `options`. contract: a file whose embodiment it must have.
    stated: the fields of `StatedRobot`. Raises `SpecError` naming what is missing or contradicts; then nothing was connected.
    """
    needed = ("unit", "gripper_unit", "gripper_open")
    if missing := [name for name in needed if name not in stated]:
        raise SpecError(
            f"LeRobot's interface does not say {', '.join(missing)} of its numbers; a person must. Fix: --robot-option {missing[0]}=..., "
            f"units are {', '.join(UNITS)}"
        )
    known = from_document(StatedRobot, stated, where="robot options")
    body = read_contract(Path(contract)).embodiment
    made = _made(robot, known.options)
    arm = bridge(made, body, known, task=task, instruction=instruction)
    if not made.is_connected:
        made.connect(calibrate=False)  # a calibration moves the arm by hand: a person's work, and never while a cell starts
    if not made.is_calibrated:
        made.disconnect()
        raise NotReady("the robot is not calibrated, so its numbers have no zero. Fix: calibrate it with LeRobot's own command first")
    return arm


def bridge(robot: LeRobotRobot, body: EmbodimentSpec, stated: StatedRobot, *, task: str, instruction: str) -> LeRobotArm:
    """The robot as the embodiment describes it. Raises `SpecError` for a key, unit, mode, image or polarity that does not fit."""
    state_keys = tuple(_key(dim.name, robot.observation_features, stated, "state") for dim in body.proprio.dims)
    action_keys = tuple(_key(dim.name, robot.action_features, stated, "action") for dim in body.action.dims)
    cameras = {c.name: _key(c.name, robot.observation_features, stated, "camera") for c in body.cameras}
    if more := sorted(set(robot.action_features) - set(action_keys)):
        raise SpecError(f"the robot also wants {', '.join(more)} in every command, which embodiment {body.name!r} does not have")
    for dim, mode in zip(body.action.dims, body.action.modes, strict=True):
        if mode not in _ABSOLUTE:
            raise SpecError(f"action {dim.name!r} is {mode or 'of no stated mode'}; LeRobot's robots take absolute targets")
    for camera in body.cameras:
        _check_camera(robot, cameras[camera.name], (camera.height, camera.width, 3), camera.color)
    _check_gripper(body, stated)
    _check_degrees(robot, stated)
    pairs = [*zip(state_keys, body.proprio.dims, strict=True), *zip(action_keys, body.action.dims, strict=True)]
    factors: dict[str, float] = {}
    for key, dim in pairs:
        factor = _factor(dim, stated.gripper_unit if dim.name == body.gripper_dim else stated.unit)
        if factors.setdefault(key, factor) != factor:
            raise SpecError(f"{key!r} is read and commanded in two units by embodiment {body.name!r}; one factor must serve both")
    return LeRobotArm(
        embodiment=body,
        task=task,
        instruction=instruction,
        robot=robot,
        state_keys=state_keys,
        action_keys=action_keys,
        camera_keys=cameras,
        factors=factors,
        steps=stated.steps,
    )


def _made(path: str, options: Mapping[str, Any]) -> LeRobotRobot:
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(**options)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SpecError(f"robot {path!r}: {error}. Fix: name 'module:function' that gives a robot of LeRobot, with its options") from error
    if not isinstance(made, LeRobotRobot):
        raise SpecError(f"robot {path!r} gave {type(made).__name__}, which is no robot of LeRobot: it lacks one of its methods")
    return made


def _key(name: str, features: Mapping[str, Any], stated: StatedRobot, kind: str) -> str:
    wanted: Sequence[str] = (stated.keys[name],) if name in stated.keys else (name, f"{name}.pos")
    found = next((key for key in wanted if key in features), None)
    if found is None:
        raise SpecError(
            f"{kind} {name!r}: the robot has no {' or '.join(map(repr, wanted))}; it has {', '.join(features)}. "
            f'Fix: --robot-option \'keys={{"{name}": "..."}}\''
        )
    is_image = isinstance(features[found], tuple | list)
    if is_image != (kind == "camera"):
        raise SpecError(f"{kind} {name!r}: {found!r} of the robot is {'an image' if is_image else 'a number'}")
    return found


def _factor(dim: DimSpec, unit: str) -> float:
    """By what a number of the robot is multiplied to be one of the embodiment."""
    if dim.unit == unit:
        return 1.0
    if dim.unit not in UNITS or UNITS[dim.unit][0] != UNITS[unit][0]:
        raise SpecError(
            f"dimension {dim.name!r} is in {dim.unit!r}, the robot gives {unit!r}: not the same measure. "
            "Fix: state the robot's true unit, or record and train in a unit that it has"
        )
    return UNITS[unit][1] / UNITS[dim.unit][1]


def _check_gripper(body: EmbodimentSpec, stated: StatedRobot) -> None:
    dim = next((dim for dim in body.action.dims if dim.name == body.gripper_dim), None)
    if dim is None:
        raise SpecError(f"embodiment {body.name!r} names no gripper dimension of its action; which value opens it cannot be known")
    ours = stated.gripper_open * _factor(dim, stated.gripper_unit)
    if abs(ours - float(body.gripper_open)) > 1e-6 * (dim.high - dim.low):
        raise SpecError(
            f"the gripper opens at {stated.gripper_open:g} {stated.gripper_unit} = {ours:g} {dim.unit}, the embodiment says at "
            f"{float(body.gripper_open):g}. Fix: find out which is true before anything moves; a turned polarity closes instead of opening"
        )


def _check_degrees(robot: LeRobotRobot, stated: StatedRobot) -> None:
    """Some robots of LeRobot state in their settings whether joints are in degrees."""
    use_degrees = getattr(getattr(robot, "config", None), "use_degrees", None)
    if isinstance(use_degrees, bool) and use_degrees != (stated.unit == "deg"):
        raise SpecError(
            f"the robot's setting use_degrees is {use_degrees}, but unit={stated.unit} was stated. "
            f"Fix: unit={'deg' if use_degrees else 'range_100'}, or the other setting"
        )


def _check_camera(robot: LeRobotRobot, key: str, shape: tuple[int, int, int], color: str) -> None:
    given = tuple(robot.observation_features[key])
    if given != shape:
        raise SpecError(f"camera {key!r} gives images of {given}, the contract has {shape}. Fix: set the camera's height and width")
    cameras = getattr(getattr(robot, "config", None), "cameras", None) or {}
    mode = getattr(cameras.get(key), "color_mode", None)
    stated = str(getattr(mode, "value", mode or "")).lower()
    if stated and stated != color:
        raise SpecError(f"camera {key!r} gives {stated} images, the contract has {color}. Fix: set its color_mode")
