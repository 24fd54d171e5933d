"""Measurements of time: the clock of the rows, how the state follows the action, and the pictures against the state."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.motion import finite
from components.data.lerobot import layout

MAX_LAG = 15  # frames; more than half a second at 20 to 30 Hz


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coupling:
    """How one vector follows another, by cross-correlation over up to `MAX_LAG` frames either way.

    lag: frames by which the second comes later where they agree best. peak: mean agreement there of the dimensions that move, at_zero:
    without a lag, second: the best more than 2 frames away from the lag. peak_D, partner_D: per dimension of the first, the best agreement
    (with its sign) over all dimensions of the second at a lag that robots have, and which dimension that is (-1: it does not move).
    """

    lag: int = 0
    peak: float = 0.0
    at_zero: float = 0.0
    second: float = 0.0
    peak_D: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    partner_D: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeMeasurements:
    """The clock of one episode. periods_s: from each row to the next. stamp_error: the largest distance of a stamp from frame / fps.

    is_made_up: every time is frame / fps to the last digit of float32, so no jitter can be seen. position, change: how the change of
    the state follows the change of the action that was executed, and that action itself. state_repeats: share of steps in which no
    number of the state changes though that action does. row_repeats: share of steps in which neither changes.
    """

    periods_s: NDArray[np.float64]
    lasts_s: float
    stamp_error: float
    is_made_up: bool
    position: Coupling
    change: Coupling
    state_repeats: float
    row_repeats: float
    stuck_run: int


def measure_time(episode: RawEpisode) -> TimeMeasurements:
    """Measure the clock and how the state follows what was sent: a demonstrator who is pushed labels another action."""
    times_T, stamps_T, fps = episode.times_T, episode.stamps_T, episode.fps or 1.0
    expected_T = np.arange(len(stamps_T)) / fps
    beside_T = np.abs(stamps_T - (stamps_T[0] if len(stamps_T) else 0.0) - expected_T)
    is_ours = not np.array_equal(times_T, stamps_T)
    made_up = not is_ours and bool((beside_T <= 1e-6 + 4 * np.finfo(np.float32).eps * np.maximum(expected_T, 1.0)).all())
    state_TP, action_TA = finite(episode.state_TP), finite(episode.vectors.get(layout.EXECUTED, episode.action_TA))
    ahead_TP, ahead_TA = state_TP[1:] - state_TP[:-1], action_TA[1:] - action_TA[:-1]
    moves_T, acts_T = np.any(ahead_TP != 0, axis=1), np.any(ahead_TA != 0, axis=1)
    return TimeMeasurements(
        periods_s=np.diff(times_T),
        lasts_s=float(times_T[-1] - times_T[0]) if len(times_T) else 0.0,
        stamp_error=float(np.max(beside_T, initial=0.0) * fps),
        is_made_up=made_up,
        position=couple(ahead_TA, ahead_TP),
        change=couple(action_TA[:-1], ahead_TP),
        state_repeats=float((~moves_T & acts_T).sum() / max(int(acts_T.sum()), 1)),
        row_repeats=float((~moves_T & ~acts_T).mean()) if len(moves_T) else 0.0,
        stuck_run=longest_run(~moves_T & acts_T) if state_TP.shape[1] else 0,
    )


def couple(first_TD: NDArray[np.float64], second_TE: NDArray[np.float64]) -> Coupling:
    """Cross-correlation of every column of `first_TD` with every column of `second_TE`. Columns that do not move agree with nothing."""
    length = min(len(first_TD), len(second_TE))
    reach = min(MAX_LAG, length // 4)
    if reach < 1 or not first_TD.size or not second_TE.size:
        return Coupling()
    a_TD, b_TE = _standard(first_TD[:length]), _standard(second_TE[:length])
    lags = list(range(-reach, reach + 1))
    found_LDE = _at_lags(a_TD, b_TE, reach)
    best_LD = np.abs(found_LDE).max(axis=2)
    moving_D = np.abs(a_TD).any(axis=0)
    if not moving_D.any():
        return Coupling(peak_D=np.zeros(a_TD.shape[1]), partner_D=np.full(a_TD.shape[1], -1))
    weight_D = (best_LD.max(axis=0) ** 2) * moving_D
    profile_L = best_LD @ weight_D / max(float(weight_D.sum()), 1e-12)
    best = int(profile_L.argmax())
    near = slice(max(reach - 3, 0), reach + 9)  # at lags that no robot has, dimensions agree by chance
    near_RDE = found_LDE[near]
    partner_D = np.abs(near_RDE).max(axis=0).argmax(axis=1)
    mine_RD = np.take_along_axis(near_RDE, partner_D[None, :, None], axis=2)[:, :, 0]
    at_best_D = mine_RD[np.abs(mine_RD).argmax(axis=0), np.arange(mine_RD.shape[1])]
    away_L = profile_L[np.abs(np.array(lags) - lags[best]) > 2]
    return Coupling(
        lag=lags[best],
        peak=float(profile_L[best]),
        at_zero=float(profile_L[reach]),
        second=float(away_L.max(initial=0.0)),
        peak_D=np.where(moving_D, at_best_D, 0.0),
        partner_D=np.where(moving_D, partner_D, -1),
    )


def _at_lags(a_TD: NDArray[np.float64], b_TE: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Agreement of a at t with b at t + lag, -1..1, for each lag -reach .. reach: of the rows where both are."""
    length = len(a_TD)
    padded = np.zeros((length + 2 * reach, b_TE.shape[1]))  # rows that b does not have add nothing
    padded[reach : reach + length] = b_TE
    lags = np.arange(-reach, reach + 1)
    beside_LTE = padded[(lags + reach)[:, None] + np.arange(length)]
    size_LD, size_LE = _sizes(a_TD, lags), _sizes(b_TE, -lags)
    size_LDE = size_LD[:, :, None] * size_LE[:, None, :]
    return np.divide(a_TD.T @ beside_LTE, size_LDE, out=np.zeros_like(size_LDE), where=size_LDE > 1e-12)


def _sizes(values_TD: NDArray[np.float64], lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """Length of each column without its last `lag` rows, or without its first -`lag`."""
    squares = values_TD**2
    first, last = np.cumsum(squares, axis=0), np.cumsum(squares[::-1], axis=0)
    rest = len(values_TD) - np.abs(lags) - 1
    return np.sqrt(np.where(lags[:, None] >= 0, first[rest], last[rest]))


def _standard(values_TD: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values_TD - values_TD.mean(axis=0)
    spread = centred.std(axis=0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)


def longest_run(flags_T: NDArray[np.bool_]) -> int:
    """The longest run of flags that are set."""
    return int(longest_runs(flags_T[:, None])[0])


def longest_runs(flags_TD: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The longest run of flags that are set, in each column."""
    row_T1 = np.arange(1, len(flags_TD) + 1)[:, None]
    last_TD = np.maximum.accumulate(np.where(flags_TD, 0, row_T1), axis=0)  # how many rows there are up to the last flag that is not set
    return (row_T1 - last_TD).max(axis=0, initial=0)


def follow_pictures(speed_TD: NDArray[np.float64], change_T: NDArray[np.float64]) -> Coupling:
    """How the change of the pictures follows the movement of all dimensions together: the fit of one weight a dimension at each lag.

    peak: correlation of the fit. at_zero: the same without a lag. second: the best fit more than 2 frames away from the lag.
    """
    length = min(len(speed_TD), len(change_T))
    reach = min(MAX_LAG, length // 4)
    if reach < 3 or not change_T[reach : length - reach].std() > 1e-6:
        return Coupling()
    target = change_T[reach : length - reach] - change_T[reach : length - reach].mean()
    lags = np.arange(-reach, reach + 1)
    parts_LND = np.stack([speed_TD[reach - lag : length - reach - lag] for lag in lags])
    fits = _fits(parts_LND, target)
    best = int(fits.argmax())
    away = fits[np.abs(lags - lags[best]) > 2]
    return Coupling(lag=int(lags[best]), peak=float(fits[best]), at_zero=float(fits[reach]), second=float(away.max(initial=0.0)))


def _fits(parts_LND: NDArray[np.float64], target_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the best weighted sum of the parts with the target, at each lag, less what so many weights fit by chance."""
    _, count, dims = parts_LND.shape
    centred = parts_LND - parts_LND.mean(axis=1, keepdims=True)
    gram_LDD = np.einsum("lnd,lne->lde", centred, centred) + 1e-6 * count * np.eye(dims)
    with_target_LD = np.einsum("lnd,n->ld", centred, target_N)
    weights_LD = np.linalg.solve(gram_LDD, with_target_LD[..., None])[..., 0]
    explained = np.einsum("ld,ld->l", weights_LD, with_target_LD) / (target_N @ target_N)
    by_chance = (count - 1) / max(count - dims - 1, 1)
    return np.sqrt(np.clip(1.0 - (1.0 - explained) * by_chance, 0.0, 1.0))


def speed_TD(episode: RawEpisode) -> NDArray[np.float64]:
    """How fast each dimension of the state (of the action, where there is none) changes from each row to the next; (T - 1, D)."""
    column = layout.STATE if episode.state_TP.shape[1] else layout.ACTION
    values = finite(episode.vectors.get(column, np.zeros((len(episode), 0))))
    ahead = np.abs(np.diff(values, axis=0))
    spread = ahead.std(axis=0)
    return np.divide(ahead, spread, out=np.zeros_like(ahead), where=spread > 1e-12)
