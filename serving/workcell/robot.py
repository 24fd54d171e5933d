"""What a robot must offer to be driven by a workcell, and how one is found by name.

A robot is anything that holds one action for one control step. Optional senses (depth, gripper tip, calibration) go
into the recording only; a policy never sees them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import SpecError
from model_core.spec.types import CameraGeometry, Observation


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
    """One body with one job. Not thread-safe; every call comes from the control loop."""

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
        """Hold one action for one control step."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@runtime_checkable
class RecordedSenses(Protocol):
    """More that a robot may know about itself, for the recording only."""

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


def load_robot(path: str) -> Callable[..., Robot]:
    """The factory named by "module:function". Raises SpecError naming what is missing."""
    module_name, _, factory_name = path.partition(":")
    if not module_name or not factory_name:
        raise SpecError(f"a robot is named as 'module:factory', got {path!r}; for example 'components.simulators.metaworld:make_robot'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SpecError(f"robot {path!r}: {error}; is the package that holds it installed here?") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise SpecError(f"robot {path!r}: module {module_name} has no function {factory_name!r}")
    return cast(Callable[..., Robot], factory)
