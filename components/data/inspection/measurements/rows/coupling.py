"""How one vector follows another: cross-correlation of every column with every other, over episodes of any length at once.

E episodes, L lags, A and P dimensions of the first and the second vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.rows.block import RowBlock

MAX_LAG = 15  # frames; more than half a second at 20 to 30 Hz
# multiplications up to which OpenBLAS computes a product by one thread; more threads wait for each other longer than such a product takes
ONE_THREAD = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coupling:
    """How one vector follows another, by cross-correlation over up to `MAX_LAG` frames either way.

    lag: frames by which the second comes later where they agree best. peak: mean agreement there of the dimensions that move, at_zero:
    without a lag, second: the best more than 2 frames away from the lag. peak_D, partner_D: per dimension of the first, the best agreement
    (with its sign) over all dimensions of the second at a lag that robots have, and which dimension that is (-1: it does not move).
    best_DP: that agreement with each dimension of the second.
    """

    lag: int = 0
    peak: float = 0.0
    at_zero: float = 0.0
    second: float = 0.0
    peak_D: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    partner_D: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    best_DP: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


def couple(block: RowBlock, firsts: Sequence[NDArray[np.float64]], second_PN: NDArray[np.float64]) -> list[list[Coupling]]:
    """How `second_PN` follows each of `firsts` (A, N), per episode: one list for each of `firsts`. The last row of an episode is not read.

    Columns that do not move agree with nothing.
    """
    rows_E = block.lengths_E - 1
    reach_E = np.minimum(MAX_LAG, rows_E // 4)
    found = [[Coupling()] * len(block) for _ in firsts]
    if not second_PN.size or not any(first.size for first in firsts):
        return found
    places = np.cumsum([len(first) for first in firsts])[:-1]
    a_AN, b_PN = _standard(block, np.concatenate(firsts)), _standard(block, second_PN)
    for reach in sorted(set(reach_E.tolist()) - {0}):
        which = np.flatnonzero(reach_E == reach)
        agree_EALP = _agreement(block, a_AN, b_PN, which, reach)
        moving_EA = np.stack([a_AN[:, part].any(axis=1) for part in _parts(block, which)])
        sides = zip(np.split(agree_EALP, places, axis=1), np.split(moving_EA, places, axis=1), strict=True)
        for side, (agree, moving) in enumerate(sides):
            for episode, one in zip(which.tolist(), _couplings(agree, moving, reach) if agree.shape[1] else (), strict=False):
                found[side][episode] = one
    return found


def _parts(block: RowBlock, which: NDArray[np.int64]) -> list[slice]:
    """The rows of these episodes, without the last of each."""
    return [slice(start, start + length - 1) for start, length in zip(block.starts_E[which], block.lengths_E[which], strict=True)]


def _standard(block: RowBlock, values_DN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of mean 0 and spread 1 within each episode, the last row of each left out (0 there)."""
    rows_E = np.maximum(block.lengths_E - 1, 1)
    values = values_DN.copy()
    values[:, block.ends_E] = 0.0
    values -= block.spread(block.each(np.add, values) / rows_E)
    values[:, block.ends_E] = 0.0
    spread_DE = np.sqrt(block.each(np.add, values * values) / rows_E)
    scale_DE = np.divide(1.0, spread_DE, out=np.zeros_like(spread_DE), where=spread_DE > 1e-9)
    values *= block.spread(scale_DE)
    return values


def _agreement(
    block: RowBlock, a_AN: NDArray[np.float64], b_PN: NDArray[np.float64], which: NDArray[np.int64], reach: int
) -> NDArray[np.float64]:
    """Agreement of a at t with b at t + lag, -1..1, of the rows where both are: (E, A, L, P) for the lags -reach .. reach."""
    lags, width = 2 * reach + 1, len(b_PN)
    found = np.zeros((len(which), len(a_AN), lags, width))
    for number, part in enumerate(_parts(block, which)):
        rows = part.stop - part.start
        padded = np.zeros((rows + 2 * reach, width))  # rows that b does not have add nothing
        padded[reach : reach + rows] = b_PN[:, part].T
        # row t holds b at t - reach, t - reach + 1 and so on: one product gives every lag
        beside = np.lib.stride_tricks.as_strided(padded, (rows, lags * width), padded.strides, writeable=False)
        sums, at_once = found[number].reshape(len(a_AN), lags * width), max(1, ONE_THREAD // max(found[number].size, 1))
        for some in (slice(first, first + at_once) for first in range(0, rows, at_once)):
            sums += a_AN[:, part][:, some] @ np.ascontiguousarray(beside[some])
    size_EAL, size_EPL = _sizes(block, a_AN, which, reach), _sizes(block, b_PN, which, reach)[..., ::-1]
    size = size_EAL[..., None] * size_EPL.transpose(0, 2, 1)[:, None]
    return np.divide(found, size, out=np.zeros_like(found), where=size > 1e-12)


def _sizes(block: RowBlock, values_DN: NDArray[np.float64], which: NDArray[np.int64], reach: int) -> NDArray[np.float64]:
    """Length of each column without its last `lag` rows, or without its first -`lag`: (E, D, L) for the lags -reach .. reach."""
    start_E, end_E = block.starts_E[which], block.ends_E[which]  # rows start .. end - 1
    squares = values_DN**2
    near = np.arange(reach)
    first, last = squares[:, start_E[:, None] + near], squares[:, end_E[:, None] - 1 - near]  # (D, E, reach), from the outside inward
    # what is left when the first, or the last, `reach` rows are gone, and then one row more after the other
    without_first = np.add.reduceat(squares, np.stack([start_E + reach, end_E], axis=1).ravel(), axis=1)[:, ::2]
    without_last = np.add.reduceat(squares, np.stack([start_E, end_E - reach], axis=1).ravel(), axis=1)[:, ::2]
    inward = [without_first[..., None] + np.concatenate([_none(first), np.cumsum(first[..., ::-1], axis=-1)], axis=-1)]
    outward = without_last[..., None] + np.concatenate([_none(last), np.cumsum(last[..., ::-1], axis=-1)], axis=-1)
    both = np.concatenate([*inward, outward[..., -2::-1]], axis=-1)  # lag -reach .. 0, then 1 .. reach
    return np.sqrt(both).transpose(1, 0, 2)


def _none(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.zeros((*values.shape[:-1], 1))


def _couplings(agree_EALP: NDArray[np.float64], moving_EA: NDArray[np.bool_], reach: int) -> list[Coupling]:
    """What the agreement at every lag says, per episode."""
    lags = np.arange(-reach, reach + 1)
    best_EAL = np.abs(agree_EALP).max(axis=3)
    weight_EA = (best_EAL.max(axis=2) ** 2) * moving_EA
    profile_EL = np.einsum("eal,ea->el", best_EAL, weight_EA) / np.maximum(weight_EA.sum(axis=1), 1e-12)[:, None]
    best_E = profile_EL.argmax(axis=1)
    near = agree_EALP[:, :, max(reach - 3, 0) : reach + 9]  # at lags that no robot has, dimensions agree by chance
    best_EAP = np.take_along_axis(near, np.abs(near).argmax(axis=2)[:, :, None], axis=2)[:, :, 0] * moving_EA[..., None]
    partner_EA = np.abs(best_EAP).argmax(axis=2)
    peak_EA = np.take_along_axis(best_EAP, partner_EA[..., None], axis=2)[..., 0]
    away_EL = np.where(np.abs(lags - lags[best_E][:, None]) > 2, profile_EL, 0.0)
    partner_EA = np.where(moving_EA, partner_EA, -1)
    moves_E: NDArray[np.bool_] = np.any(moving_EA, axis=1)
    return [
        Coupling(
            lag=int(lags[best]),
            peak=float(profile_EL[e, best]),
            at_zero=float(profile_EL[e, reach]),
            second=float(away_EL[e].max()),
            peak_D=peak_EA[e],
            partner_D=partner_EA[e],
            best_DP=best_EAP[e],
        )
        if moves_E[e]
        else Coupling(peak_D=peak_EA[e], partner_D=partner_EA[e], best_DP=best_EAP[e])
        for e, best in enumerate(best_E.tolist())
    ]
