"""The group-sequential test of paired scores: looks that are planned before, exact at each of them.

The claim is "the candidate is better". Under its opposite with equality, candidate and champion may be exchanged in every pair, so that,
given how far apart the scores of each pair are, their signs are fair coins; of binary scores this is H0: equal success rates, and one look
is McNemar's exact test. The distribution of the sum of differences, and of having stopped at an earlier look, follows by convolution.
At look k, with t_k = pairs so far / maximum, the boundary is the smallest sum at which

    P(stopped at or before look k) <= alpha t_k^shape    or    alpha (1 - exp(-shape t_k)) / (1 - exp(-shape))

(Lan and DeMets (1983), Biometrika 70:659-663, with the spending functions of Kim and DeMets (1987), Biometrika 74:149-154, or of Hwang,
Shih and DeCani (1990), Statistics in Medicine 9:1439-1445). What a look cannot spend, because sums are discrete, the next one can. Scores
in stages are weighed by their difference: then the test is one of exchangeability, and of a mean of zero only as the number of pairs grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_core.spec.errors import require
from model_core.statistics.betting import checked_differences
from model_core.statistics.binomial import FloatArray, probabilities
from model_core.statistics.decision import Decision, Outcome

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSequentialDesign:
    """What is fixed before the first pair.

    looks: numbers of pairs, rising; the last is the maximum. alpha: the probability of a wrong claim. shape: of the spending function; of
    "power" 1 spends evenly, 0.5 more early and 3 keeps most for the end; of "gamma" (Hwang, Shih and DeCani) a greater one spends more
    early. steps: scores are multiples of 1 / steps (1: success or not).
    """

    looks: tuple[int, ...]
    alpha: float = 0.05
    shape: float = 1.0
    steps: int = 1
    spending: Literal["power", "gamma"] = "power"

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.looks, self.looks[1:], strict=False))
        require(bool(self.looks) and self.looks[0] > 0 and rising, "looks: expected rising numbers of pairs", got=self.looks)
        require(0.0 < self.alpha < 1.0, "alpha must be between 0 and 1", got=self.alpha)
        require(self.shape > 0 and self.steps >= 1, "shape must be above 0 and steps 1 or more", got=(self.shape, self.steps))

    @property
    def maximum(self) -> int:
        """Of pairs."""
        return self.looks[-1]

    def spendable(self, pairs: int) -> float:
        """Of alpha, up to and with a look after so many pairs."""
        share = pairs / self.maximum
        if self.spending == "power":
            return self.alpha * share**self.shape
        return self.alpha * (math.expm1(-self.shape * share) / math.expm1(-self.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look. total: the sum of differences, in steps; boundary: from which on the claim is shown (None: no sum could be enough).

    Its negative refutes: the distribution is symmetric. spent: of alpha, up to and with this look.
    """

    pairs: int
    total: int
    boundary: int | None
    spent: float


def looks(differences: ArrayLike, design: GroupSequentialDesign) -> Iterator[Look]:
    """Every look that these pairs have reached, in order, as if none had stopped the study.

    Raises `SpecError` for differences outside -1..1 or that are no multiples of 1 / steps.
    """
    scaled = _in_steps(differences, design.steps)
    inside, spent, before = np.ones(1), 0.0, 0  # P(sum = index - reach, not stopped yet)
    for pairs in design.looks:
        if pairs > len(scaled):
            return
        inside = _convolved(inside, np.abs(scaled[before:pairs]))
        before = pairs
        allowed = design.spendable(pairs) - spent
        tails = np.cumsum(inside[::-1])[::-1]  # P(sum >= value, not stopped yet)
        first = int(np.searchsorted(-tails, -allowed - 1e-15))
        reach = (len(inside) - 1) // 2
        boundary = first - reach if first < len(inside) else None
        if boundary is not None:
            spent += float(tails[first])
            inside[first:] = 0.0
        yield Look(pairs=pairs, total=int(scaled[:pairs].sum()), boundary=boundary, spent=spent)


def group_sequential_test(differences: ArrayLike, design: GroupSequentialDesign) -> Decision:
    """Where the test stands after these pairs, in the order in which they were run; pairs after the decision change nothing.

    REFUTED: the same test of "the champion is better" stopped first. Raises `SpecError` as `looks` does.
    """
    found = checked_differences(differences)
    if not len(found):
        return Decision(outcome=Outcome.OPEN, pairs=0, detail="no pair yet")
    said = f"no look yet, the first after {design.looks[0]} pairs"
    for look in looks(found, design):
        enough = "no sum" if look.boundary is None else f"{look.boundary / design.steps:.3g}"
        said = f"sum {look.total / design.steps:+.3g} after {look.pairs} pairs, {enough} decides"
        if look.boundary is not None and abs(look.total) >= look.boundary:
            if look.total > 0:
                return Decision(outcome=Outcome.SHOWN, pairs=look.pairs, p_value=look.spent, detail=said)
            return Decision(outcome=Outcome.REFUTED, pairs=look.pairs, refuting=look.spent, detail=said)
    done = len(found) >= design.maximum
    return Decision(outcome=Outcome.NOT_ENOUGH if done else Outcome.OPEN, pairs=min(len(found), design.maximum), detail=said)


def _in_steps(differences: ArrayLike, steps: int) -> NDArray[np.int64]:
    found = checked_differences(differences) * steps
    scaled = np.rint(found).astype(np.int64)
    require(
        bool(np.all(np.abs(found - scaled) < _TOLERANCE)),
        f"differences of scores must be multiples of 1/{steps}. Fix: set steps to the number of stages of the task",
    )
    return scaled


def _convolved(inside: FloatArray, sizes: NDArray[np.int64]) -> FloatArray:
    """The distribution after further pairs, each of which adds its size or takes it away."""
    for size in np.unique(sizes[sizes > 0]):
        count = int(np.sum(sizes == size))
        kernel = np.zeros(2 * count * size + 1)
        kernel[:: 2 * size] = probabilities(count, 0.5)
        inside = np.convolve(inside, kernel)
    return inside
