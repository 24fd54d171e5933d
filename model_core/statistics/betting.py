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
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from model_core.spec.errors import require
from model_core.statistics.binomial import FloatArray
from model_core.statistics.decision import Decision, Outcome
from model_core.statistics.intervals import PairCounts

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
    wealth = _bets()[1]
    for count, gain in zip((wins, losses, ties), _binary_gains(threshold), strict=True):
        wealth = wealth + np.asarray(count, dtype=np.float64)[..., None] * gain
    return _log_mean(wealth)


def log_evidence_of_rate(events: int, trials: int, limit: float) -> float:
    """log E after so many events in so many trials, for the claim that their rate is above `limit`: H0 is that each trial has one with a
    probability of at most `limit`, whatever came before.

    The bets are shares b of the largest, 1 / limit: (1 + b (1 - limit) / limit)^events (1 - b)^(trials - events) in the mean over the same
    mixture, so it may be looked at after any trial. A limit of 0 is refuted by one event, one of 1 by none.
    """
    require(
        0 <= events <= trials and 0.0 <= limit <= 1.0, "a rate: expected events 0..trials and a limit of 0..1", got=(events, trials, limit)
    )
    if limit in (0.0, 1.0):
        return math.inf if limit == 0.0 and events else 0.0
    bets, log_weights = _bets()
    wealth = events * np.log1p(bets * (1.0 - limit) / limit) + (trials - events) * np.log1p(-bets)
    return float(_log_mean(wealth + log_weights))


@lru_cache(maxsize=64)
def _binary_gains(threshold: float) -> tuple[FloatArray, ...]:
    """What a win, a loss and a tie add to the logarithm of each bet's wealth."""
    bets = _bets()[0] / (1.0 + threshold)
    return tuple(np.log1p(bets * (difference - threshold)) for difference in (1.0, -1.0, 0.0))


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
        return _open(0)
    looks = looks_of(len(found), design)
    sides = ((found, -design.margin), (-found, design.margin))
    claim, opposite = (log_evidence(side, threshold) for side, threshold in sides)
    at = np.array(looks, dtype=np.int64) - 1
    decision = _decided(claim[at], opposite[at], looks, design) if looks else _open(len(found))
    if decision.is_final:
        return decision
    bets, log_weights = _bets()
    rest = design.maximum - len(found)
    for side, threshold in sides:
        gains = bets / (1.0 + threshold)
        wealth = np.log1p(gains * (side[:, None] - threshold)).sum(axis=0) + rest * np.log1p(gains * (1.0 - threshold))
        if rest and _log_mean(wealth + log_weights) >= math.log(1.0 / design.alpha):
            return decision
    return replace(decision, outcome=Outcome.NOT_ENOUGH)


def betting_test_of_counts(looks: Sequence[PairCounts], design: BettingDesign) -> Decision:
    """`betting_test` of binary pairs, looked at when there were so many of each kind; `design.block` does not matter.

    looks: every count is of all pairs so far, so they rise.
    """
    if not looks:
        return _open(0)
    wins, losses, ties = (
        np.array(one, dtype=np.float64) for one in zip(*((c.wins, c.losses, c.both + c.neither) for c in looks), strict=True)
    )
    sides = ((wins, losses, -design.margin), (losses, wins, design.margin))
    claim, opposite = (log_evidence_of_counts(up, down, ties, threshold) for up, down, threshold in sides)
    decision = _decided(claim, opposite, [one.pairs for one in looks], design)
    if decision.is_final:
        return decision
    rest, needed = design.maximum - looks[-1].pairs, math.log(1.0 / design.alpha)
    can_decide = rest > 0 and any(
        float(log_evidence_of_counts(up[-1] + rest, down[-1], ties[-1], threshold)) >= needed for up, down, threshold in sides
    )
    return decision if can_decide else replace(decision, outcome=Outcome.NOT_ENOUGH)


def _open(pairs: int) -> Decision:
    return Decision(outcome=Outcome.OPEN, pairs=pairs, detail="no look yet")


def _decided(claim: FloatArray, opposite: FloatArray, looks: Sequence[int], design: BettingDesign) -> Decision:
    """The first look at which one of both is enough; OPEN where none is. claim, opposite: log E at the looks."""
    needed = math.log(1.0 / design.alpha)
    over = (claim >= needed) | (opposite >= needed)
    last = int(over.argmax()) if over.any() else len(looks) - 1
    outcome = Outcome.OPEN if not over.any() else Outcome.SHOWN if claim[last] >= needed else Outcome.REFUTED
    best, worst = (float(evidence[: last + 1].max()) for evidence in (claim, opposite))
    return Decision(
        outcome=outcome,
        pairs=looks[last],
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
