"""Measurements of the numbers of an episode: range, steps, resolution and limits of each dimension of each vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.time import longest_runs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorMeasurements:
    """One column of vectors over one episode; every array has one value a dimension.

    missing_D: values that are not finite. low_D, high_D: p02 and p98. distinct_D: different values. step_D, max_step_D: median and largest
    change from row to row. spike_D: the largest distance of one value from both of its neighbours on the same side. gap_D: the smallest
    distance between two different values. at_limit_D: share of values that equal the least or the largest. is_half_D: every value is a
    float16. stuck_D: the longest run of equal values. wraps_D: steps of a whole turn (2 pi or 360).
    """

    missing_D: NDArray[np.int64]
    min_D: NDArray[np.float64]
    max_D: NDArray[np.float64]
    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]
    low_D: NDArray[np.float64]
    high_D: NDArray[np.float64]
    distinct_D: NDArray[np.int64]
    step_D: NDArray[np.float64]
    max_step_D: NDArray[np.float64]
    spike_D: NDArray[np.float64]
    gap_D: NDArray[np.float64]
    at_limit_D: NDArray[np.float64]
    is_half_D: NDArray[np.bool_]
    stuck_D: NDArray[np.int64]
    wraps_D: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.min_D)


def measure_numbers(episode: RawEpisode) -> dict[str, VectorMeasurements]:
    """Measure every column of vectors."""
    return {name: measure_vector(values) for name, values in episode.vectors.items() if len(values)}


def measure_vector(values_TD: NDArray[np.float64]) -> VectorMeasurements:
    """Measure one column; what is not finite only counts in `missing_D`."""
    finite_TD = np.isfinite(values_TD)
    filled = values_TD
    if not finite_TD.all():
        middle = np.array([np.median(c[m]) if m.any() else 0.0 for c, m in zip(values_TD.T, finite_TD.T, strict=True)])
        filled = np.where(finite_TD, values_TD, middle)
    ahead = filled[1:] - filled[:-1] if len(filled) > 1 else np.zeros((1, filled.shape[1]))
    in_order, steps = np.sort(filled, axis=0), np.sort(np.abs(ahead), axis=0)  # one pass each for all that follows
    low_D, high_D = (_quantile(in_order, share) for share in (0.02, 0.98))
    gap_TD = in_order[1:] - in_order[:-1]
    is_other = gap_TD > 0
    least, largest = in_order[0], in_order[-1]
    with np.errstate(over="ignore"):
        half = filled.astype(np.float16).astype(np.float64) == filled.astype(np.float32).astype(np.float64)
    return VectorMeasurements(
        missing_D=(~finite_TD).sum(axis=0),
        min_D=least,
        max_D=largest,
        mean_D=filled.mean(axis=0),
        std_D=filled.std(axis=0),
        low_D=low_D,
        high_D=high_D,
        distinct_D=1 + is_other.sum(axis=0),
        step_D=(steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2,
        max_step_D=steps[-1],
        spike_D=_spikes(ahead),
        gap_D=np.where(is_other.any(axis=0), np.where(is_other, gap_TD, np.inf).min(axis=0, initial=np.inf), 0.0),
        at_limit_D=((filled == least) | (filled == largest)).mean(axis=0),
        is_half_D=half.all(axis=0),
        stuck_D=longest_runs(ahead == 0),
        wraps_D=_wraps(filled, ahead),
    )


def _quantile(in_order_TD: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Of columns that are sorted already, between two rows on the line between them."""
    place = share * (len(in_order_TD) - 1)
    row = min(int(place), max(len(in_order_TD) - 2, 0))
    below, above = in_order_TD[row], in_order_TD[min(row + 1, len(in_order_TD) - 1)]
    return below + (above - below) * (place - row) if place - row < 0.5 else above - (above - below) * (1 - (place - row))


def _spikes(ahead_TD: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest step that the next one takes back: the smaller of the two counts."""
    if len(ahead_TD) < 2:
        return np.zeros(ahead_TD.shape[1])
    there, back = ahead_TD[:-1], -ahead_TD[1:]
    size = np.where(there * back > 0, np.minimum(np.abs(there), np.abs(back)), 0.0)
    return size.max(axis=0)


def _wraps(values_TD: NDArray[np.float64], ahead_TD: NDArray[np.float64]) -> NDArray[np.int64]:
    wraps_D = np.zeros(values_TD.shape[1], np.int64)
    size = np.abs(values_TD).max(axis=0)
    for turn in (2 * np.pi, 360.0):
        within = (size <= turn * 1.02) & (size >= turn * 0.4)
        wraps_D += within * (np.abs(np.abs(ahead_TD) - turn) < 0.1 * turn).sum(axis=0)
    return wraps_D
