"""What an embodiment file holds, and the `EmbodimentSpec` that it means.

Every field may be None, which says that a person has still to confirm it; `file.read_embodiment` gives a spec only where nothing is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.documents import Number
from model_core.spec.errors import SpecError

T = TypeVar("T")
FORMAT = 1
RATES = ("delta", "velocity")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraEntry:
    """One camera. name: ours. The other fields are those of `CameraSpec`."""

    name: str | None
    width: int | None
    height: int | None
    role: str | None = ""
    color: Literal["rgb", "bgr"] | None = "rgb"
    max_age_ms: Number = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DimEntry:
    """One number of the state or of an action. unit, frame, mode: None takes that of the vector.

    low, high: the range in which it is allowed. hold: the value that keeps the robot where it is; None follows from the mode
    (0 for delta and velocity, the measured pose for the others). source: the sensor or computation of a state value.
    """

    name: str | None
    low: Number | None
    high: Number | None
    unit: str | None = None
    frame: str | None = None
    mode: str | None = None
    soft_low: Number | None = None
    soft_high: Number | None = None
    source: str | None = ""
    hold: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorEntry:
    """The state or the action. unit, frame, mode: of every dimension that states no own one; mode is for actions only."""

    dims: tuple[DimEntry, ...]
    unit: str | None = None
    frame: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperEntry:
    """The gripper of the actions. dim: its name, "" for none. values: the two values of full closure and full opening, smaller first.

    open: which of the two opens it. threshold: where a gripper of two states switches; None for one that takes every value.
    """

    dim: str | None = ""
    values: tuple[Number, Number] | None = None
    open: Number | None = None
    threshold: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Who confirmed the file, and on which day."""

    by: str | None = None
    on: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodimentDocument:
    """The whole file without its evidence. note: for people."""

    format: int
    name: str | None
    control_hz: Number | None
    cameras: tuple[CameraEntry, ...]
    proprio: VectorEntry
    action: VectorEntry
    gripper: GripperEntry
    rotation: str | None = ""
    confirmed: Confirmation = Confirmation()
    note: str = ""

    def spec(self) -> EmbodimentSpec:
        """The embodiment that the file means. Raises `SpecError` naming a field that is missing or contradicts another."""
        gripper = _gripper(self)
        return EmbodimentSpec(
            name=_known(self.name, "name"),
            cameras=tuple(_camera(entry) for entry in self.cameras),
            proprio=VectorSpec(dims=tuple(_dim(entry, self.proprio, "proprio", mode="") for entry in self.proprio.dims)),
            action=_action(self.action),
            control_hz=_known(self.control_hz, "control_hz"),
            gripper_dim=_known(self.gripper.dim, "gripper.dim"),
            gripper_open=gripper[1],
            hold=tuple(_hold(entry, self) for entry in self.action.dims),
            gripper_range=gripper if self.gripper.dim else None,
            gripper_threshold=self.gripper.threshold,
            rotation=_known(self.rotation, "rotation"),
        )


def mode_of(entry: DimEntry, vector: VectorEntry) -> str | None:
    """How an action dimension is meant: its own mode, or else the vector's; None where that is open."""
    return entry.mode or vector.mode


def unit_of(entry: DimEntry, vector: VectorEntry) -> str | None:
    """The unit of a dimension: its own, or else the vector's; None where that is open."""
    return vector.unit if entry.unit is None else entry.unit


def _action(vector: VectorEntry) -> VectorSpec:
    # a dimension's own mode is left out where it is the vector's, as the built-in embodiments write it
    mode = vector.mode or ""
    dims = tuple(_dim(entry, vector, "action", mode="" if entry.mode == mode else entry.mode or "") for entry in vector.dims)
    if bare := [dim.name for dim in dims if not (dim.mode or mode)]:
        raise SpecError(
            f"action: dimension {bare[0]!r} has no mode, and the action states none for all. Fix: write mode: absolute or delta"
        )
    return VectorSpec(dims=dims, mode=mode)


def _dim(entry: DimEntry, vector: VectorEntry, where: str, *, mode: str) -> DimSpec:
    name = _known(entry.name, f"{where}: name of a dimension")
    place = f"{where}: dimension {name!r}"
    frame = vector.frame if entry.frame is None else entry.frame
    return DimSpec(
        name=name,
        unit=_known(unit_of(entry, vector), f"{place}: unit"),
        low=_known(entry.low, f"{place}: low"),
        high=_known(entry.high, f"{place}: high"),
        frame=_known(frame, f"{place}: frame"),
        mode=mode,
        soft_low=entry.soft_low,
        soft_high=entry.soft_high,
        source=_known(entry.source, f"{place}: source"),
    )


def _camera(entry: CameraEntry) -> CameraSpec:
    place = f"camera {entry.name!r}"
    return CameraSpec(
        name=_known(entry.name, "name of a camera"),
        width=_known(entry.width, f"{place}: width"),
        height=_known(entry.height, f"{place}: height"),
        max_age_ms=entry.max_age_ms,
        role=_known(entry.role, f"{place}: role"),
        color=_known(entry.color, f"{place}: color"),
    )


def _gripper(document: EmbodimentDocument) -> tuple[Number, Number]:
    """The values of full closure and full opening; (0.0, 0.0) without a gripper."""
    gripper = document.gripper
    if not gripper.dim:
        return 0.0, 0.0
    names = [entry.name for entry in document.action.dims]
    if gripper.dim not in names:
        raise SpecError(f"gripper.dim is {gripper.dim!r}, expected one of the action's {', '.join(map(str, names))}, or '' for no gripper")
    values, opened = _known(gripper.values, "gripper.values"), _known(gripper.open, "gripper.open")
    if opened not in values:
        raise SpecError(f"gripper.open is {opened:g}, expected one of gripper.values, {values[0]:g} or {values[1]:g}")
    return (values[1] if opened == values[0] else values[0]), opened


def _hold(entry: DimEntry, document: EmbodimentDocument) -> Number | None:
    """The value that holds the robot; None where that is the measured pose. Raises `SpecError` for one that is not allowed."""
    hold = entry.hold
    if hold is None and entry.name != document.gripper.dim and mode_of(entry, document.action) in RATES:
        hold = 0.0
    if hold is not None and entry.low is not None and entry.high is not None and not entry.low <= hold <= entry.high:
        raise SpecError(
            f"action: dimension {entry.name!r}: {hold:g} holds the robot, and is outside of its range {entry.low:g} .. {entry.high:g}. "
            "Fix: widen the range, since a cell must always be able to hold"
        )
    return hold


def _known(value: T | None, name: str) -> T:
    if value is None:
        raise SpecError(f"{name} is missing. Fix: write it into the embodiment file")
    return value
