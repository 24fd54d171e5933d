"""How sure a success rate is: intervals for proportions and for their difference. Pure arithmetic.

Sources: Wilson (1927); Clopper and Pearson (1934); Newcombe (1998), Statistics in Medicine 17:873-890, method 10
(hybrid score interval for the difference of two independent proportions).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from model_core.spec.errors import require

CONFIDENCE = 0.95


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided score interval of a proportion; (0, 1) without trials. The project's default for success rates."""
    _check(successes, trials, confidence)
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided exact interval of a proportion (never covers less than promised); (0, 1) without trials."""
    _check(successes, trials, confidence)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _solve(lambda p: 1.0 - _binomial_cdf(successes - 1, trials, p) < tail)
    high = 1.0 if successes == trials else _solve(lambda p: _binomial_cdf(successes, trials, p) > tail)
    return low, high


def difference(successes_a: int, trials_a: int, successes_b: int, trials_b: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Newcombe's interval of rate a minus rate b, independent samples; (-1, 1) when either has no trials."""
    low_a, high_a = wilson(successes_a, trials_a, confidence)
    low_b, high_b = wilson(successes_b, trials_b, confidence)
    if trials_a == 0 or trials_b == 0:
        return -1.0, 1.0
    rate_a, rate_b = successes_a / trials_a, successes_b / trials_b
    gap = rate_a - rate_b
    return gap - math.hypot(rate_a - low_a, high_b - rate_b), gap + math.hypot(high_a - rate_a, rate_b - low_b)


def trials_to_decide(rate_a: float, rate_b: float, margin: float, confidence: float = CONFIDENCE, most: int = 100_000) -> int | None:
    """Trials per side at which equal rates as these would show a not below b by `margin`; None if no number would."""
    if rate_a - rate_b <= -margin:
        return None
    trials = 5
    while trials <= most:
        low, _ = difference(round(rate_a * trials), trials, round(rate_b * trials), trials, confidence)
        if low > -margin:
            return trials
        trials = math.ceil(trials * 1.1)
    return None


def _check(successes: int, trials: int, confidence: float) -> None:
    require(0 <= successes <= trials, "successes must be 0..trials", got=(successes, trials))
    require(0.0 < confidence < 1.0, "confidence must be between 0 and 1", got=confidence)


def _binomial_cdf(most: int, trials: int, p: float) -> float:
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 or most >= trials else 0.0
    log_p, log_q = math.log(p), math.log1p(-p)
    whole = math.lgamma(trials + 1)
    terms = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q) for k in range(most + 1))
    return min(1.0, math.fsum(terms))


def _solve(below: Callable[[float], bool]) -> float:
    """The p in (0, 1) where `below` turns from true to false, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
