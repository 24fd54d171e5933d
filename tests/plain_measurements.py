"""What is measured of the rows of one episode, one value after the other: slow, and plain enough to be read beside its meaning."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def plain_numbers(values_TD: Rows) -> dict[str, list[Any]]:
    """As `VectorMeasurements`, dimension by dimension."""
    found: dict[str, list[Any]] = {}
    for column in values_TD.T:
        known = column[np.isfinite(column)]
        filled = np.where(np.isfinite(column), column, np.median(known) if len(known) else 0.0)
        steps = np.diff(filled) if len(filled) > 1 else np.zeros(1)
        different = sorted(set(filled.tolist()))
        back = [min(abs(a), abs(b)) for a, b in pairwise(steps) if a * b < 0]
        one = {
            "missing_D": len(column) - len(known),
            "min_D": min(filled),
            "max_D": max(filled),
            "mean_D": np.mean(filled),
            "std_D": np.std(filled),
            "low_D": np.quantile(filled, 0.02),
            "high_D": np.quantile(filled, 0.98),
            "distinct_D": len(different),
            "step_D": np.median(np.abs(steps)),
            "max_step_D": np.abs(steps).max(),
            "spike_D": max(back, default=0.0),
            "gap_D": min((b - a for a, b in pairwise(different)), default=0.0),
            "at_limit_D": np.mean([value in (min(filled), max(filled)) for value in filled]),
            "is_half_D": all(float(np.float16(value)) == float(np.float32(value)) for value in filled),
            "stuck_D": longest((steps == 0).tolist()),
            "wraps_D": sum(
                int((np.abs(np.abs(steps) - turn) < 0.1 * turn).sum())
                for turn in (2 * np.pi, 360.0)
                if 0.4 * turn <= np.abs(filled).max() <= 1.02 * turn
            ),
        }
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return found


def longest(flags: list[bool]) -> int:
    """The longest run of flags that are set."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def plain_agreement(first_TA: Rows, second_TP: Rows, lag: int) -> Rows:
    """(A, P): cross-correlation of standardised columns at one lag, over the rows that both have; 0 where a column does not move."""
    a, b = (_standard(values) for values in (first_TA, second_TP))
    a, b = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[:lag])
    sizes = np.linalg.norm(a, axis=0)[:, None] * np.linalg.norm(b, axis=0)
    return np.divide(a.T @ b, sizes, out=np.zeros_like(sizes), where=sizes > 1e-12)


def plain_coupling(first_TA: Rows, second_TP: Rows, reach: int = 15) -> tuple[int, float, float, Rows]:
    """(lag, peak, at_zero, peak of each dimension of the first): as `Coupling`, lag by lag."""
    reach = min(reach, len(first_TA) // 4)
    table = {lag: plain_agreement(first_TA, second_TP, lag) for lag in range(-reach, reach + 1)}
    best = {lag: np.abs(found).max(axis=1) for lag, found in table.items()}
    weight = np.max(list(best.values()), axis=0) ** 2
    profile = {lag: float(found @ weight / max(weight.sum(), 1e-12)) for lag, found in best.items()}
    lag = max(profile, key=lambda one: (profile[one], -one))
    near = np.stack([table[one] for one in range(max(-reach, -3), min(reach, 8) + 1)])
    peaks = [near[:, d].ravel()[np.abs(near[:, d]).argmax()] for d in range(first_TA.shape[1])]
    return lag, profile[lag], profile[0], np.array(peaks)


def _standard(values: Rows) -> Rows:
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
