"""The binomial distribution, exactly: probabilities, tails and the bounds of a rate that follow from them."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require

FloatArray = NDArray[np.float64]

_MOST_STEPS = 200


@lru_cache(maxsize=256)
def log_choose(n: int) -> FloatArray:
    """log of the binomial coefficients (n over k), k = 0..n; shape (n + 1,), read-only."""
    logs = np.array([math.lgamma(k + 1.0) for k in range(n + 1)])
    found = logs[n] - logs - logs[::-1]
    found.flags.writeable = False
    return found


def probabilities(n: int, rate: float) -> FloatArray:
    """P(X = k), k = 0..n, of X ~ Binomial(n, rate); shape (n + 1,). Raises `SpecError` for a rate outside 0..1."""
    require(n >= 0 and 0.0 <= rate <= 1.0, "a binomial distribution: expected n >= 0 and a rate of 0..1", got=(n, rate))
    if rate in (0.0, 1.0):
        found = np.zeros(n + 1)
        found[n if rate else 0] = 1.0
        return found
    k = np.arange(n + 1)
    return np.exp(log_choose(n) + k * math.log(rate) + (n - k) * math.log1p(-rate))


def upper_tail(k: int, n: int, rate: float) -> float:
    """P(X >= k) of X ~ Binomial(n, rate), summed from the smaller side."""
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    found = probabilities(n, rate)
    return float(min(1.0, found[k:].sum() if k > n * rate else 1.0 - found[:k].sum()))


@lru_cache(maxsize=65_536)
def lower_bound(successes: int, trials: int, confidence: float) -> float:
    """One-sided exact lower bound of a rate: the rate at which `successes` or more have probability 1 - confidence; 0 without a success.

    Clopper and Pearson (1934), Biometrika 26:404-413. Raises `SpecError` for impossible counts or a confidence outside (0, 1).
    """
    _check(successes, trials, confidence)
    return 0.0 if successes == 0 else _rate_at(successes, trials, 1.0 - confidence)


@lru_cache(maxsize=65_536)
def upper_bound(successes: int, trials: int, confidence: float) -> float:
    """One-sided exact upper bound of a rate: the rate at which `successes` or fewer have probability 1 - confidence; 1 without a failure.

    Clopper and Pearson (1934). Raises `SpecError` for impossible counts or a confidence outside (0, 1).
    """
    _check(successes, trials, confidence)
    return 1.0 if successes == trials else 1.0 - _rate_at(trials - successes, trials, 1.0 - confidence)


def _check(successes: int, trials: int, confidence: float) -> None:
    require(0 <= successes <= trials, "successes must be 0..trials", got=(successes, trials))
    require(0.0 < confidence < 1.0, "confidence must be between 0 and 1", got=confidence)


def _rate_at(k: int, n: int, probability: float) -> float:
    """The rate at which P(X >= k) is `probability`: Newton's steps, kept inside a bracket that shrinks."""
    # d/dp P(X >= k) = k (n over k) p^(k-1) (1-p)^(n-k)
    log_slope = math.log(k) + float(log_choose(n)[k])
    low, high, rate = 0.0, 1.0, min(max(k / (n + 1.0), 1e-12), 1.0 - 1e-12)
    for _ in range(_MOST_STEPS):
        excess = upper_tail(k, n, rate) - probability
        low, high = (low, rate) if excess > 0 else (rate, high)
        slope = math.exp(log_slope + (k - 1) * math.log(rate) + (n - k) * math.log1p(-rate))
        following = rate - excess / slope if slope > 0 else math.nan
        if not low < following < high:
            following = (low + high) / 2.0
        if abs(following - rate) <= 1e-15 or high - low <= 1e-15:
            return following
        rate = following
    return rate
