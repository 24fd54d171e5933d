"""Confidence intervals of success rates and of their difference.

Wilson (1927) and Clopper and Pearson (1934) are scipy's; the difference is Newcombe (1998), Statistics in Medicine 17:873-890, method 10
(hybrid score interval for the difference of two independent proportions).
"""

from __future__ import annotations

import math
from typing import Literal

from model_core.spec.errors import require

CONFIDENCE = 0.95


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided score interval of a proportion; (0, 1) without trials. The project's default for success rates."""
    return _proportion(successes, trials, confidence, "wilson")


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided exact interval of a proportion (its coverage is never below `confidence`); (0, 1) without trials."""
    return _proportion(successes, trials, confidence, "exact")


def _proportion(successes: int, trials: int, confidence: float, method: Literal["wilson", "exact"]) -> tuple[float, float]:
    from scipy.stats import binomtest  # it takes half a second to import

    require(0 <= successes <= trials, "successes must be 0..trials", got=(successes, trials))
    require(0.0 < confidence < 1.0, "confidence must be between 0 and 1", got=confidence)
    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(confidence, method)
    return float(interval.low), float(interval.high)


def difference(successes_a: int, trials_a: int, successes_b: int, trials_b: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Newcombe's interval of rate a minus rate b, independent samples; (-1, 1) when either has no trials."""
    low_a, high_a = wilson(successes_a, trials_a, confidence)
    low_b, high_b = wilson(successes_b, trials_b, confidence)
    if trials_a == 0 or trials_b == 0:
        return -1.0, 1.0
    rate_a, rate_b = successes_a / trials_a, successes_b / trials_b
    gap = rate_a - rate_b
    return gap - math.hypot(rate_a - low_a, high_b - rate_b), gap + math.hypot(high_a - rate_a, rate_b - low_b)
