"""The anytime-valid test of two unpaired streams of trials, stratified by task and site: a candidate beside a champion in a fleet.

Trials come in blocks of one stratum (a task at a site), with scores in [0, 1] of each side. The claim is "the candidate is better" (or,
with the sides exchanged, "worse", which rolls it back), against

    H0: in every stratum the candidate's mean score is at most the champion's, whatever these means are and however they drift.

For a block with m scores y of the candidate and k of the champion, an effect e > 0 on the logit scale and a guess g of the stratum's rate,

    p = expit(logit g + e/2),  q = expit(logit g - e/2),  r = (m p + k q) / (m + k),
    S(e) = prod_y f(y; p) prod_y f(y; q),   f(y; x) = y x/r + (1 - y)(1 - x)/(1 - r)

has a mean of at most 1 under H0 if the scores of a block are independent given the past: f(.; p) rises and f(.; q) falls with the score, so
equal means are the worst case, and there the mean (1 + z c_p)^m (1 + z c_q)^k, with m c_p + k c_q = 0, is largest, 1, at z = 0. The guess g
may use every earlier block. So E = the mean over a grid of effects of the product of S(e) over all blocks of all strata is a nonnegative
supermartingale, and reaches 1/alpha with a probability of at most alpha. One effect is shared by all strata, so that each adds evidence.

Turner, Ly and Gruenwald (2024), Generic E-variables for exact sequential k-sample tests that allow for optional stopping, JSPI 230
(arXiv 2106.02693) for binary blocks; scores in [0, 1] are covered because f is linear in y.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from model_core.spec.errors import require
from model_core.statistics.betting import evidence_in_words
from model_core.statistics.binomial import FloatArray
from model_core.statistics.decision import Decision, Outcome

_EFFECTS = np.array([0.2, 0.4, 0.7, 1.0, 1.4, 1.9, 2.5, 3.3])
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


def stream_evidence(blocks: Iterable[TrialBlock]) -> Iterator[float]:
    """log E after each block, for the claim that the candidate is better; blocks of all strata in the order in which they ended."""
    wealth = np.full(len(_EFFECTS), -math.log(len(_EFFECTS)))
    seen: dict[str, tuple[float, float]] = {}  # stratum -> sum of scores, number of scores, of both sides
    for block in blocks:
        total, trials = seen.get(block.stratum, (0.0, 0.0))
        guess = (total + _PRIOR) / (trials + 2 * _PRIOR)
        wealth = wealth + _log_gain(block, guess)
        both = (*block.candidate, *block.champion)
        seen[block.stratum] = (total + sum(both), trials + len(both))
        most = float(wealth.max())
        yield most + math.log(float(np.exp(wealth - most).sum()))


def _log_gain(block: TrialBlock, guess: float) -> FloatArray:
    """log S of one block at each effect."""
    logit = math.log(guess / (1.0 - guess))
    p, q = (1.0 / (1.0 + np.exp(-(logit + side * _EFFECTS / 2.0))) for side in (1.0, -1.0))
    m, k = len(block.candidate), len(block.champion)
    r = (m * p + k * q) / (m + k)
    gain = np.zeros(len(_EFFECTS))
    for scores, x in ((block.candidate, p), (block.champion, q)):
        for y in scores:
            gain += np.log(y * x / r + (1.0 - y) * (1.0 - x) / (1.0 - r))
    return gain


def stream_test(blocks: Iterable[TrialBlock], *, alpha: float = 0.05, maximum: int = 1_000) -> Decision:
    """Where the test stands after these blocks; `pairs` counts blocks. REFUTED: the opposite, "worse", was shown at the same alpha.

    maximum: of blocks. Raises `SpecError` for an alpha outside (0, 1).
    """
    require(0.0 < alpha < 1.0, "alpha must be between 0 and 1", got=alpha)
    found, needed = list(blocks)[:maximum], math.log(1.0 / alpha)
    mirrored = (TrialBlock(stratum=b.stratum, candidate=b.champion, champion=b.candidate) for b in found)
    best = worst = 0.0
    used, outcome = len(found), Outcome.NOT_ENOUGH if len(found) >= maximum else Outcome.OPEN
    for number, (better, worse) in enumerate(zip(stream_evidence(found), stream_evidence(mirrored), strict=True), start=1):
        best, worst = max(best, better), max(worst, worse)
        if better >= needed or worse >= needed:
            used, outcome = number, Outcome.SHOWN if better >= needed else Outcome.REFUTED
            break
    said = evidence_in_words(best, worst, alpha)
    return Decision(outcome=outcome, pairs=used, p_value=math.exp(-best), refuting=math.exp(-worst), detail=said)
