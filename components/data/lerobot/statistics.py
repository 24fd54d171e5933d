"""The ten statistics of LeRobot v3.0 (min, max, mean, std, count, five quantiles), for vectors and for images.

Vectors are exact over every finite value. Pictures are counted in a histogram of 256 levels per channel over a sample of
frames, scaled to 0..1, so their quantiles are exact for that sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def vector_statistics(values_TD: NDArray[Any]) -> dict[str, list[float]]:
    """Statistics per dimension of (T, D) or (T,); values that are not finite are left out (validation names them)."""
    table = np.asarray(values_TD, np.float64).reshape(len(values_TD), -1)
    columns = [column[np.isfinite(column)] for column in table.T]
    columns = [column if len(column) else np.zeros(1) for column in columns]
    found = {
        "min": [float(c.min()) for c in columns],
        "max": [float(c.max()) for c in columns],
        "mean": [float(c.mean()) for c in columns],
        "std": [float(c.std()) for c in columns],
        "count": [len(table)],
    }
    return found | {name: [float(np.quantile(c, q)) for c in columns] for name, q in QUANTILES.items()}


def picture_histogram(frames_THW3: NDArray[np.uint8], sample: int = 8) -> NDArray[np.int64]:
    """Counts (3, 256) over at most `sample` frames spread evenly, plus the number of frames looked at in no channel."""
    step = max(1, len(frames_THW3) // sample)
    picked = frames_THW3[::step]
    return np.stack([np.bincount(picked[..., channel].ravel(), minlength=256) for channel in range(3)]).astype(np.int64)


def picture_statistics(histogram_C256: NDArray[np.int64], frames: int) -> dict[str, Any]:
    """Statistics per channel from a histogram, shaped (3, 1, 1) as LeRobot writes them."""
    levels = np.arange(256) / 255.0
    found: dict[str, Any] = {name: [] for name in ("min", "max", "mean", "std", *QUANTILES)}
    for counts in histogram_C256:
        total = max(int(counts.sum()), 1)
        present = np.flatnonzero(counts) if counts.any() else np.zeros(1, np.int64)
        mean = float((counts * levels).sum() / total)
        cumulative = np.cumsum(counts)
        found["min"].append([[float(levels[present[0]])]])
        found["max"].append([[float(levels[present[-1]])]])
        found["mean"].append([[mean]])
        found["std"].append([[float(np.sqrt(max((counts * levels**2).sum() / total - mean**2, 0.0)))]])
        for name, q in QUANTILES.items():
            found[name].append([[float(levels[min(int(np.searchsorted(cumulative, q * total)), 255)])]])
    return found | {"count": [frames]}
