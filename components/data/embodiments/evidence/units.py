"""Which unit a number probably has: what its name says it is, and what its range and its scale beside other numbers allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.data.embodiments.evidence.guess import Guess, Measured, Open, number
from components.data.embodiments.evidence.kinds import ANGLES, GRIPPER, LENGTH, QUATERNION, kind_of
from components.data.embodiments.evidence.modes import ModeGuess

_BOUND = 1.0005  # values up to here count as inside -1..1
_RAD, _TURNS = 2 * math.pi * 1.05, 0.5
_SAME_SHARE = 0.03
# state units per action unit -> (unit of the action, unit of the state)
_SCALES: Mapping[str, Sequence[tuple[float, str, str]]] = {
    "angle": ((math.pi / 180, "deg", "rad"), (180 / math.pi, "rad", "deg")),
    "length": ((1e-3, "mm", "m"), (1e3, "m", "mm"), (1e-2, "cm", "m"), (1e2, "m", "cm")),
}


def state_units(names: Sequence[str], values_ND: NDArray[np.floating]) -> list[Guess]:
    """The unit of every dimension, from its name and the range of all dimensions of its kind; of a gripper from its own range."""
    kinds = [kind_of(name) for name in names]
    groups = ["angle" if kind in ANGLES else kind for kind in kinds]
    judges = {"angle": _angle, LENGTH: _length, QUATERNION: _quaternion}
    # one judgement for all dimensions of a group: a set may have millions of rows
    judged = {group: judge(values_ND[:, [g == group for g in groups]]) for group, judge in judges.items() if group in groups}
    found: list[Guess] = []
    for place, group in enumerate(groups):
        if group in judged:
            found.append(judged[group])
        elif group == GRIPPER:
            found.append(gripper_unit(values_ND[:, place]))
        else:
            found.append(Open(question="in which unit is this number?", evidence=_range(values_ND[:, [place]])))
    return found


def action_unit(
    name: str, values_N: NDArray[np.floating], mode: ModeGuess, alone: Guess, state: Guess | None
) -> tuple[Guess, Guess | None]:
    """The unit of an action dimension and of the state dimension that it moves, where its scale beside it tells more.

    alone: what the action's own range says; it counts for positions only. state: the guess for the state so far.
    """
    kind = kind_of(name)
    if mode.reading is None or state is None:
        return alone, state
    scale = mode.reading.scale
    beside = f"1 of the action is {number(scale)} of the state that it moves"
    if kind == GRIPPER:
        if mode.is_same_unit and isinstance(alone, Measured) and isinstance(state, Open):
            return alone, Measured(value=alone.value, evidence=f"{beside}: the same unit")
        return alone, state
    if mode.is_same_unit:
        return _same(state, beside), state
    group = "angle" if kind in ANGLES else kind
    for factor, of_action, of_state in _SCALES.get(group, ()):
        if abs(scale / factor - 1) <= _SAME_SHARE:
            told = f"{beside}, as {of_action} beside {of_state}"
            return Measured(value=of_action, evidence=told), Measured(value=of_state, evidence=told)
    largest = float(np.nanmax(np.abs(values_N), initial=0.0))
    at_bound = int((np.abs(np.abs(values_N) - 1.0) <= _BOUND - 1.0).sum())
    if largest <= _BOUND and at_bound >= 2:
        return Measured(value="normalised", evidence=f"no value beyond -1..1, {at_bound} exactly there; {beside}"), state
    likely = "normalised" if largest <= _BOUND else None
    return Open(question="in which unit is this action?", likely=likely, evidence=f"largest {number(largest)}; {beside}"), state


def gripper_unit(values_N: NDArray[np.floating]) -> Guess:
    """The unit of a gripper's number, from its range."""
    low, high = _limits(values_N)
    told = _range(values_N[:, None])
    if low >= -0.02 and 0.5 < high <= 1.02:
        return Measured(value="fraction", evidence=told)
    at_bound = int((np.minimum(np.abs(values_N), np.abs(values_N - 100.0)) <= 1e-3).sum())
    if low >= 0.0 and 99.5 < high <= 100.0 and at_bound >= 2:
        return Measured(value="percent", evidence=f"{told}, {at_bound} values at exactly 0 or 100 and none beyond")
    if low >= -2.0 and 50.0 < high <= 102.0:
        return Open(question="is this a percentage of the opening, or an angle in degrees?", likely="percent", evidence=told)
    if low >= -_BOUND and low < -0.5 and high <= _BOUND:
        return Measured(value="normalised", evidence=told)
    return Open(question="in which unit is the gripper's number?", likely="m" if low >= 0 and high < 0.2 else None, evidence=told)


def _angle(values_NG: NDArray[np.floating]) -> Guess:
    low, high = _limits(values_NG)
    largest, told = max(abs(low), abs(high)), _range(values_NG)
    span = max((float(np.ptp(part[np.isfinite(part)])) for part in values_NG.T if np.isfinite(part).any()), default=0.0)
    question = "in which unit are these angles: rad, deg, or a share of their range?"
    if largest > 100.5:
        return Measured(value="deg", evidence=f"{told}: beyond what radians or percent of a range reach")
    if largest > _RAD:
        at_bound = int((np.abs(np.abs(values_NG) - 100.0) <= 1e-3).sum())
        likely = "percent" if at_bound >= 2 else "deg"
        return Open(question=question, likely=likely, evidence=f"{told}, {at_bound} values at exactly -100 or 100")
    if largest > 1.05 and span > _TURNS and not _is_standardised(values_NG):
        return Measured(value="rad", evidence=f"{told}; as degrees, no joint would ever turn by more than {number(span)} degrees")
    return Open(question=question, likely="rad", evidence=f"{told}: radians or normalised to -1..1")


def _length(values_NG: NDArray[np.floating]) -> Guess:
    low, high = _limits(values_NG)
    told, largest = _range(values_NG), max(abs(low), abs(high))
    span = max((float(np.ptp(part[np.isfinite(part)])) for part in values_NG.T if np.isfinite(part).any()), default=0.0)
    at_bound = int((np.abs(np.abs(values_NG) - 1.0) <= 1e-6).sum())
    if largest <= 3.0 and span >= 0.05 and at_bound < 2 and not _is_standardised(values_NG):
        return Measured(value="m", evidence=f"{told}; as centimetres, nothing would ever move by more than {number(10 * span)} mm")
    question = "in which unit are these positions: m, cm, mm, or normalised?"
    likely = "mm" if largest > 100 else None
    return Open(question=question, likely=likely, evidence=f"{told}, {at_bound} values at exactly -1 or 1")


def _quaternion(values_NG: NDArray[np.floating]) -> Guess:
    norm_N = np.linalg.norm(values_NG.astype(np.float64), axis=1)
    if values_NG.shape[1] == 4 and np.nanmax(np.abs(norm_N - 1.0), initial=0.0) < 0.01:
        return Measured(value="", evidence=f"length of the four numbers {number(np.nanmin(norm_N))}..{number(np.nanmax(norm_N))}")
    return Open(question="in which unit is this number?", evidence=_range(values_NG))


def _is_standardised(values_NG: NDArray[np.floating]) -> bool:
    """Whether every dimension has mean 0 and standard deviation 1: such numbers have no unit any more."""
    with np.errstate(invalid="ignore"):
        mean_G, std_G = np.nanmean(values_NG.astype(np.float64), axis=0), np.nanstd(values_NG.astype(np.float64), axis=0)
    return bool((np.abs(mean_G) < 0.05).all() and (np.abs(std_G - 1.0) < 0.05).all())


def _same(state: Guess, beside: str) -> Guess:
    if isinstance(state, Measured):
        return Measured(value=state.value, evidence=f"{beside}: the same unit")
    return Open(question=state.question, likely=state.likely, evidence=f"{beside}: the same unit; {state.evidence}")


def _limits(values: NDArray[np.floating]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _range(values_NG: NDArray[np.floating]) -> str:
    low, high = _limits(values_NG)
    dims = values_NG.shape[1]
    return f"{number(low)}..{number(high)}" + (f" over {dims} dimensions of this kind" if dims > 1 else "")
