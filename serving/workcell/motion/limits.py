"""How far, how fast and how suddenly a robot may be moved here. A release may tighten these limits, never widen them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from model_core.spec.contract import DimSpec, EmbodimentSpec, PolicyContract, digest_of
from model_core.spec.conversion import unit_factor
from model_core.spec.documents import Number, to_document
from model_core.spec.errors import require
from model_core.spec.execution.holding import POSES, measured_by

RATES = ("max_jump", "max_velocity", "max_acceleration", "max_jerk")
PLACES, OFFSETS = ("place_low", "place_high"), ("offset_low", "offset_high")


@dataclass(frozen=True, slots=True, kw_only=True)
class DimLimits:
    """One action dimension, in its own unit; None: no limit of this kind.

    low, high: of the number itself. max_jump: from the measured place to the commanded one (of a delta: its size).
    max_velocity, max_acceleration, max_jerk: unit per s, s2, s3. measured_by: proprio dimension that measures what this one
    moves; gain: how far (in the unit of `measured_by`) a delta of 1, or a velocity of 1 for one second, moves it. place_low,
    place_high: where it may get, in the unit of `measured_by`. offset_low, offset_high: of a relative number, as the policy says it.
    """

    name: str
    low: Number
    high: Number
    max_jump: Number | None = None
    max_velocity: Number | None = None
    max_acceleration: Number | None = None
    max_jerk: Number | None = None
    measured_by: str = ""
    gain: Number = 1.0
    place_low: Number | None = None
    place_high: Number | None = None
    offset_low: Number | None = None
    offset_high: Number | None = None

    def __post_init__(self) -> None:
        where = f"limits of {self.name!r}"
        for name in ("low", "high", "gain", *PLACES, *OFFSETS, *RATES):
            value = getattr(self, name)
            require(value is None or math.isfinite(value), f"{where}: {name} must be a finite number", got=repr(value))
            require(value is None or name not in RATES or value > 0, f"{where}: {name} must be above 0", got=value)
        require(self.low < self.high, f"{where}: low must be below high", got=(self.low, self.high))
        require(self.gain != 0, f"{where}: gain must not be 0")
        for lower, upper in (PLACES, OFFSETS):
            low, high = getattr(self, lower), getattr(self, upper)
            require(low is None or high is None or low < high, f"{where}: {lower} must be below {upper}", got=(low, high))

    def to_json(self) -> dict[str, Any]:
        """A plain document. Offsets only where there are any: files of bodies without relative numbers keep their digest."""
        return {name: value for name, value in to_document(self).items() if value is not None or name not in OFFSETS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Everything that the envelope of one cell enforces.

    clip_fraction: an excess of at most this fraction (of the limit, or of the range) is clipped and counted, a larger one
    refuses the chunk. max_rejects: so many refusals in a row are a SAFE_STOP. max_age_ms: sensor ("proprio" or camera) ->
    oldest reading on which may be acted. hold_within_ms: after a loss the robot is held within this time.
    """

    dims: tuple[DimLimits, ...]
    clip_fraction: Number = 0.05
    max_rejects: int = 3
    max_age_ms: Mapping[str, Number] = field(default_factory=dict)
    hold_within_ms: Number = 500.0

    def __post_init__(self) -> None:
        require(0 <= self.clip_fraction <= 0.5, "clip_fraction must be 0..0.5", got=self.clip_fraction)
        require(type(self.max_rejects) is int and self.max_rejects >= 1, "max_rejects must be a whole number, 1 or more")
        require(math.isfinite(self.hold_within_ms) and self.hold_within_ms > 0, "hold_within_ms must be above 0")
        for name, age in self.max_age_ms.items():
            require(math.isfinite(age) and age > 0, f"max_age_ms of {name!r} must be above 0", got=age)

    @property
    def digest(self) -> str:
        """SHA-256 of the limits that are in force."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """A plain document; `from_document` is its inverse."""
        return {**to_document(self), "dims": [d.to_json() for d in self.dims]}


def widest_limits(body: EmbodimentSpec) -> Limits:
    """What the contract's own ranges allow: full range each control step, reversed at once. A start, to be narrowed by a person.

    A pose may jump over its whole range from the measured one, since nothing here knows how fast this robot may move.
    """
    dims = []
    for dim, mode, place in zip(body.action.dims, body.action.modes, measured_by(body), strict=True):
        top = max(abs(dim.low), abs(dim.high)) if mode in ("delta", "velocity") else dim.high - dim.low
        rate = top if mode == "velocity" else top * body.control_hz
        is_switch = dim.name == body.gripper_dim
        is_offset = mode == "relative"
        measured = body.proprio.dims[place] if place is not None else None
        # Where a delta leads is known where the same quantity is measured: there it may get as far as the measurement goes.
        reach = measured if mode == "delta" and not is_switch else None
        dims.append(
            DimLimits(
                name=dim.name,
                # The robot gets the place that a relative number means: its range is that of the measurement.
                low=measured.low if is_offset and measured is not None else dim.low,
                high=measured.high if is_offset and measured is not None else dim.high,
                max_jump=None if is_switch else (top / body.control_hz if mode == "velocity" else top),
                max_velocity=None if is_switch else rate,
                max_acceleration=None if is_switch else 2 * rate * body.control_hz,
                max_jerk=None if is_switch else 4 * rate * body.control_hz**2,
                measured_by="" if measured is None else measured.name,
                place_low=None if reach is None else reach.low,
                place_high=None if reach is None else reach.high,
            )
        )
    ages = {camera.name: camera.max_age_ms for camera in body.cameras}
    return Limits(dims=tuple(dims), max_age_ms={**ages, "proprio": 200.0})


def tightened(limits: Limits, body: EmbodimentSpec, release: EmbodimentSpec | None = None) -> Limits:
    """`limits` cut down to what the embodiment and the release allow (hard and soft ranges). Never wider than before in any number.

    release: the embodiment that the contract names; it may be in other units than this cell's (the service converts): its limits are
    read in the cell's. What they say of an action dimension bounds its number (a relative one as the policy says it, before it
    becomes a place); what they say of the proprio dimension that measures it bounds where a relative or delta number leads.
    Raises SpecError where nothing would be left, and for a place limit that nothing measures.
    """
    dims = []
    theirs = {dim.name: dim for dim in release.action.dims} if release is not None else {}
    seen = {dim.name: dim for dim in body.proprio.dims}
    their_seen = {dim.name: dim for dim in release.proprio.dims} if release is not None else {}
    for dim, mode, place, limit in zip(body.action.dims, body.action.modes, measured_by(body), limits.dims, strict=True):
        if mode == "relative":
            offset_low, offset_high = _range(dim, theirs.get(dim.name), limit.offset_low, limit.offset_high)
            limit = replace(limit, offset_low=offset_low, offset_high=offset_high)
        else:
            low, high = _range(dim, theirs.get(dim.name), limit.low, limit.high)
            limit = replace(limit, low=low, high=high)
        is_placed = limit.place_low is not None or limit.place_high is not None
        # The same quantity needs no gain; another sensor is the file's to name.
        measured = seen.get(limit.measured_by) if limit.measured_by or place is None else body.proprio.dims[place]
        require(
            not is_placed or mode in POSES or measured is not None,
            f"limits of {dim.name!r}: place_low and place_high bound where it leads, but nothing measures that; name a `measured_by`",
        )
        if measured is not None and mode != "absolute" and dim.name != body.gripper_dim:
            their = their_seen.get(measured.name)
            # A file that leaves the place open keeps it open, unless there are soft limits for what measures it.
            is_soft = any(d is not None and (d.soft_low, d.soft_high) != (None, None) for d in (measured, their))
            if is_placed or (is_soft and mode != ""):  # who does not say what the number means has said nothing of where it leads
                low, high = _range(measured, their, limit.place_low, limit.place_high)
                gain = limit.gain if limit.measured_by else 1.0
                limit = replace(limit, measured_by=measured.name, gain=gain, place_low=low, place_high=high)
        dims.append(limit)
    ages = dict(limits.max_age_ms)
    for camera in (*body.cameras, *(release.cameras if release is not None else ())):
        ages[camera.name] = min(ages.get(camera.name, camera.max_age_ms), camera.max_age_ms)
    return replace(limits, dims=tuple(dims), max_age_ms=ages)


def unbounded(limits: Limits, body: EmbodimentSpec) -> list[str]:
    """What these limits do not say of where the robot may get, one sentence a dimension. The gripper's own range is enough."""
    said = []
    for dim, mode, limit in zip(body.action.dims, body.action.modes, limits.dims, strict=True):
        if mode in POSES or dim.name == body.gripper_dim or (limit.place_low is not None and limit.place_high is not None):
            continue
        why = "" if limit.measured_by else f": no proprio dimension of that name, unit ({dim.unit}) and frame ({dim.frame}) measures it"
        said.append(
            f"{dim.name} ({mode or 'no mode'}): each step is bounded, where many of them lead is not{why}; "
            f"bound it with --place {dim.name}=SENSOR,GAIN"
        )
    return said


def limits_under(
    contract: PolicyContract, body: EmbodimentSpec, now: Limits, limits_of: Callable[[PolicyContract], tuple[Limits, str]] | None
) -> tuple[Limits, str]:
    """The limits in force under another contract than before, and the digest of where they come from. now: those until then.

    limits_of: asks the commissioning file, which may not be for this contract (ActwrightError); None: `now`, tightened once more.
    """
    if limits_of is not None:
        return limits_of(contract)
    limits = tightened(now, body, contract.embodiment)
    return limits, limits.digest


def _range(own: DimSpec, their: DimSpec | None, low: float | None, high: float | None) -> tuple[float, float]:
    """low..high (None: no limit yet) cut down to what `own` and `their` dimension say, in the unit of `own`."""
    asked = [(own, 1.0)]
    if their is not None:
        factor = unit_factor(their.unit, own.unit)
        require(factor is not None, f"{own.name!r}: the release's unit is no unit of this cell's", got=their.unit)
        asked.append((their, factor or 1.0))
    low, high = own.low if low is None else low, own.high if high is None else high
    # A limit that was scaled there and back must not cut off the very last digit of what it was made from.
    least = max(low, *(_near(factor * (d.low if d.soft_low is None else d.soft_low), low) for d, factor in asked))
    most = min(high, *(_near(factor * (d.high if d.soft_high is None else d.soft_high), high) for d, factor in asked))
    require(least < most, f"the release allows nothing of {own.name!r} that this cell allows", got=(least, most))
    return least, most


def _near(value: float, wanted: float) -> float:
    return wanted if math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-12) else value
