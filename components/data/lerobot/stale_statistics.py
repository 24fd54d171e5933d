"""Does stats.json belong to the data beside it? Training on another set's statistics moves every action silently."""

from __future__ import annotations

import numpy as np

from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.statistics import vector_statistics

CHECKED = (layout.STATE, layout.ACTION)
TOLERANCE = 1e-3


def stale_statistics(reader: DatasetReader) -> list[str]:
    """One sentence per statistic of state and action that differs from the data; empty when the file is of this data.

    Differences up to 0.1 % of the dimension's range pass (writers compute quantiles in different ways).
    """
    reasons: list[str] = []
    for key in CHECKED:
        if key not in reader.features:
            continue
        kept = reader.stats.get(key)
        if kept is None:
            reasons.append(f"stats.json has nothing on {key}")
            continue
        true = vector_statistics(reader.column(key))
        span = np.maximum(np.array(true["max"]) - np.array(true["min"]), 1e-6)
        for name in ("min", "max", "mean", "std"):
            got, expected = np.asarray(kept.get(name, np.nan), np.float64).ravel(), np.asarray(true[name])
            if got.shape != expected.shape or not (np.abs(got - expected) <= TOLERANCE * span).all():
                reasons.append(f"stats.json states {key} {name} is {_short(got)}, the data give {_short(expected)}")
        if list(np.ravel(kept.get("count", []))) != [reader.frames]:
            reasons.append(f"stats.json counts {kept.get('count')} frames of {key}, the data has {reader.frames}")
    return reasons


def _short(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{v:.3g}" for v in values) + "]"
