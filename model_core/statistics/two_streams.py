"""The anytime-valid test of two unpaired streams of trials, stratified by task and site: a candidate beside a champion in a fleet.

Trials come in blocks of one stratum (a task at a site), with scores in [0, 1] of each side. The claim is "the candidate is better" (or,
with the sides exchanged, "worse", which rolls it back), against

    H0: in every stratum the candidate's mean score is at most the champion's, whatever these means are and however they drift,

or, with a margin, "the candidate is not worse by the margin", against H0: it is at most the champion's less the margin.

For a block with m scores y of the candidate and k of the champion, rates p and q of the two sides that one bets on, and the rates a and
b = a + margin of the boundary of H0 that are closest to them (those with the least m KL(p; a) + k KL(q; b)),

    S = prod_y f(y; p, a) prod_y f(y; q, b),   f(y; x, r) = y x/r + (1 - y)(1 - x)/(1 - r)

has a mean of at most 1 under H0 if the scores of a block are independent given the past. For f(.; p, a) has the mean 1 + u s at a true rate
of a + s, and f(.; q, b) the mean 1 + v t at b + t, with u > 0 > v and m u + k v = 0, because a and b are closest; under H0 s <= t, and
(1 + u s)^m (1 + v t)^k <= (1 + u t)^m (1 + v t)^k <= exp(t (m u + k v)) = 1. Without a margin a = b = (m p + k q) / (m + k).

p and q lie e apart on the logit scale, around a guess of the stratum's rate that uses every earlier block, each side the nearer the more
scores it has. So E = a weighted mean over a grid of effects e of the product of S over all blocks of all strata is a nonnegative
supermartingale, and reaches 1/alpha with a probability of at most alpha. One effect is shared by all strata, so that each adds evidence.
With a margin half of the weight lies on e = 0, sides that are equal.

Turner, Ly and Gruenwald (2024), Generic E-variables for exact sequential k-sample tests that allow for optional stopping, JSPI 230
(arXiv 2106.02693) for binary blocks; Turner and Gruenwald (2023), Exact anytime-valid confidence intervals for contingency tables and
beyond, Statistics and Probability Letters 198 (arXiv 2203.09785) for the margin; scores in [0, 1] are covered because f is linear in y.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from model_core.spec.errors import require
from model_core.statistics.betting import evidence_in_words
from model_core.statistics.binomial import FloatArray
from model_core.statistics.decision import Decision, Outcome

_EFFECTS = np.array([0.2, 0.4, 0.7, 1.0, 1.4, 1.9, 2.5, 3.3])
_STEPS, _CLOSE = 100, 1e-13  # of the search for the boundary
_PRIOR = 0.5  # successes and failures that a stratum is taken to have before its first trial


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBlock:
    """Trials of both sides in one stratum that ended together. Scores in [0, 1]; each side has at least one."""

    stratum: str
    candidate: tuple[float, ...]
    champion: tuple[float, ...]

    def __post_init__(self) -> None:
        where = f"a block of stratum {self.stratum!r}"
        require(bool(self.candidate) and bool(self.champion), f"{where}: expected a score of each side")
        scores = (*self.candidate, *self.champion)
        require(all(0.0 <= score <= 1.0 for score in scores), f"{where}: scores must lie in 0..1", got=scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvidence:
    """What the blocks so far say. wealth: log E of each effect, weight included. seen: stratum -> sum of scores, number of scores, of both
    sides. best: the largest log E so far, 0 or more."""

    margin: float
    wealth: FloatArray
    seen: Mapping[str, tuple[float, float]]
    best: float = 0.0

    @property
    def log_e(self) -> float:
        """log E now."""
        most = float(self.wealth.max())
        return most + math.log(float(np.exp(self.wealth - most).sum()))


def no_evidence(margin: float = 0.0, *, seen: Mapping[str, tuple[float, float]] | None = None) -> StreamEvidence:
    """Before the first block. margin: 0 claims "better", above 0 "not worse by this much".

    seen: stratum -> sum and number of earlier scores of the champion, which make the first guesses better and are no evidence. Raises
    `SpecError` for a margin outside 0..1.
    """
    require(0.0 <= margin < 1.0, "margin: expected 0 or more and below 1", got=margin)
    weights = np.full(len(_EFFECTS), 1.0 / len(_EFFECTS))
    wealth = np.log(np.append(weights / 2.0, 0.5) if margin else weights)
    return StreamEvidence(margin=margin, wealth=wealth, seen=dict(seen or {}))


def with_block(evidence: StreamEvidence, block: TrialBlock) -> StreamEvidence:
    """The evidence after one more block."""
    total, trials = evidence.seen.get(block.stratum, (0.0, 0.0))
    guess = (total + _PRIOR) / (trials + 2 * _PRIOR)
    both = (*block.candidate, *block.champion)
    seen = {**evidence.seen, block.stratum: (total + sum(both), trials + len(both))}
    after = replace(evidence, wealth=evidence.wealth + _log_gain(block, guess, evidence.margin), seen=seen)
    return replace(after, best=max(evidence.best, after.log_e))


def stream_evidence(blocks: Iterable[TrialBlock], *, margin: float = 0.0) -> Iterator[float]:
    """log E after each block, for the claim that the candidate is better, or not worse by `margin`; blocks of all strata in the order in
    which they ended."""
    evidence = no_evidence(margin)
    for block in blocks:
        evidence = with_block(evidence, block)
        yield evidence.log_e


def mirrored(block: TrialBlock) -> TrialBlock:
    """The block with the sides exchanged: evidence that the candidate is better becomes evidence that it is worse."""
    return TrialBlock(stratum=block.stratum, candidate=block.champion, champion=block.candidate)


def _log_gain(block: TrialBlock, guess: float, margin: float) -> FloatArray:
    """log S of one block at each effect."""
    logit = math.log(guess / (1.0 - guess))
    m, k = len(block.candidate), len(block.champion)
    effects = np.append(_EFFECTS, 0.0) if margin else _EFFECTS
    p = 1.0 / (1.0 + np.exp(-(logit + effects * k / (m + k))))
    q = 1.0 / (1.0 + np.exp(-(logit - effects * m / (m + k))))
    a = _boundary(p, q, m, k, margin)
    gain = np.zeros(len(effects))
    for scores, bet, rate in ((block.candidate, p, a), (block.champion, q, a + margin)):
        won, lost = bet / rate, (1.0 - bet) / (1.0 - rate)
        if all(score in (0.0, 1.0) for score in scores):
            gain += sum(scores) * np.log(won) + (len(scores) - sum(scores)) * np.log(lost)
        else:
            y = np.asarray(scores)[:, None]
            gain += np.log(y * won + (1.0 - y) * lost).sum(axis=0)
    return gain


def _boundary(p: FloatArray, q: FloatArray, m: int, k: int, margin: float) -> FloatArray:
    """The candidate's rate a on the boundary of H0 with the least m KL(p; a) + k KL(q; a + margin), at each pair of rates."""
    if not margin:
        return (m * p + k * q) / (m + k)
    return np.array([_closest(float(one), float(other), m, k, margin) for one, other in zip(p, q, strict=True)])


def _closest(p: float, q: float, m: int, k: int, margin: float) -> float:
    """Where the slope of a convex function is 0: Newton's method, kept inside a bracket that is halved where a step leaves it."""
    low, high = 0.0, 1.0 - margin
    a = (low + high) / 2.0
    for _ in range(_STEPS):
        b = a + margin
        here, there = a * (1.0 - a), b * (1.0 - b)
        slope = m * (a - p) / here + k * (b - q) / there
        low, high = (low, a) if slope > 0.0 else (a, high)
        bend = m * (here + (p - a) * (1.0 - 2.0 * a)) / here**2 + k * (there + (q - b) * (1.0 - 2.0 * b)) / there**2
        following = a - slope / bend
        following = following if low < following < high else (low + high) / 2.0
        if abs(following - a) < _CLOSE:
            return following
        a = following
    return a


def stream_test(blocks: Iterable[TrialBlock], *, alpha: float = 0.05, maximum: int = 1_000, margin: float = 0.0) -> Decision:
    """Where the test stands after these blocks; `pairs` counts blocks. REFUTED: "worse" was shown at the same alpha.

    maximum: of blocks. margin: 0 claims "better", above 0 "not worse by this much". Raises `SpecError` for an alpha or a margin outside
    their ranges.
    """
    require(0.0 < alpha < 1.0, "alpha must be between 0 and 1", got=alpha)
    found, needed = list(blocks)[:maximum], math.log(1.0 / alpha)
    supporting, opposing = no_evidence(margin), no_evidence()
    used, outcome = len(found), Outcome.NOT_ENOUGH if len(found) >= maximum else Outcome.OPEN
    for number, block in enumerate(found, start=1):
        supporting, opposing = with_block(supporting, block), with_block(opposing, mirrored(block))
        if supporting.best >= needed or opposing.best >= needed:
            used, outcome = number, Outcome.SHOWN if supporting.best >= needed else Outcome.REFUTED
            break
    said = evidence_in_words(supporting.best, opposing.best, alpha)
    return Decision(outcome=outcome, pairs=used, p_value=math.exp(-supporting.best), refuting=math.exp(-opposing.best), detail=said)
