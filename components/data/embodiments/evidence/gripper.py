"""The gripper in recorded numbers: which action dimension it is, between which values it goes, and whether the state follows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.data.embodiments.evidence.guess import Guess, Measured, Open, number
from components.data.embodiments.evidence.kinds import GRIPPER, kind_of
from components.data.embodiments.evidence.recorded import ACTION, STATE, RecordedSet

_BOUNDS = ((0.0, 1.0), (0.0, 100.0), (-1.0, 1.0))
_NEAR = 0.02  # of the range between two bounds
_SLOWEST_S = 1.0
_WIDTHS, _FINGERS = ("width", "opening", "aperture"), ("qpos", "finger")


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperGuess:
    """Everything that a draft says of a gripper. index: its action dimension; None where it is open or there is none."""

    dim: Guess
    values: Guess
    opened: Guess
    threshold: Guess | None = None
    index: int | None = None


def gripper_guess(recorded: RecordedSet) -> GripperGuess:
    """Find the gripper by name, or else by its values; its polarity is never guessed."""
    names = recorded.names(ACTION)
    named = [place for place, name in enumerate(names) if kind_of(name) == GRIPPER]
    if len(named) == 1:
        return _of(recorded, named[0], Measured(value=names[named[0]], evidence="by its name"))
    if len(named) > 1:
        said = f"{', '.join(names[place] for place in named)} are grippers by name; one dimension can be the gripper"
        ask = Open(question="which action dimension is the gripper? '' treats all of them as other dimensions", likely="", evidence=said)
        return _none(ask)
    switches = [place for place in range(len(names)) if len(_values(recorded, place)) == 2]
    question = "which action dimension is the gripper? '' for an arm without one"
    if len(switches) == 1:
        low, high = _values(recorded, switches[0])
        said = f"{names[switches[0]]} alone has two values, {number(low)} and {number(high)}; no name says gripper"
        return _of(recorded, switches[0], Open(question=question, likely=names[switches[0]], evidence=said))
    return _none(Open(question=question, evidence=f"no name says gripper among {', '.join(names)}; {len(switches)} have two values"))


def _none(dim: Guess) -> GripperGuess:
    question = "between which two values does the gripper go, smaller first? [0, 1] where there is none"
    ask = Open(question="which of the two values opens the gripper?")
    return GripperGuess(dim=dim, values=Open(question=question), opened=ask)


def _of(recorded: RecordedSet, place: int, dim: Guess) -> GripperGuess:
    column_N = recorded.actions_NA[:, place]
    finite_N = column_N[np.isfinite(column_N)].astype(np.float64)
    distinct = _values(recorded, place)
    if not len(finite_N) or len(distinct) == 1:
        return replace(_none(dim), index=place)
    threshold = None
    if len(distinct) == 2:
        values: Guess = Measured(value=distinct, evidence=f"only these two values in {recorded.described}")
        threshold = Measured(value=sum(distinct) / 2, evidence="the middle of the only two values")
    else:
        values = _range(finite_N)
    return GripperGuess(dim=dim, values=values, opened=_polarity(recorded, place), threshold=threshold, index=place)


def _range(finite_N: NDArray[np.float64]) -> Guess:
    low, high = float(finite_N.min()), float(finite_N.max())
    q01, q50, q99 = np.quantile(finite_N, [0.01, 0.5, 0.99])
    told = f"min {number(low)}, q01 {number(q01)}, q50 {number(q50)}, q99 {number(q99)}, max {number(high)}"
    question = "between which two values does the gripper go, fully closed and fully open, smaller first?"
    for bounds in _BOUNDS:
        near = _NEAR * (bounds[1] - bounds[0])
        inside = bounds[0] - near <= low and high <= bounds[1] + near
        if inside and low <= bounds[0] + near and high >= bounds[1] - near:
            return Measured(value=list(bounds), evidence=told)
        if inside and high - low > 0.3 * (bounds[1] - bounds[0]):
            return Open(question=question, likely=list(bounds), evidence=told)
    return Open(question=question, likely=[round(low, 6), round(high, 6)], evidence=told)


def _polarity(recorded: RecordedSet, place: int) -> Open:
    """What speaks for one polarity, for the person who must say it."""
    first_E = recorded.actions_NA[recorded.starts_E, place]
    middle = float(np.nanmean([np.nanmin(recorded.actions_NA[:, place]), np.nanmax(recorded.actions_NA[:, place])]))
    high = int((first_E > middle).sum())
    told = f"{high} of {len(first_E)} episodes begin nearer to the larger value"
    reply = follow(recorded, place)
    if reply is not None:
        way = "grows" if reply.scale > 0 else "falls"
        told += f"; state {recorded.names(STATE)[reply.state]!r} {way} with it (correlation {reply.correlation:.2f})"
    return Open(question="which of the two values opens the gripper? Look at the robot or at the images", evidence=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How the state answers the gripper's action. state: its dimension; scale: its slope; lag: steps at which they agree best."""

    state: int
    correlation: float
    scale: float
    lag: int


def follow(recorded: RecordedSet, place: int) -> Reply | None:
    """The state dimension that answers an action dimension, by correlation at the best lag; those named as grippers come first."""
    sample = recorded.sampled(20_000)
    names = sample.names(STATE)
    named = [n for n, name in enumerate(names) if kind_of(name) == GRIPPER]
    lags = range(1 + max(1, round(_SLOWEST_S * sample.fps)))
    found = [reply for state in (named or range(len(names))) for lag in lags if (reply := _correlated(sample, place, state, lag))]
    best = max(found, key=lambda reply: abs(reply.correlation), default=None)
    return best if best is not None and abs(best.correlation) >= 0.3 else None


def _correlated(sample: RecordedSet, place: int, state: int, lag: int) -> Reply | None:
    rows_N = np.concatenate([np.arange(s, s + n - lag) for s, n in zip(sample.starts_E, sample.lengths_E, strict=True)])
    action_N = sample.actions_NA[rows_N, place].astype(np.float64)
    state_N = sample.state_NP[rows_N + lag, state].astype(np.float64)
    both_N = np.isfinite(action_N) & np.isfinite(state_N)
    action_N, state_N = action_N[both_N], state_N[both_N]
    if len(action_N) < 10 or np.ptp(action_N) == 0 or np.ptp(state_N) == 0:
        return None
    covariance = np.cov(action_N, state_N)
    correlation = float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return Reply(state=state, correlation=correlation, scale=float(covariance[0, 1] / covariance[0, 0]), lag=lag)


def grows_when_open(recorded: RecordedSet, state: int) -> bool | None:
    """Whether a larger value of a state dimension means a wider gripper, by its name; None where the name does not say it."""
    lowered = recorded.names(STATE)[state].lower()
    if "clos" in lowered:
        return False
    if any(word in lowered for word in _FINGERS):  # the place of one finger: 0 is closed, the other finger's is negative
        return float(np.nanmean(recorded.state_NP[:, state])) >= 0
    return True if any(word in lowered for word in _WIDTHS) else None


def _values(recorded: RecordedSet, place: int) -> list[float]:
    """The distinct values of a dimension, at most three of them."""
    column_N = recorded.actions_NA[:, place]
    return [float(value) for value in np.unique(column_N[np.isfinite(column_N)])[:3]]
