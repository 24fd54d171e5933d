"""Points of a curve, as both readers find them: each step once, and so many that a picture holds them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from components.adapters.mlflow.reading.records import Curve

_LARGEST = 1e308  # MLflow writes infinity as the largest number, and what is no number as a mark beside 0


def curve_of(name: str, points: Iterable[tuple[int, float]], most: int) -> Curve:
    """A curve of these points (step, value), which are in the order in which they were recorded; every n-th, and the last."""
    found = sorted(dict(points).items())
    every = max(1, math.ceil(len(found) / most))
    kept = found[::every] + ([found[-1]] if found and (len(found) - 1) % every else [])
    return Curve(name=name, steps=tuple(step for step, _ in kept), values=tuple(_number(value) for _, value in kept))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) and abs(value) < _LARGEST else None
