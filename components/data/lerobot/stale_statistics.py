"""Does stats.json belong to the data beside it? Training on another set's statistics moves every action silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.meta.info import names_of
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.statistics import vector_statistics

CHECKED = (layout.STATE, layout.ACTION)
TOLERANCE = 1e-3
FLOAT32 = float(np.finfo(np.float32).eps)


def stale_statistics(reader: DatasetReader) -> list[str]:
    """One sentence per statistic of state and action that differs from the data; empty when the file is of this data, or where the
    version of the format has no such file.

    Differences up to 0.1 % of the dimension's range pass (writers compute quantiles in different ways), and so does what float32 can
    lose: recorders sum an episode in it, and take the deviation from the mean of squares less the square of the mean.
    """
    if layout.is_one_file_an_episode(reader.info):
        return []  # such a set has statistics of single episodes, which are never used
    longest = max((row.length for row in reader.rows), default=1)
    reasons: list[str] = []
    for key in CHECKED:
        if key not in reader.features:
            continue
        kept = reader.stats.get(key)
        if kept is None:
            reasons.append(f"stats.json has nothing on {key}")
            continue
        names = names_of(reader.features[key])
        reasons += _differences(key, kept, _Truth.of(reader.column(key), longest), names)
        counts = np.ravel(np.asarray(kept.get("count", []), object)).tolist()
        if not counts or any(count != reader.frames for count in counts):
            reasons.append(f"stats.json counts {kept.get('count')} frames of {key}, the data has {reader.frames}")
    return reasons


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Truth:
    """The statistics of the data. allowed: by how much min, max and mean may differ. loss: the same, of the squared deviation.

    is_whole_D: which dimensions are numbers in every frame; where one is not, a recorder's statistics are not numbers either.
    """

    statistics: Mapping[str, Any]
    allowed_D: NDArray[np.float64]
    loss_D: NDArray[np.float64]
    is_whole_D: NDArray[np.bool_]

    @classmethod
    def of(cls, values_TD: NDArray[Any], longest: int) -> _Truth:
        """The statistics of these rows; `longest`: the steps of the longest episode, over which rounding adds up."""
        found = vector_statistics(values_TD)
        low, high = np.array(found["min"]), np.array(found["max"])
        span, size = high - low, np.maximum(np.abs(low), np.abs(high))
        rounding = FLOAT32 * max(longest, 16)
        table = np.asarray(values_TD, np.float64).reshape(len(values_TD), -1)
        return cls(
            statistics=found,
            allowed_D=TOLERANCE * span + rounding * size,
            loss_D=3 * rounding * size**2,  # of the mean of squares once, of the square of the mean twice
            is_whole_D=np.all(np.isfinite(table), axis=0),
        )


def _differences(key: str, kept: Mapping[str, Any], truth: _Truth, names: list[str]) -> list[str]:
    reasons: list[str] = []
    for name in ("min", "max", "mean", "std"):
        got_D, expected_D = np.asarray(kept.get(name, np.nan), np.float64).ravel(), np.asarray(truth.statistics[name])
        if got_D.shape != expected_D.shape:
            reasons.append(f"stats.json states {len(got_D)} values of {key} {name}, the data have {len(expected_D)} dimensions")
            continue
        is_near_D = np.abs(got_D - expected_D) <= truth.allowed_D
        if name == "std":
            is_near_D |= np.abs(got_D**2 - expected_D**2) <= truth.loss_D
        is_near_D |= ~truth.is_whole_D & ~np.isfinite(got_D)
        for place in np.flatnonzero(~is_near_D)[:1]:
            where = names[place] if place < len(names) else f"dimension {place}"
            reasons.append(
                f"stats.json states {key} {name} is {got_D[place]:.9g} in {where}, the data give {expected_D[place]:.9g} "
                f"(a difference of {truth.allowed_D[place]:.2g} would pass; {int((~is_near_D).sum())} of {len(got_D)} dimensions differ)"
            )
    return reasons
