"""How far two drawn ways are apart, whatever points each was drawn by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.tokenization.trace import resampled

_POINTS = 17  # of each way, at equal distances along it


def between_ways(one_N2: NDArray[np.float64], other_M2: NDArray[np.float64]) -> float:
    """The discrete Frechet distance in pixels: the shortest leash of two that walk the ways from begin to end without going back.

    Source: Eiter and Mannila, Computing Discrete Frechet Distance (1994), whose distance of sampled curves is at most the larger step
    above that of the curves.
    """
    one_P2, other_P2 = resampled(one_N2, _POINTS), resampled(other_M2, _POINTS)
    apart_PP = np.linalg.norm(one_P2[:, None] - other_P2[None, :], axis=2)
    leash = np.maximum.accumulate(apart_PP[0])
    for row_P in apart_PP[1:]:
        before, leash = leash, np.empty(_POINTS)
        leash[0] = max(before[0], row_P[0])
        for at in range(1, _POINTS):
            leash[at] = max(row_P[at], min(before[at - 1], before[at], leash[at - 1]))
    return float(leash[-1])
