"""The anytime-valid test of paired scores: it may be looked at after every pair, and stopped whenever one likes.

Pair t: candidate and champion act once each from one initial state and get scores in [0, 1] (success: 0 or 1; or the share of a task's
stages that were reached); D_t is their difference, in [-1, 1]. A claim "the mean difference is above c" is tested against its opposite,

    H0: E[D_t | the past] <= c for every t,

whatever the tasks, their order, a drift of their difficulty, or the dependence inside a pair. For a bet l in (0, 1/(1 + c)) the wealth

    prod_t (1 + l (D_t - c))

is a nonnegative supermartingale from 1 under H0, and so is E_t, the mean over any fixed mixture of bets. By Ville's inequality E_t ever
reaches 1/alpha with a probability of at most alpha: that is the test, and 1 / max E is a p value at every moment. Superiority is c = 0,
non-inferiority with a margin is c = -margin.

The mixture is uniform over the interval. For binary scores and c = 0 the integral is
2^(n+1) B(W+1, L+1) P(Binomial(n+1, 1/2) >= W+1), n = W + L, of W wins and L losses; its quadrature here (Gauss-Legendre) is exact up to
rounding, and a valid test at any number of nodes, for a weighted mean of supermartingales is one.

Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86:1-27 (arXiv 2010.09686); Shekhar and
Ramdas (2023), Nonparametric two-sample testing by betting (arXiv 2112.09162); Ville (1939).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from model_core.spec.errors import require
from model_core.statistics.binomial import FloatArray
from model_core.statistics.decision import Decision, Outcome

_NODES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class BettingDesign:
    """What is fixed before the first pair.

    margin: 0 claims "better"; above 0 claims "not worse by this much" (a difference of mean scores). alpha: the probability of a wrong
    claim. maximum: of pairs. block: pairs after which one may stop, 1 for every pair.
    """

    margin: float = 0.0
    alpha: float = 0.05
    maximum: int = 300
    block: int = 1

    def __post_init__(self) -> None:
        require(0.0 <= self.margin < 1.0, "margin: expected 0 or more and below 1", got=self.margin)
        require(0.0 < self.alpha < 1.0, "alpha must be between 0 and 1", got=self.alpha)
        require(self.maximum >= 1 and self.block >= 1, "maximum and block must be 1 or more", got=(self.maximum, self.block))


def checked_differences(differences: ArrayLike) -> FloatArray:
    """The differences as an array of shape (pairs,); raises `SpecError` unless each lies in [-1, 1]."""
    found = np.asarray(differences, dtype=np.float64)
    require(found.ndim == 1, "differences of scores: expected one number a pair", got=found.shape)
    require(bool(np.all(np.abs(found) <= 1.0)), "differences of scores must lie in -1..1; give scores in 0..1")
    return found


def log_evidence(differences: ArrayLike, threshold: float = 0.0) -> FloatArray:
    """log E after each pair, for the claim that the mean difference is above `threshold`; shape (..., pairs) as the differences have.

    threshold: in (-1, 1). Of several studies, one a row, all are computed at once.
    """
    require(-1.0 < threshold < 1.0, "threshold must be between -1 and 1", got=threshold)
    bets, log_weights = _bets()
    gains = np.asarray(differences, dtype=np.float64)[..., None] - threshold
    return _log_mean(np.cumsum(np.log1p(bets / (1.0 + threshold) * gains), axis=-2) + log_weights)


def log_evidence_of_counts(wins: ArrayLike, losses: ArrayLike, ties: ArrayLike, threshold: float = 0.0) -> FloatArray:
    """log E of binary pairs after so many wins, losses and ties of the candidate: `log_evidence`, of which only these counts matter.

    The counts have one shape, which the result has too.
    """
    require(-1.0 < threshold < 1.0, "threshold must be between -1 and 1", got=threshold)
    bets, wealth = _bets()
    for count, difference in ((wins, 1.0), (losses, -1.0), (ties, 0.0)):
        gain = np.log1p(bets / (1.0 + threshold) * (difference - threshold))
        wealth = wealth + np.asarray(count, dtype=np.float64)[..., None] * gain
    return _log_mean(wealth)


def _log_mean(wealth: FloatArray) -> FloatArray:
    """log of the sum of exp(wealth) over the last axis, in which the weights of the mixture are."""
    most = wealth.max(axis=-1, keepdims=True)
    return np.log(np.exp(wealth - most).sum(axis=-1)) + most[..., 0]


@lru_cache(maxsize=1)
def _bets() -> tuple[FloatArray, FloatArray]:
    """Bets in (0, 1) and the logarithms of their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1.0) / 2.0, np.log(weights / weights.sum())


def betting_test(differences: ArrayLike, design: BettingDesign) -> Decision:
    """Where the test stands after these pairs, in the order in which they were run; pairs after the decision change nothing.

    REFUTED: the opposite was shown at the same alpha (the candidate is worse, or worse by more than the margin). Raises `SpecError` for
    differences outside -1..1.
    """
    found = checked_differences(differences)[: design.maximum]
    if not len(found):
        return Decision(outcome=Outcome.OPEN, pairs=0, detail="no pair yet")
    claim, opposite = log_evidence(found, -design.margin), log_evidence(-found, design.margin)
    return _decided(claim, opposite, found, design)


def _decided(claim: FloatArray, opposite: FloatArray, found: FloatArray, design: BettingDesign) -> Decision:
    needed = math.log(1.0 / design.alpha)
    looks = looks_of(len(found), design)
    pairs, outcome = len(found), Outcome.OPEN
    for look in looks:
        shown, refuted = claim[look - 1] >= needed, opposite[look - 1] >= needed
        if shown or refuted:
            pairs, outcome = look, Outcome.SHOWN if shown else Outcome.REFUTED
            break
    if outcome is Outcome.OPEN and (len(found) >= design.maximum or not _reachable(found, design, needed)):
        outcome = Outcome.NOT_ENOUGH
    best, worst = (float(evidence[: max(pairs, 1)].max()) for evidence in (claim, opposite))
    return Decision(
        outcome=outcome,
        pairs=pairs,
        p_value=min(1.0, math.exp(-best)),
        refuting=min(1.0, math.exp(-worst)),
        detail=evidence_in_words(best, worst, design.alpha),
    )


def evidence_in_words(best: float, worst: float, alpha: float) -> str:
    """The largest evidence for and against a claim, given as logarithms."""
    supporting, opposing = (math.exp(min(one, 700.0)) for one in (best, worst))
    return f"evidence {supporting:.3g} for and {opposing:.3g} against, {1 / alpha:.3g} decides"


def looks_of(pairs: int, design: BettingDesign) -> Sequence[int]:
    """The numbers of pairs after which the test was looked at: every whole block, and the maximum."""
    looks = list(range(design.block, pairs + 1, design.block))
    return [*looks, design.maximum] if pairs >= design.maximum and design.maximum % design.block else looks


def _reachable(found: FloatArray, design: BettingDesign, needed: float) -> bool:
    """Whether the best, or the worst, possible rest of the pairs would still decide."""
    bets, log_weights = _bets()
    for side, threshold in ((found, -design.margin), (-found, design.margin)):
        gains = bets / (1.0 + threshold)
        wealth = np.log1p(gains * (side[:, None] - threshold)).sum(axis=0)
        rest = (design.maximum - len(found)) * np.log1p(gains * (1.0 - threshold))
        if _log_mean(wealth + rest + log_weights) >= needed:
            return True
    return False
