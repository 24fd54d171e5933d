"""Detecting that a mean has risen, in a stream that is watched for as long as one likes, at a stated probability of any false alarm.

Watched are values x_1, x_2, ... in [0, 1] (a failure: 0 or 1; the rank of a distance among those of a quiet time). Quiet means that
E[x_t | the past] <= m for every t, whatever else changes. For a bet l in (0, 1/m) and a change at time j the wealth

    prod_{t >= j} (1 + l (x_t - m))

is a nonnegative supermartingale from 1 while all is quiet. The Shiryaev-Roberts e-detector adds them up over every time at which a change
may have begun,

    M_t = (M_{t-1} + 1) (1 + l (x_t - m)),  M_0 = 0,

and is averaged here over a fixed mixture of bets. M_t - t is a supermartingale, so for any stopping time T <= N: E[M_T] <= N, by Markov's
inequality M reaches N / alpha within N values with a probability of at most alpha. That bound needs no model of the values, only the mean.

m has to be known; where it is estimated from a quiet time, an upper bound of it takes its own share of alpha.

Shin, Ramdas and Rinaldo (2022), E-detectors: a nonparametric framework for sequential change detection (arXiv 2203.03532); Waudby-Smith and
Ramdas (2024), JRSS B 86:1-27; Roberts (1966), Technometrics 8:411-430.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from model_core.spec.errors import require
from model_core.statistics.binomial import FloatArray

_BETS = np.array([0.05, 0.1, 0.2, 0.4, 0.7])  # as shares of the largest, 1 / m


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDesign:
    """What is fixed before the first value.

    quiet_mean: the largest mean that is called quiet. alpha: the probability of any alarm in `horizon` quiet values.
    """

    quiet_mean: float
    alpha: float
    horizon: int

    def __post_init__(self) -> None:
        require(0.0 < self.quiet_mean < 1.0, "quiet_mean must be between 0 and 1", got=self.quiet_mean)
        require(0.0 < self.alpha < 1.0, "alpha must be between 0 and 1", got=self.alpha)
        require(self.horizon >= 1, "horizon must be 1 or more", got=self.horizon)

    @property
    def log_threshold(self) -> float:
        """log(horizon / alpha): an alarm from there on."""
        return math.log(self.horizon / self.alpha)


def log_detector(values: ArrayLike, quiet_mean: float) -> FloatArray:
    """log M after each value, shape (..., values) as the values have. Raises `SpecError` for values outside 0..1."""
    found = np.asarray(values, dtype=np.float64)
    require(bool(np.all((found >= 0.0) & (found <= 1.0))), "watched values must lie in 0..1")
    gains = np.log1p(_BETS / quiet_mean * (found[..., None] - quiet_mean))
    reached = np.full(found.shape, -np.inf)
    held = np.full((*found.shape[:-1], len(_BETS)), -np.inf)
    for t in range(found.shape[-1]):
        held = np.logaddexp(held, 0.0) + gains[..., t, :]
        reached[..., t] = np.logaddexp.reduce(held, axis=-1) - math.log(len(_BETS))
    return reached


def first_alarm(values: ArrayLike, design: ChangeDesign) -> int | None:
    """The number (from 0) of the value at which the alarm is raised; None while all is quiet. values: shape (values,)."""
    over = np.flatnonzero(log_detector(values, design.quiet_mean) >= design.log_threshold)
    return int(over[0]) if len(over) else None


def began_at(values: ArrayLike, quiet_mean: float, alarm: int) -> int:
    """Where the change that was noticed at `alarm` most likely began: the start with the largest wealth of the best bet."""
    found = np.asarray(values, dtype=np.float64)[: alarm + 1]
    gains = np.log1p(_BETS / quiet_mean * (found[:, None] - quiet_mean))
    from_each = np.cumsum(gains[::-1], axis=0)[::-1]  # the wealth of a change at j, by bet
    return int(np.unravel_index(int(np.argmax(from_each)), from_each.shape)[0])
