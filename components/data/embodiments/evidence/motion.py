"""How actions are meant, tested on the data: which reading of them explains how the state moves.

Each reading gives a sequence of targets: an absolute action is the target, a delta adds to the one before, a relative one is added to
the state at the start of its chunk. The state's displacement over a window of some steps is compared with the displacement of the targets,
times the one factor that fits best. What stays unexplained, as a share of the squared displacement, is the residual: 0 is exact, 1 explains
nothing. Windows are insensitive to drift; several lags between action and state are tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.data.embodiments.evidence.recorded import RecordedSet

ABSOLUTE, DELTA, RELATIVE = "absolute", "delta", "relative"
CHUNKS = (4, 5, 8, 10, 15, 16, 20, 25, 30, 32, 40, 50, 64, 100)
LAGS_S, LARGEST_LAG = 0.25, 8
_ROWS, _FEWEST = 20_000, 20
_STILL = 1e-9
_ONE = (0.8, 1.25)  # state units per action unit that count as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One way to read action dimension `action`, compared with state dimension `state`.

    chunk: steps after which a relative action starts again; 0 for the others. lag: steps by which the state follows later than one step;
    -1 where it is the state of the same row. scale: state units per action unit. residual: share of the motion that stays unexplained.
    """

    mode: str
    action: int
    state: int
    lag: int
    scale: float
    residual: float
    chunk: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fits:
    """Residual and scale (A, P) of one mode and lag."""

    mode: str
    lag: int
    residual_AP: NDArray[np.float64]
    scale_AP: NDArray[np.float64]
    chunk: int = 0


class MotionTest:
    """All readings of a set. `window`: steps of a displacement; `windows`: how many were compared."""

    def __init__(self, recorded: RecordedSet) -> None:
        self.recorded = sample = recorded.sampled(_ROWS)
        shortest = int(np.median(sample.lengths_E)) if len(sample.lengths_E) else 0
        self.window = int(np.clip(min(round(sample.fps / 2), shortest // 4), 1, 15))
        self.chunks = tuple(chunk for chunk in CHUNKS if chunk <= shortest // 3)  # of longer ones too few begin inside an episode
        self.lags = tuple(range(-1, 1 + int(np.clip(min(round(LAGS_S * sample.fps), shortest // 6), 1, LARGEST_LAG))))
        self._state_NP, self._actions_NA = unwrapped(sample.state_NP, sample), sample.actions_NA.astype(np.float64)
        self._rows_N = self._starts()

    @property
    def windows(self) -> int:
        """How many displacements were compared."""
        return len(self._rows_N)

    def readings(self, action: int, state: int) -> tuple[Reading, ...]:
        """The best lag of each mode for one pair of dimensions, smallest residual first; empty where too little moves."""
        best: dict[str, Reading] = {}
        for fits in self._fits:
            residual = float(fits.residual_AP[action, state])
            if fits.mode == RELATIVE and not is_one(float(fits.scale_AP[action, state])):
                continue  # what is added to a state has its unit
            if np.isfinite(residual) and (fits.mode not in best or residual < best[fits.mode].residual):
                scale = float(fits.scale_AP[action, state])
                best[fits.mode] = Reading(
                    mode=fits.mode, action=action, state=state, lag=fits.lag, scale=scale, residual=residual, chunk=fits.chunk
                )
        return tuple(sorted(best.values(), key=lambda reading: reading.residual))

    def partner(self, action: int, likely: int | None) -> int | None:
        """The state dimension that an action dimension moves: the likely one unless another fits plainly better; None where none moves."""
        best_P = self._best_AP[action]
        if not np.isfinite(best_P).any():
            return None
        found = int(np.nanargmin(best_P))
        if likely is not None and (not np.isfinite(best_P[likely]) or best_P[likely] <= best_P[found] + 0.1):
            return likely
        return found

    def lag_residuals(self, reading: Reading) -> dict[int, float]:
        """lag -> residual of the mode and dimensions of `reading`."""
        return {
            fits.lag: float(fits.residual_AP[reading.action, reading.state])
            for fits in self._fits
            if (fits.mode, fits.chunk) == (reading.mode, reading.chunk)
        }

    def moves(self, state: int) -> bool:
        """Whether a state dimension is displaced at all."""
        return bool(np.isfinite(self._best_AP[:, state]).any()) if self._best_AP.size else False

    @cached_property
    def _best_AP(self) -> NDArray[np.float64]:
        found = [fits.residual_AP for fits in self._fits if fits.mode != RELATIVE]
        shape = (self._actions_NA.shape[1], self._state_NP.shape[1])
        return np.fmin.reduce(found) if found else np.full(shape, np.nan)

    @cached_property
    def _fits(self) -> tuple[_Fits, ...]:
        return tuple(self._tried()) if len(self._rows_N) >= _FEWEST else ()

    def _tried(self) -> Iterator[_Fits]:
        rows_N, window = self._rows_N, self.window
        absolute_NA = unwrapped(self._actions_NA, self.recorded)
        step_NA = absolute_NA[rows_N + window - 1] - absolute_NA[rows_N - 1]
        total_NA = np.concatenate([np.zeros((1, self._actions_NA.shape[1])), np.cumsum(np.nan_to_num(self._actions_NA), axis=0)])
        sum_NA = total_NA[rows_N + window] - total_NA[rows_N]
        for lag in self.lags:
            moved_NP = self._state_NP[rows_N + window + lag] - self._state_NP[rows_N + lag]
            yield _fitted(ABSOLUTE, lag, step_NA, moved_NP)
            yield _fitted(DELTA, lag, sum_NA, moved_NP)
            for chunk in self.chunks if lag >= 0 else ():
                base_NP = self._state_NP[self._base(rows_N + window - 1, chunk)] - self._state_NP[self._base(rows_N - 1, chunk)]
                raw_NA = self._actions_NA[rows_N + window - 1] - self._actions_NA[rows_N - 1]
                yield _fitted(RELATIVE, lag, raw_NA, moved_NP, base_NP, chunk)

    def _base(self, rows_N: NDArray[np.int64], chunk: int) -> NDArray[np.int64]:
        start_N = self.recorded.starts_E[np.searchsorted(self.recorded.starts_E, rows_N, side="right") - 1]
        return start_N + (rows_N - start_N) // chunk * chunk

    def _starts(self) -> NDArray[np.int64]:
        """First rows of the windows: inside one episode, and with finite numbers everywhere."""
        sample, ahead = self.recorded, self.window + self.lags[-1]
        parts = [np.arange(s + 1, s + length - ahead) for s, length in zip(sample.starts_E, sample.lengths_E, strict=True)]
        rows_N = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        is_odd_N = ~(np.isfinite(self._state_NP).all(axis=1) & np.isfinite(self._actions_NA).all(axis=1))
        odd_N = np.concatenate([[0], np.cumsum(is_odd_N)])
        return rows_N[odd_N[rows_N + ahead + 1] == odd_N[rows_N - 1]] if len(rows_N) else rows_N


def _fitted(
    mode: str,
    lag: int,
    target_NA: NDArray[np.float64],
    moved_NP: NDArray[np.float64],
    base_NP: NDArray[np.float64] | None = None,
    chunk: int = 0,
) -> _Fits:
    rest_NP = moved_NP if base_NP is None else moved_NP - base_NP
    size_A, moved_P, rest_P = (target_NA**2).sum(axis=0), (moved_NP**2).sum(axis=0), (rest_NP**2).sum(axis=0)
    shared_AP = target_NA.T @ rest_NP
    with np.errstate(divide="ignore", invalid="ignore"):
        scale_AP = np.where(size_A[:, None] > _STILL, shared_AP / size_A[:, None], 0.0)
        # of a relative reading only what the base does not give counts: with short chunks the base alone follows the state
        residual_AP = (rest_P[None, :] - scale_AP * shared_AP) / rest_P[None, :]
    residual_AP[:, np.minimum(moved_P, rest_P) <= _STILL] = np.nan
    residual_AP[size_A <= _STILL] = np.nan
    return _Fits(mode=mode, lag=lag, residual_AP=np.maximum(residual_AP, 0.0), scale_AP=scale_AP, chunk=chunk)


def unwrapped(values_ND: NDArray[np.floating], recorded: RecordedSet) -> NDArray[np.float64]:
    """Angles without their jumps by a full turn, per episode: where values stay within one turn and jump by more than half of it."""
    made_ND = values_ND.astype(np.float64)
    for turn in (2 * np.pi, 360.0):
        with np.errstate(invalid="ignore"):
            largest_D = np.nanmax(np.abs(made_ND), axis=0, initial=0.0)
            jumps_D = (np.abs(np.diff(made_ND, axis=0)) > 0.8 * turn).any(axis=0) if len(made_ND) > 1 else np.zeros(made_ND.shape[1], bool)
        for dim in np.flatnonzero(jumps_D & (largest_D <= turn * 1.01)):
            for start, length in zip(recorded.starts_E, recorded.lengths_E, strict=True):
                part = made_ND[start : start + length, dim]
                if np.isfinite(part).all():
                    made_ND[start : start + length, dim] = np.unwrap(part, period=turn)
    return made_ND


def is_one(scale: float) -> bool:
    """Whether a factor that was fitted to noisy motion means the same unit."""
    return _ONE[0] <= scale <= _ONE[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Where targets stand beside the state, per episode, over the span of the state: what tells absolute from relative to the first state.

    offset: of the targets from the state, constant over all episodes. left_absolute, left_relative: what stays of it from episode to
    episode if actions are absolute, or relative to the state at the episode's start. starts: how much those starts differ.
    """

    offset: float
    left_absolute: float
    left_relative: float
    starts: float


def levels(test: MotionTest, reading: Reading) -> Levels:
    """Compare targets and state themselves, not their displacements."""
    sample, ahead = test.recorded, 1 + reading.lag
    state_N = unwrapped(sample.state_NP[:, [reading.state]], sample)[:, 0]
    scale = 1.0 if is_one(reading.scale) else reading.scale  # a state that follows slowly has a factor below 1
    action_N = unwrapped(sample.actions_NA[:, [reading.action]], sample)[:, 0] * scale
    span = float(np.nanmax(state_N) - np.nanmin(state_N)) or 1.0
    offset_E, start_E = [], []
    for start, length in zip(sample.starts_E, sample.lengths_E, strict=True):
        if length <= ahead:
            continue
        with np.errstate(invalid="ignore"):
            gap_T = state_N[start + ahead : start + length] - action_N[start : start + length - ahead]
        if np.isfinite(gap_T).any() and np.isfinite(state_N[start]):
            offset_E.append(float(np.nanmedian(gap_T)))
            start_E.append(float(state_N[start]))
    offsets, starts = np.array(offset_E), np.array(start_E)
    if not len(offsets):
        return Levels(offset=0.0, left_absolute=1.0, left_relative=1.0, starts=0.0)
    constant = float(np.median(offsets))

    def rms(values: NDArray[np.float64]) -> float:
        return float(np.sqrt(np.mean(values**2))) / span

    is_offset_free = rms(offsets) <= rms(offsets - starts)
    left_absolute = rms(offsets) if is_offset_free else rms(offsets - constant)
    return Levels(
        offset=constant / span, left_absolute=left_absolute, left_relative=rms(offsets - starts), starts=float(np.std(starts)) / span
    )
