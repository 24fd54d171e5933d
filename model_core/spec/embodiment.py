"""A body in numbers: cameras, state and actions, and every way in which two descriptions of one can differ.

A field that came with version 2 of the contract is left out of the document while it holds its default. So a document of
version 1 reads as it is, and keeps its id.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from model_core.spec.documents import Number, from_document
from model_core.spec.errors import require
from model_core.spec.narrowing import is_dict, is_sequence

MODES = ("", "absolute", "relative", "delta", "velocity")
COLORS = ("rgb", "bgr")
ENCODINGS = ("raw", "png", "jpeg")
# What "" or None means in these: the document does not say. Nothing can then be compared with it.
UNSTATED_FIELDS = frozenset(
    {"role", "source", "soft_low", "soft_high", "intrinsics_tolerance", "gripper_range", "gripper_threshold", "rotation"}
)
# Advice of the policy and names for people: a cell need not repeat them.
ADVISORY_FIELDS = frozenset({"role", "soft_low", "soft_high", "intrinsics_tolerance"})


def since_2(default: Any) -> Any:
    """A field that version 1 of the contract did not have."""
    return field(default=default, metadata={"since": 2})


def document_of(value: Any) -> Any:
    """A contract, or a part of it, as plain JSON values; fields of version 2 that hold their default are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in fields(value) if not _is_left_out(f, getattr(value, f.name)))
        return {f.name: document_of(getattr(value, f.name)) for f in kept}
    if is_sequence(value):
        return [document_of(item) for item in value]
    return value


def _is_left_out(item: Any, value: Any) -> bool:
    return item.metadata.get("since") == 2 and item.default is not MISSING and value == item.default


@dataclass(frozen=True, slots=True, kw_only=True)
class DimSpec:
    """The meaning of one number: name, unit, reference frame and the range in which it is allowed.

    mode: how this dimension is meant (`MODES`); "" for as its vector says. "relative" is to the start of the chunk, "delta" to
    the step before. soft_low, soft_high: the range in which a policy should stay; None where it is not stated. source: the sensor
    or computation that a state value comes from ("" where it is not stated): two robots' "x" can be two different things.
    """

    name: str
    unit: str
    low: Number
    high: Number
    frame: str = "world"
    mode: str = since_2("")
    soft_low: Number | None = since_2(None)
    soft_high: Number | None = since_2(None)
    source: str = since_2("")

    def __post_init__(self) -> None:
        where = f"dimension {self.name!r}"
        require(math.isfinite(self.low) and math.isfinite(self.high), f"{where}: limits must be finite", got=(self.low, self.high))
        require(self.low < self.high, f"{where}: low must be below high", got=(self.low, self.high))
        require(self.mode in MODES, f"{where}: mode must be one of {', '.join(MODES[1:])}", got=self.mode)
        low = self.low if self.soft_low is None else self.soft_low
        high = self.high if self.soft_high is None else self.soft_high
        require(self.low <= low < high <= self.high, f"{where}: soft limits must lie inside the hard ones", got=(low, high))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSpec:
    """An ordered vector of `DimSpec`. `mode` says how an action is meant (`MODES`); "" for proprio."""

    dims: tuple[DimSpec, ...]
    mode: str = ""

    def __post_init__(self) -> None:
        require(self.mode in MODES, f"mode must be one of {', '.join(MODES[1:])}", got=self.mode)

    def __len__(self) -> int:
        return len(self.dims)

    @property
    def low(self) -> np.ndarray:
        """Lower limits, float32 (A,)."""
        return np.array([d.low for d in self.dims], np.float32)

    @property
    def high(self) -> np.ndarray:
        """Upper limits, float32 (A,)."""
        return np.array([d.high for d in self.dims], np.float32)

    @property
    def modes(self) -> tuple[str, ...]:
        """How each dimension is meant: its own mode, or else the vector's."""
        return tuple(d.mode or self.mode for d in self.dims)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera as the policy was trained with it. Pixels are uint8; the frame is sent as it is taken.

    role: what it looks at ("front", "wrist", ...), by which a cell may name it otherwise. color: channel order of a raw
    frame; an encoded one has its format's. resize: who scales ("server": the policy, so send native pixels). encodings: what
    may be sent; "png" is allowed wherever "raw" is, being lossless. intrinsics_tolerance: relative difference of the focal
    length that training covered; None where it is not stated.
    """

    name: str
    width: int
    height: int
    max_age_ms: Number = 500.0
    role: str = since_2("")
    color: str = since_2("rgb")
    resize: str = since_2("server")
    encodings: tuple[str, ...] = since_2(("raw",))
    intrinsics_tolerance: Number | None = since_2(None)

    def __post_init__(self) -> None:
        where = f"camera {self.name!r}"
        require(self.width > 0 and self.height > 0, f"{where} needs a size", got=(self.width, self.height))
        require(self.color in COLORS, f"{where}: color must be rgb or bgr", got=self.color)
        known = bool(self.encodings) and set(self.encodings) <= set(ENCODINGS)
        require(known, f"{where}: encodings must be some of {', '.join(ENCODINGS)}", got=self.encodings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodimentSpec:
    """A body: its cameras in order, what its state means, what its actions mean, how often one is applied.

    gripper_open: the value of the gripper action dimension that opens it (its polarity). gripper_range: the values of full
    closure and full opening, in the gripper dimension's unit. gripper_threshold: where a two-state gripper switches; None
    for one that takes every value. rotation: how rotations are written ("axis-angle", "euler-xyz", ...; "" without any).
    hold: the action that keeps the robot where it is, one value per action dimension; None means "repeat last".
    """

    name: str
    cameras: tuple[CameraSpec, ...]
    proprio: VectorSpec
    action: VectorSpec
    control_hz: Number
    gripper_dim: str
    gripper_open: Number
    hold: tuple[Number | None, ...]
    gripper_range: tuple[Number, Number] | None = since_2(None)
    gripper_threshold: Number | None = since_2(None)
    rotation: str = since_2("")

    def __post_init__(self) -> None:
        where = f"embodiment {self.name!r}"
        require(len(self.cameras) > 0, f"{where} needs at least one camera")
        names = [c.name for c in self.cameras]
        require(len(set(names)) == len(names), f"{where}: two cameras have one name", got=names)
        require(len(self.hold) == len(self.action), f"{where}: hold needs one value per action dimension", got=len(self.hold))
        require(self.control_hz > 0 and math.isfinite(self.control_hz), f"{where}: control_hz must be positive", got=self.control_hz)


def embodiment_from_json(document: object) -> EmbodimentSpec:
    """Read an embodiment back from its JSON form; raises `SpecError` naming the field that is missing, unknown or of another type."""
    return from_document(EmbodimentSpec, document, where="embodiment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One field in which two sides differ."""

    field: str
    made_for: object = None
    offered: object = None

    def explain(self) -> str:
        """A sentence for a person."""
        return f"{self.field}: the policy was made for {self.made_for!r}, this cell offers {self.offered!r}"


def mismatches(made: EmbodimentSpec, offered: EmbodimentSpec) -> list[Mismatch]:
    """Every way `offered` differs from what the policy was `made` for; empty means that they may talk as they are.

    `spec.conversion.compare` says which of these differences can be converted without loss.
    """
    return list(_differences("", asdict(made), asdict(offered)))


def _differences(path: str, made: Any, offered: Any) -> list[Mismatch]:
    if is_dict(made) and is_dict(offered):
        found: list[Mismatch] = []
        for key in sorted(made.keys() | offered.keys()):
            if not _cannot_be_compared(key, made.get(key), offered.get(key)):
                found += _differences(f"{path}.{key}" if path else str(key), made.get(key), offered.get(key))
        return found
    if is_sequence(made) and is_sequence(offered) and len(made) == len(offered):
        return [d for i, (m, o) in enumerate(zip(made, offered, strict=True)) for d in _differences(f"{path}[{i}]", m, o)]
    return [] if made == offered else [Mismatch(field=path, made_for=made, offered=offered)]


def _cannot_be_compared(key: str, made: Any, offered: Any) -> bool:
    unstated = ("", None)
    return key in UNSTATED_FIELDS and (made in unstated or (key in ADVISORY_FIELDS and offered in unstated))
