"""Compare an embodiment file with a recorded set: names, ranges, rate, cameras, units, and whether the actions move the state as it says.

Every result gives its numbers. A contradiction is something that cannot be right; what the data cannot show is unknown, and said so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from components.data.embodiments.check_motion import gripper_results, motion_results
from components.data.embodiments.check_result import AGREES, CONTRADICTS, TOLD, UNKNOWN, CheckResult
from components.data.embodiments.document import EmbodimentDocument, VectorEntry, unit_of
from components.data.embodiments.evidence.guess import Measured, number
from components.data.embodiments.evidence.recorded import ACTION, STATE, RecordedSet
from components.data.embodiments.evidence.units import state_units

OUTSIDE = 0.01  # share of the rows outside of a stated range that contradicts it
UNUSED = 0.02  # share of a stated range below which what is recorded looks like another unit
RATE = 0.01


def check_embodiment(document: EmbodimentDocument, recorded: RecordedSet) -> tuple[CheckResult, ...]:
    """Every result, in the order of the file. Where a width differs, the numbers of that vector are not compared any further."""
    results = [*_rate(document, recorded), *_cameras(document, recorded)]
    widths = [*_width(STATE, document.proprio, recorded), *_width(ACTION, document.action, recorded)]
    results += widths
    if any(result.verdict == CONTRADICTS for result in widths):
        return tuple(results)
    for vector, entry in ((STATE, document.proprio), (ACTION, document.action)):
        results += [*_names(vector, entry, recorded), *_ranges(vector, entry, recorded)]
    results += [*_units(document, recorded), *motion_results(document, recorded), *gripper_results(document, recorded)]
    return tuple(results)


@dataclass(frozen=True, slots=True)
class _Place:
    check: str
    where: str

    def result(self, verdict: str, said: str) -> CheckResult:
        return CheckResult(check=self.check, where=self.where, verdict=verdict, said=said)


def _rate(document: EmbodimentDocument, recorded: RecordedSet) -> Iterator[CheckResult]:
    place = _Place("rate", "control_hz")
    steps_N = recorded.step_s[np.isfinite(recorded.step_s)]
    median = float(np.median(steps_N)) if len(steps_N) else 0.0
    measured = f"{number(1 / median)} Hz by {len(steps_N)} timestamps" if median > 0 else "no two timestamps"
    said = f"file {document.control_hz} Hz, set {recorded.fps:g} fps, {measured}"
    if document.control_hz is None:
        yield place.result(UNKNOWN, f"the file leaves it open; {said}")
        return
    rates = [recorded.fps, *([1 / median] if median > 0 else [])]
    same = all(math.isclose(rate, document.control_hz, rel_tol=RATE) for rate in rates)
    yield place.result(AGREES if same else CONTRADICTS, said)


def _cameras(document: EmbodimentDocument, recorded: RecordedSet) -> Iterator[CheckResult]:
    there = {camera.name: camera for camera in recorded.cameras}
    for entry in document.cameras:
        place = _Place("camera", f"camera {entry.name!r}")
        if entry.name is None or entry.name not in there:
            verdict = UNKNOWN if entry.name is None else CONTRADICTS
            yield place.result(verdict, f"the set has {', '.join(map(repr, there)) or 'no camera'}")
            continue
        camera = there[entry.name]
        stated, got = (entry.width, entry.height), (camera.width, camera.height)
        differs = any(a is not None and b is not None and a != b for a, b in zip(stated, got, strict=True))
        open_end = None in (*stated, *got)
        yield place.result(
            CONTRADICTS if differs else UNKNOWN if open_end else AGREES,
            f"file {stated[0]} x {stated[1]}, set {got[0]} x {got[1]} pixels, width x height",
        )
    if extra := sorted(set(there) - {entry.name for entry in document.cameras}):
        yield _Place("camera", "cameras").result(TOLD, f"the set also has {', '.join(map(repr, extra))}, which the file does not use")


def _width(vector: str, entry: VectorEntry, recorded: RecordedSet) -> Iterator[CheckResult]:
    stated, got = len(entry.dims), recorded.values(vector).shape[1]
    yield _Place("dims", vector).result(AGREES if stated == got else CONTRADICTS, f"file {stated} dimensions, set {got}")


def _names(vector: str, entry: VectorEntry, recorded: RecordedSet) -> Iterator[CheckResult]:
    place, stated = _Place("names", vector), recorded.state_names if vector == STATE else recorded.action_names
    names = recorded.names(vector)
    if not stated:
        yield place.result(UNKNOWN, "the set names no dimension; their order cannot be compared")
        return
    differing = [f"{a!r} for the set's {b!r}" for a, b in zip((dim.name for dim in entry.dims), names, strict=True) if a not in (None, b)]
    if not differing:
        yield place.result(AGREES, f"{len(names)} names in the same order")
    elif sorted(str(dim.name) for dim in entry.dims) == sorted(names):
        yield place.result(CONTRADICTS, f"the same names in another order: {', '.join(differing)}")
    else:
        yield place.result(CONTRADICTS, f"{len(differing)} of {len(names)} differ: {', '.join(differing)}")


def _ranges(vector: str, entry: VectorEntry, recorded: RecordedSet) -> Iterator[CheckResult]:
    for index, dim in enumerate(entry.dims):
        place = _Place("range", f"{vector} {dim.name!r}")
        column_N = recorded.values(vector)[:, index].astype(np.float64)
        finite_N = column_N[np.isfinite(column_N)]
        if not len(finite_N):
            yield place.result(UNKNOWN, "no value of the set is a number")
            continue
        q001, q999 = np.quantile(finite_N, [0.001, 0.999])
        recorded_range = f"set {number(finite_N.min())}..{number(finite_N.max())} (q0.1 {number(q001)}, q99.9 {number(q999)})"
        if dim.low is None or dim.high is None:
            yield place.result(UNKNOWN, f"the file leaves it open; {recorded_range}")
            continue
        low, high = float(dim.low), float(dim.high)
        slack = 1e-6 * max(abs(low), abs(high), high - low)
        outside = float(((finite_N < low - slack) | (finite_N > high + slack)).mean())
        said = f"file {number(low)}..{number(high)}, {recorded_range}, {outside:.2%} of {len(finite_N)} rows outside"
        used = float(np.ptp(finite_N)) / (high - low) if high > low else 1.0
        if outside > OUTSIDE:
            yield place.result(CONTRADICTS, said)
        elif outside > 0:
            yield place.result(TOLD, said)
        elif 0 < used < UNUSED:
            yield place.result(TOLD, f"{said}; only {used:.2%} of the range is used, which looks like another unit")
        else:
            yield place.result(AGREES, said)


def _units(document: EmbodimentDocument, recorded: RecordedSet) -> Iterator[CheckResult]:
    """Units of the state against what its values allow."""
    guesses = state_units(recorded.names(STATE), recorded.state_NP)
    for index, (dim, guess) in enumerate(zip(document.proprio.dims, guesses, strict=True)):
        stated, place = unit_of(dim, document.proprio), _Place("unit", f"{STATE} {dim.name or index!r}")
        if stated is None or not isinstance(guess, Measured) or not guess.value:
            why = "the file leaves it open" if stated is None else f"the values allow several; {guess.evidence}"
            yield place.result(UNKNOWN, why)
        else:
            yield place.result(
                AGREES if stated == guess.value else CONTRADICTS, f"file {stated!r}, values {guess.value!r}: {guess.evidence}"
            )
