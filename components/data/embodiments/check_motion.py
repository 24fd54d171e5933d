"""Do the actions move the state as an embodiment file says: their mode, their scale, the lag, and the gripper."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from components.data.embodiments.check_result import AGREES, CONTRADICTS, TOLD, UNKNOWN, CheckResult
from components.data.embodiments.document import EmbodimentDocument, mode_of, unit_of
from components.data.embodiments.evidence.gripper import follow, grows_when_open
from components.data.embodiments.evidence.guess import Measured, number
from components.data.embodiments.evidence.kinds import GRIPPER, kind_of
from components.data.embodiments.evidence.modes import EXPLAINS, MARGIN, ModeGuess, likely_partner, mode_guess, residuals
from components.data.embodiments.evidence.motion import ABSOLUTE, DELTA, MotionTest, Reading
from components.data.embodiments.evidence.recorded import RecordedSet

_READ_AS = {"velocity": DELTA}
_SCALE = (0.5, 2.0)  # beyond this, two numbers of one stated unit are not of one unit
_LATE_S = 0.2
_REACHED = 0.05


def motion_results(document: EmbodimentDocument, recorded: RecordedSet) -> Iterator[CheckResult]:
    """Mode, scale and lag of every action dimension."""
    test = MotionTest(recorded)
    names, states = [dim.name or "" for dim in document.action.dims], [dim.name or "" for dim in document.proprio.dims]
    lags: list[int] = []
    for place, dim in enumerate(document.action.dims):
        found = mode_guess(test, place, likely_partner(names, states, place))
        stated = mode_of(dim, document.action)
        if dim.name == document.gripper.dim and not dim.mode:
            continue  # its mode is that of the arm only in name; the gripper has a check of its own
        where = f"action {dim.name!r}"
        yield _mode(test, found, stated, place, where)
        if found.reading is not None and found.state is not None and found.reading.residual <= EXPLAINS:
            lags.append(found.reading.lag)
            yield from _scale(document, recorded, found, place)
    yield from _lag(recorded, lags)


def _mode(test: MotionTest, found: ModeGuess, stated: str | None, place: int, where: str) -> CheckResult:
    def result(verdict: str, said: str) -> CheckResult:
        return CheckResult(check="motion", where=where, verdict=verdict, said=said)

    if found.reading is None or found.state is None:
        return result(UNKNOWN, found.guess.evidence)
    readings = test.readings(place, found.state)
    said = f"file {stated or 'open'}; {residuals(test, readings)}; bound {EXPLAINS:g}"
    if stated is None:
        return result(UNKNOWN, said)
    wanted = _READ_AS.get(stated, stated)
    if isinstance(found.guess, Measured) and found.guess.value in (ABSOLUTE, "relative") and wanted in (ABSOLUTE, "relative"):
        return result(AGREES if found.guess.value == wanted else CONTRADICTS, f"file {stated}; {found.guess.evidence}")
    own, best = next((r for r in readings if r.mode == wanted), None), readings[0]
    left = 1.0 if own is None else own.residual
    if best.residual <= EXPLAINS and best.mode != wanted and left - best.residual >= MARGIN and not _is_start(wanted, best):
        return result(CONTRADICTS, f"{said}; the actions move the state as {best.mode}, not as {stated}")
    return result(AGREES if left <= EXPLAINS else UNKNOWN, said)


def _is_start(wanted: str, best: Reading) -> bool:
    """Relative to an episode's first state moves as absolute does; only where it begins tells them apart."""
    return wanted == "relative" and best.mode == ABSOLUTE


def _scale(document: EmbodimentDocument, recorded: RecordedSet, found: ModeGuess, place: int) -> Iterator[CheckResult]:
    """Where both numbers are stated in one unit, one of the action must be about one of the state."""
    if found.reading is None or found.state is None or found.state >= len(document.proprio.dims):
        return
    dim, beside = document.action.dims[place], document.proprio.dims[found.state]
    unit, other = unit_of(dim, document.action), unit_of(beside, document.proprio)
    if not unit or not other or dim.name == document.gripper.dim:
        return
    factor = {other: 1.0, f"{other}/s": recorded.fps}.get(unit)
    if factor is None:
        return
    scale = found.reading.scale * factor
    said = f"file {unit!r} beside the state's {other!r}: 1 of the action moves {beside.name!r} by {number(found.reading.scale)}"
    verdict = AGREES if _SCALE[0] <= scale <= _SCALE[1] else CONTRADICTS
    yield CheckResult(check="scale", where=f"action {dim.name!r}", verdict=verdict, said=f"{said}, expected about {number(1 / factor)}")


def _lag(recorded: RecordedSet, lags: list[int]) -> Iterator[CheckResult]:
    if not lags:
        yield CheckResult(check="lag", where="action", verdict=UNKNOWN, said="no action moves a state plainly enough")
        return
    steps = float(np.median(lags))
    said = (
        f"the state follows {steps:g} steps ({1000 * steps / recorded.fps:.0f} ms) later than the next row, {len(lags)} dimensions compared"
    )
    if steps < 0:
        yield CheckResult(check="lag", where="action", verdict=TOLD, said=f"{said}: actions are the state of their own row, not commands")
        return
    yield CheckResult(check="lag", where="action", verdict=TOLD if steps / recorded.fps >= _LATE_S else AGREES, said=said)


def gripper_results(document: EmbodimentDocument, recorded: RecordedSet) -> Iterator[CheckResult]:
    """Does the gripper take the values that are stated, and does it open when it is told to?"""
    gripper, names = document.gripper, [dim.name for dim in document.action.dims]
    if gripper.dim is None or (gripper.dim and gripper.dim not in names):
        verdict = UNKNOWN if gripper.dim is None else CONTRADICTS
        yield CheckResult(check="gripper", where="gripper.dim", verdict=verdict, said=f"the action has {', '.join(map(repr, names))}")
        return
    if not gripper.dim:
        return
    place = names.index(gripper.dim)
    yield _values(document, recorded, place)
    yield _opens(document, recorded, place)


def _values(document: EmbodimentDocument, recorded: RecordedSet, place: int) -> CheckResult:
    def result(verdict: str, said: str) -> CheckResult:
        return CheckResult(check="gripper values", where="gripper.values", verdict=verdict, said=said)

    column_N = recorded.actions_NA[:, place].astype(np.float64)
    finite_N = column_N[np.isfinite(column_N)]
    if document.gripper.values is None or not len(finite_N):
        return result(UNKNOWN, "the file leaves them open" if len(finite_N) else "no value of the set is a number")
    low, high = (float(value) for value in document.gripper.values)
    near = _REACHED * abs(high - low)
    outside = float(((finite_N < min(low, high) - near) | (finite_N > max(low, high) + near)).mean())
    said = f"file {number(low)} and {number(high)}, set {number(finite_N.min())}..{number(finite_N.max())}, {outside:.2%} beyond them"
    if low >= high:
        return result(CONTRADICTS, f"{said}; expected the smaller value first")
    reached = finite_N.min() <= low + near and finite_N.max() >= high - near
    if outside > 0.01:
        return result(CONTRADICTS, said)
    return result(AGREES if reached else TOLD, said if reached else f"{said}; the set does not reach both")


def _opens(document: EmbodimentDocument, recorded: RecordedSet, place: int) -> CheckResult:
    def result(verdict: str, said: str) -> CheckResult:
        return CheckResult(check="gripper opens", where="gripper.open", verdict=verdict, said=said)

    states = [dim.name or "" for dim in document.proprio.dims]
    measured = [name for name in states if kind_of(name) == GRIPPER]
    is_still = float(np.ptp(np.nan_to_num(recorded.actions_NA[:, place]))) == 0
    reply = None if is_still else follow(recorded, place)
    if is_still or reply is None:
        if measured and not is_still:
            return result(CONTRADICTS, f"{', '.join(measured)} of the state does not answer: correlation below 0.3 at every lag up to 1 s")
        return result(UNKNOWN, "its action never changes" if is_still else "no number of the state answers it")
    name = states[reply.state]
    said = f"state {name!r} answers with correlation {reply.correlation:.2f} after {reply.lag} steps, slope {number(reply.scale)}"
    gripper = document.gripper
    if gripper.open is None or gripper.values is None:
        return result(UNKNOWN, f"{said}; the file leaves open which value opens")
    opens_up = gripper.open == max(gripper.values)
    grows = (reply.scale > 0) == opens_up
    expected = grows_when_open(recorded, reply.state)
    units = unit_of(document.action.dims[place], document.action), unit_of(document.proprio.dims[reply.state], document.proprio)
    if expected is None and name == gripper.dim and units[0] == units[1]:  # the same number, measured: it goes where it is told
        expected = opens_up
    told = f"{said}: told to open ({gripper.open:g}), it {'grows' if grows else 'falls'}"
    if expected is None:
        return result(UNKNOWN, f"{told}; whether that is open, its name does not say")
    return result(AGREES if expected == grows else CONTRADICTS, f"{told}, open is {'larger' if expected else 'smaller'} there")
