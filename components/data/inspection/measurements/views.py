"""Measurements of the pictures of an episode against its rows: how their change follows the movement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.rows.coupling import MAX_LAG, Coupling
from components.data.inspection.motion import finite
from components.data.lerobot import layout


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


def longest_run(flags_T: NDArray[np.bool_]) -> int:
    """The longest run of flags that are set."""
    row_T = np.arange(1, len(flags_T) + 1)
    last_T = np.maximum.accumulate(np.where(flags_T, 0, row_T))  # how many rows there are up to the last flag that is not set
    return int((row_T - last_T).max(initial=0))
