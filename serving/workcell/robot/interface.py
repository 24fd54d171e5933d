"""What a robot must offer to be driven by a workcell, and how one is found by name.

A robot is anything that holds one action for one control step. Optional senses (depth, gripper tip, calibration) go
into the recording, and tell how far along a drawn line the gripper is; a policy never sees them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import ActwrightError, SpecError
from model_core.spec.types import Observation


class CommandRejected(ActwrightError, RuntimeError):  # noqa: N818
    """The driver did not take a command. Nothing moved; the cell drops its plan and asks again."""


class RobotStopped(ActwrightError, RuntimeError):  # noqa: N818
    """A protective or emergency stop: nothing moves until a person has released it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTag:
    """Where a command comes from. A hold has chunk_id "" and row -1. expires_at_s: monotonic; 0 for a hold."""

    mode: str
    chunk_id: str = ""
    session_id: str = ""
    epoch: int = 0
    seq: int = 0
    contract_id: str = ""
    model_version: str = ""
    row: int = -1
    expires_at_s: float = 0.0


class Outcome(Protocol):
    """What came of one control step. done: success, or the robot's own horizon passed."""

    @property
    def success(self) -> bool:
        """The task's own flag was seen in this episode."""
        ...

    @property
    def done(self) -> bool:
        """Nothing more will happen in this episode."""
        ...


@runtime_checkable
class Robot(Protocol):
    """One robot with one task. Not thread-safe; every call comes from the control loop."""

    embodiment: EmbodimentSpec
    task: str
    instruction: str

    def reset(self, seed: int) -> None:
        """Lay out scene `seed`; on real hardware: wait until a person has."""
        ...

    def observe(self) -> Observation:
        """What a policy may see now."""
        ...

    def act(self, action_A: NDArray[np.float32]) -> Outcome:
        """Hold one action for one control step. May raise CommandRejected or RobotStopped; anything else is a broken robot."""
        ...

    def close(self) -> None:
        """Release everything that is held open."""
        ...


@runtime_checkable
class RecordedSenses(Protocol):
    """More that a robot may know about itself, for the recording."""

    versions: Mapping[str, str]
    render_flags: Mapping[str, str]

    def depth_m(self) -> Mapping[str, NDArray[np.float32]]:
        """Metric depth of each camera, (H, W)."""
        ...

    def tcp_3(self) -> NDArray[np.float32]:
        """Gripper tip, world metres."""
        ...

    def geometry(self) -> Mapping[str, CameraGeometry]:
        """Calibration of each camera."""
        ...


@runtime_checkable
class SeesGripper(Protocol):
    """Knows where on its cameras' images its gripper is: then a drawn line is sent as what of it lies still ahead."""

    def tcp_3(self) -> NDArray[np.float32]:
        """Gripper tip, world metres."""
        ...

    def geometry(self) -> Mapping[str, CameraGeometry]:
        """Calibration of each camera."""
        ...


@runtime_checkable
class Proprioceptive(Protocol):
    """Can measure itself without taking images: then every command is judged from the pose of this very control step."""

    def proprio_P(self) -> NDArray[np.float32]:
        """Measured now, as in an observation."""
        ...


@runtime_checkable
class AgedSenses(Protocol):
    """Knows how old its readings are."""

    def ages_ms(self) -> Mapping[str, float]:
        """Age of what the last `observe` gave, when it gave it: camera name or "proprio" -> ms."""
        ...


@runtime_checkable
class Stoppable(Protocol):
    """Has a stop of its own. The stop button is outside of software: here it is only seen."""

    def stop_state(self) -> str:
        """ "" while commands are taken, else which stop is active ("protective", "emergency", ...)."""
        ...

    def halt(self, reason: str) -> None:
        """Stop now by the driver's own means."""
        ...


@runtime_checkable
class TagReader(Protocol):
    """Wants to know where each command comes from."""

    def tag(self, tag: CommandTag) -> None:
        """Called just before `act`."""
        ...


def load_robot(path: str) -> Callable[..., Robot]:
    """The factory named by "module:function". Raises SpecError naming what is missing."""
    module_name, _, factory_name = path.partition(":")
    if not module_name or not factory_name:
        raise SpecError(f"a robot is named as 'module:factory', got {path!r}; for example 'components.simulation.robot:make_robot'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SpecError(f"robot {path!r}: {error}; is the package that holds it installed here?") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise SpecError(f"robot {path!r}: module {module_name} has no function {factory_name!r}")
    return cast(Callable[..., Robot], factory)
