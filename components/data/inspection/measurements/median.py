"""The median without numpy's masked arrays: `numpy.median` loads them, which takes longer than most rules do on a small set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def median(values: ArrayLike, axis: int = 0) -> Any:
    """What `numpy.median` gives along `axis`, in double precision; no number where one value is none, or where there is no value."""
    in_order = np.sort(np.asarray(values, np.float64), axis=axis)
    count = in_order.shape[axis]
    if not count:
        return np.full(np.delete(in_order.shape, axis), np.nan)[()]
    both = np.take(in_order, ((count - 1) // 2, count // 2), axis=axis)
    last = np.take(in_order, -1, axis=axis)  # what is no number is sorted behind all numbers
    return np.where(np.isnan(last), np.nan, np.mean(both, axis=axis))[()]
