"""Measurements of the numbers of episodes: range, steps, resolution and limits of each dimension of each vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.raw_episode import RawEpisode
from components.data.inspection.measurements.rows.block import RowBlock, make_block

_TURNS = (2 * np.pi, 360.0)


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


_NAMES = tuple(one.name for one in fields(VectorMeasurements))


def measure_numbers(block: RowBlock) -> list[dict[str, VectorMeasurements]]:
    """Measure every column of vectors, for each episode."""
    found = {name: measure_column(block, block.column(name)) for name in block.episodes[0].vectors}
    return [{name: column[number] for name, column in found.items()} for number in range(len(block))]


def measure_vector(values_TD: NDArray[np.float64]) -> VectorMeasurements:
    """Measure one column of one episode."""
    times_T = np.zeros(len(values_TD))
    episode = RawEpisode(episode_id="", number=0, fps=1.0, times_T=times_T, stamps_T=times_T, vectors={"": values_TD})
    return measure_numbers(make_block([episode]))[0][""]


def measure_column(block: RowBlock, values_DN: NDArray[np.float64]) -> Sequence[VectorMeasurements]:
    """Measure one column of every episode; what is not finite only counts in `missing_D`."""
    finite_DN = np.isfinite(values_DN)
    filled = values_DN if finite_DN.all() else _filled(block, values_DN, finite_DN)
    ahead = block.ahead(filled)
    size = np.abs(ahead)
    in_order = block.sort(filled.copy())
    least, largest = in_order[:, block.starts_E], in_order[:, block.ends_E]
    mean = block.each(np.add, filled) / block.lengths_E
    centred = filled - block.spread(mean)
    low, high = (_quantile(block, in_order, share) for share in (0.02, 0.98))
    gap = block.ahead(in_order)
    is_other = gap > 0
    distinct = 1 + block.count(is_other)
    at_limit = block.count((filled == block.spread(least)) | (filled == block.spread(largest)))
    with np.errstate(over="ignore"):
        half = filled.astype(np.float16).astype(np.float64) == filled.astype(np.float32).astype(np.float64)
    max_step = block.each(np.maximum, size)
    is_equal = ahead == 0
    is_equal[:, block.ends_E] = block.lengths_E == 1  # a single row has no step and equals itself
    measured: dict[str, NDArray[np.generic]] = {
        "missing_D": block.lengths_E - block.count(finite_DN),
        "min_D": least,
        "max_D": largest,
        "mean_D": mean,
        "std_D": np.sqrt(block.each(np.add, centred * centred) / block.lengths_E),
        "low_D": low,
        "high_D": high,
        "distinct_D": distinct,
        "step_D": _median_step(block, size.copy()),
        "max_step_D": max_step,
        "spike_D": _spikes(block, ahead, size),
        "gap_D": np.where(distinct > 1, block.each(np.minimum, np.where(is_other, gap, np.inf)), 0.0),
        "at_limit_D": at_limit / block.lengths_E,
        "is_half_D": block.each(np.logical_and, half),
        "stuck_D": block.longest_runs(is_equal),
        "wraps_D": _wraps(block, filled, size, max_step),
    }
    by_episode = [np.ascontiguousarray(measured[name].T) for name in _NAMES]
    return [VectorMeasurements(**dict(zip(_NAMES, row, strict=True))) for row in zip(*by_episode, strict=True)]


def _filled(block: RowBlock, values_DN: NDArray[np.float64], finite_DN: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The median of its episode's dimension in place of every value that is not finite; 0 where none is."""
    found = values_DN.copy()
    for part in block.parts():
        for d in np.flatnonzero(~finite_DN[:, part].all(axis=1)):
            known = finite_DN[d, part]
            found[d, part][~known] = median(values_DN[d, part][known]) if known.any() else 0.0
    return found


def _quantile(block: RowBlock, in_order_DN: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Of rows that are sorted already, between two rows on the line between them."""
    place_E = share * (block.lengths_E - 1)
    row_E = np.minimum(place_E.astype(np.int64), np.maximum(block.lengths_E - 2, 0))
    below = in_order_DN[:, block.starts_E + row_E]
    above = in_order_DN[:, block.starts_E + np.minimum(row_E + 1, block.lengths_E - 1)]
    rest_E = place_E - row_E
    return np.where(rest_E < 0.5, below + (above - below) * rest_E, above - (above - below) * (1 - rest_E))


def _median_step(block: RowBlock, size_DN: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of the steps of each episode; the last row, which has none, is sorted behind them."""
    size_DN[:, block.ends_E] = np.where(block.lengths_E > 1, np.inf, 0.0)
    block.sort(size_DN)
    steps_E = np.maximum(block.lengths_E - 1, 1)
    return (size_DN[:, block.starts_E + (steps_E - 1) // 2] + size_DN[:, block.starts_E + steps_E // 2]) / 2


def _spikes(block: RowBlock, ahead_DN: NDArray[np.float64], size_DN: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest step that the next one takes back: the smaller of the two counts. Behind the last row the step is 0."""
    taken_back = np.zeros_like(ahead_DN)
    there, back = ahead_DN[:, :-1], ahead_DN[:, 1:]
    np.minimum(size_DN[:, :-1], size_DN[:, 1:], out=taken_back[:, :-1], where=there * back < 0)
    return block.each(np.maximum, taken_back)


def _wraps(
    block: RowBlock, values_DN: NDArray[np.float64], size_DN: NDArray[np.float64], max_step_DE: NDArray[np.float64]
) -> NDArray[np.int64]:
    wraps_DE = np.zeros(max_step_DE.shape, np.int64)
    if not (max_step_DE > 0.8 * min(_TURNS)).any():
        return wraps_DE  # no step comes near a whole turn
    largest_DE = block.each(np.maximum, np.abs(values_DN))
    for turn in _TURNS:
        within = (largest_DE <= turn * 1.02) & (largest_DE >= turn * 0.4)
        wraps_DE += within * block.count(np.abs(size_DN - turn) < 0.1 * turn)
    return wraps_DE
