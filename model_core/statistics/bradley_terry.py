"""Strengths of several players from comparisons of two at a time, and the Elo ratings of these strengths.

    P(i beats j) = 1 / (1 + exp(s_j - s_i))                       Bradley and Terry (1952), Biometrika 39:324-345
    rating_i     = 1000 + 400 / ln(10) (s_i - mean of all s)      Elo's scale: 400 points are odds of 10 to 1

A tie is half a win of both. The strengths are those of maximum likelihood. It has a finite maximum if and only if every player beat every
other, at least through third ones (Ford 1957, American Mathematical Monthly 64(8):28-33); the likelihood is concave, and damped Newton
steps reach its maximum from anywhere (Sun and Tran-Dinh 2019, Mathematical Programming 178:145-213: the logistic loss is generalized
self-concordant with nu = 2).

Comparisons of several players in one case depend on each other. Intervals therefore resample whole cases, inside each stratum (task):
percentiles of the stratified bootstrap (Efron and Tibshirani 1993, chapters 8 and 13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from model_core.spec.errors import require
from model_core.statistics.binomial import FloatArray

MEAN_RATING = 1000.0
_POINTS = 400.0 / math.log(10.0)
_MOST_STEPS = 500
_PRECISION = 1e-11


@dataclass(frozen=True, slots=True, kw_only=True)
class Strengths:
    """Log strengths with mean 0 and their intervals, one a player: arrays of shape (players,).

    added_ties: of each pair that met, in the estimate and in every resample: 0, or 1 where a likelihood without them has no finite maximum.
    """

    log_strengths: FloatArray
    low: FloatArray
    high: FloatArray
    added_ties: float


def outcomes_of_scores(scores: ArrayLike) -> FloatArray:
    """Who beat whom in each case: 1 for the higher score, 0.5 for equal ones, 0 for the lower one and where either is NaN (no trial).

    scores: shape (cases, players). Returns shape (cases, players, players), entry [c, i, j] being i's part against j; 0 on the diagonal.
    Raises `SpecError` for another shape.
    """
    found = np.asarray(scores, dtype=np.float64)
    require(found.ndim == 2, "scores: expected one row a case and one column a player", got=found.shape)
    mine, theirs = found[:, :, None], found[:, None, :]
    parts = np.where(mine > theirs, 1.0, np.where(mine == theirs, 0.5, 0.0))  # comparisons with NaN are false
    parts[:, np.arange(found.shape[1]), np.arange(found.shape[1])] = 0.0
    return parts


def log_strengths(wins: ArrayLike) -> FloatArray:
    """The log strengths of maximum likelihood, with mean 0.

    wins: shape (..., players, players), entry [i, j] being how often i beat j, ties as a half; the diagonal is ignored. Returns shape
    (..., players). Raises `SpecError` for negative or too few entries, for players that are not connected by comparisons, and where the
    maximum is not finite because some players never lost to the others.
    """
    counts = _checked(wins)
    names = _unconnected(counts)
    require(not names, f"players {names} were never compared with player 0, not even through others. Fix: compare them in common cases")
    require(bool(np.all(has_finite_maximum(counts))), "some players never lost to the others, so their strength has no finite estimate")
    return _maximum(counts)


def has_finite_maximum(wins: ArrayLike) -> np.ndarray:
    """Whether every player beat every other, directly or through third ones: shape (...) of `wins` (..., players, players)."""
    counts = _checked(wins)
    players = counts.shape[-1]
    reached = (counts > 0) | np.eye(players, dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(players)))):
        reached = np.matmul(reached.astype(np.float64), reached.astype(np.float64)) > 0
    return np.all(reached, axis=(-2, -1))


def strengths_with_intervals(
    outcomes: ArrayLike, strata: Sequence[str], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Strengths:
    """Log strengths from the outcomes of cases, with percentile intervals of a bootstrap over cases inside each stratum.

    outcomes: shape (cases, players, players) as `outcomes_of_scores` gives. strata: of each case, its task. Where some player never lost in
    the data or in a resample, one tie of each pair that met is added everywhere, which `added_ties` says. Raises `SpecError` for players
    that are not connected, and for other shapes.
    """
    parts = np.asarray(outcomes, dtype=np.float64)
    require(parts.ndim == 3 and parts.shape[0] == len(strata) > 0, "outcomes: expected one matrix a case", got=(parts.shape, len(strata)))
    require(0.0 < confidence < 1.0 and resamples >= 100, "expected a confidence of 0 to 1 and 100 resamples", got=(confidence, resamples))
    total = _checked(parts.sum(axis=0))
    names = _unconnected(total)
    require(not names, f"players {names} were never compared with player 0, not even through others. Fix: compare them in common cases")
    weights = _weights(strata, resamples, np.random.default_rng(seed))
    sums = (weights @ parts.reshape(len(strata), -1)).reshape(resamples, *total.shape)
    added = 0.0 if bool(has_finite_maximum(total)) and bool(np.all(has_finite_maximum(sums))) else 1.0
    prior = added / 2.0 * ((total + total.T) > 0)
    low, high = np.quantile(_maximum(sums + prior), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Strengths(log_strengths=_maximum(total + prior), low=low, high=high, added_ties=added)


def elo_ratings(strengths: ArrayLike) -> FloatArray:
    """Log strengths with mean 0, or bounds of them, on Elo's scale with mean 1000."""
    return MEAN_RATING + _POINTS * np.asarray(strengths, dtype=np.float64)


def _checked(wins: ArrayLike) -> FloatArray:
    counts = np.array(wins, dtype=np.float64)
    require(
        counts.ndim >= 2 and counts.shape[-1] == counts.shape[-2] >= 2,
        "wins: expected a square matrix of two players or more",
        got=counts.shape,
    )
    require(bool(np.all(counts >= 0)), "wins must be 0 or more")
    counts[..., np.arange(counts.shape[-1]), np.arange(counts.shape[-1])] = 0.0
    return counts


def _unconnected(counts: FloatArray) -> list[int]:
    """The players that no chain of comparisons joins with player 0, in any of the matrices."""
    players = counts.shape[-1]
    joined = ((counts + counts.swapaxes(-1, -2)) > 0) | np.eye(players, dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(players)))):
        joined = np.matmul(joined.astype(np.float64), joined.astype(np.float64)) > 0
    return np.flatnonzero(~np.all(joined[..., 0, :].reshape(-1, players), axis=0)).tolist()


def _weights(strata: Sequence[str], resamples: int, rng: np.random.Generator) -> FloatArray:
    """How often each case is drawn in each resample: shape (resamples, cases); every stratum keeps its number of cases."""
    found, names = np.zeros((resamples, len(strata))), np.asarray(strata)
    for name in sorted(set(strata)):
        places = np.flatnonzero(names == name)
        found[:, places] = rng.multinomial(len(places), np.full(len(places), 1.0 / len(places)), size=resamples)
    return found


def _maximum(counts: FloatArray) -> FloatArray:
    """Damped Newton steps from equal strengths, shape (..., players). Minus the Hessian is a graph Laplacian, singular along ones."""
    met = counts + counts.swapaxes(-1, -2)
    players = counts.shape[-1]
    strengths = np.zeros(counts.shape[:-1])
    for _ in range(_MOST_STEPS):
        chances = 0.5 * (1.0 + np.tanh((strengths[..., :, None] - strengths[..., None, :]) / 2.0))
        gradient = counts.sum(axis=-1) - (met * chances).sum(axis=-1)
        curvature = met * chances * (1.0 - chances)
        scale = curvature.sum(axis=-1)
        hessian = -curvature
        hessian[..., np.arange(players), np.arange(players)] = scale
        hessian += (scale.mean(axis=-1) / players)[..., None, None]  # invertible; the step keeps the sum 0 of the gradient
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        reach = step.max(axis=-1) - step.min(axis=-1)
        if bool(np.all(reach < _PRECISION)):
            return strengths - strengths.mean(axis=-1, keepdims=True)
        damping = np.where(reach > 1e-8, np.log1p(reach) / np.maximum(reach, 1e-8), 1.0)
        strengths = strengths + damping[..., None] * step
    require(False, f"the strengths did not settle in {_MOST_STEPS} Newton steps. Fix: leave out players with a handful of comparisons")
    return strengths
