"""What a design can be expected to do, before the first trial: by simulating studies of binary pairs.

A pair's successes are Bernoulli with the given rates and correlation (of the two indicators, as far as the rates permit one). Every number
comes with the number of studies that it is the mean of: a share of n studies is known to about sqrt(p (1 - p) / n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import require
from model_core.statistics.betting import BettingDesign, log_evidence_of_counts, looks_of
from model_core.statistics.group_sequential import GroupSequentialDesign

POWER = 0.8
STUDIES = 1_000
_STEP = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What happens when champion and candidate have these success rates. shown, refuted, not_enough: shares of the simulated studies.

    mean_pairs, most_pairs: until the study ends.
    """

    champion: float
    candidate: float
    correlation: float
    shown: float
    refuted: float
    not_enough: float
    mean_pairs: float
    most_pairs: int
    studies: int


def largest_correlation(first: float, second: float) -> float:
    """The largest correlation that two success indicators with these rates can have; 0 where one of them is certain."""
    spread = math.sqrt(first * (1 - first) * second * (1 - second))
    return (min(first, second) - first * second) / spread if spread else 0.0


def paired_outcomes(
    candidate: float, champion: float, correlation: float, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.int8]:
    """Differences of success, candidate minus champion, of independent pairs; of the largest possible correlation where less is possible.

    Raises `SpecError` for rates outside 0..1 or a correlation below 0 or above 1.
    """
    require(all(0.0 <= rate <= 1.0 for rate in (candidate, champion)), "success rates must be 0..1", got=(candidate, champion))
    require(0.0 <= correlation <= 1.0, "correlation of a pair: expected 0..1", got=correlation)
    spread = math.sqrt(champion * (1 - champion) * candidate * (1 - candidate))
    both = candidate * champion + min(correlation, largest_correlation(candidate, champion)) * spread
    draws = rng.random(shape, dtype=np.float32)
    wins, losses = candidate - both, champion - both
    return (draws < wins).astype(np.int8) - ((draws >= wins) & (draws < wins + losses)).astype(np.int8)


def stopping(differences: NDArray[np.int8], design: BettingDesign) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """The betting test of many studies of binary pairs: outcome (1 shown, -1 refuted, 0 not enough) and pairs used, each (studies,).

    differences: -1, 0 or 1, shape (studies, maximum).
    """
    looks = np.array(looks_of(differences.shape[1], design), dtype=np.int64)
    wins, losses = (np.cumsum(differences == side, axis=1)[:, looks - 1] for side in (1, -1))
    ties, needed = looks - wins - losses, math.log(1.0 / design.alpha)
    sides = ((wins, losses, -design.margin), (losses, wins, design.margin))
    over = np.stack([log_evidence_of_counts(up, down, ties, threshold) >= needed for up, down, threshold in sides])
    first = np.where(over.any(axis=2), over.argmax(axis=2), len(looks))
    outcome = np.where(first[0] < first[1], 1, np.where(first[1] < first[0], -1, 0)).astype(np.int8)
    return outcome, np.append(looks, design.maximum)[first.min(axis=0)]


def group_stopping(differences: NDArray[np.int8], design: GroupSequentialDesign) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """The group-sequential test of many studies of binary pairs; as `stopping`.

    Every study has a distribution of its own, since the test is conditional on which of its pairs differ. (studies, sums) are held at once.
    """
    studies, most = differences.shape[0], design.maximum
    outcome, pairs = np.zeros(studies, np.int8), np.full(studies, most, dtype=np.int64)
    open_S, spent_S, looks = np.arange(studies), np.zeros(studies), frozenset(design.looks)
    inside = np.zeros((studies, 2 * most + 1))  # P(sum = index - most, not stopped yet)
    inside[:, most] = 1.0
    for number in range(1, most + 1):
        sums = slice(most - number, most + number + 1)
        differ = np.flatnonzero(differences[open_S, number - 1])
        moved = inside[differ, sums] / 2.0
        inside[differ, sums] = np.pad(moved[:, :-1], ((0, 0), (1, 0))) + np.pad(moved[:, 1:], ((0, 0), (0, 1)))
        if number not in looks:
            continue
        tails = np.cumsum(inside[:, sums][:, ::-1], axis=1)  # P(sum >= number - index, not stopped yet)
        enough = (tails <= (design.spendable(number) - spent_S)[:, None] + 1e-15).sum(axis=1)  # how many sums, from the largest on, decide
        spent_S += np.where(enough > 0, np.take_along_axis(tails, np.maximum(enough - 1, 0)[:, None], axis=1)[:, 0], 0.0)
        boundary = np.where(enough > 0, number + 1 - enough, number + 1)
        inside[:, sums][np.arange(-number, number + 1) >= boundary[:, None]] = 0.0
        total = differences[open_S, :number].sum(axis=1, dtype=np.int64)
        ended = np.abs(total) >= boundary
        outcome[open_S[ended]], pairs[open_S[ended]] = np.sign(total[ended]), number
        open_S, spent_S, inside = open_S[~ended], spent_S[~ended], inside[~ended]
    return outcome, pairs


def outcomes_of_studies(
    differences: NDArray[np.int8], design: BettingDesign | GroupSequentialDesign
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """`stopping` or `group_stopping`, as the design is, of any number of studies: in parts that fit into memory."""
    parts = np.array_split(differences, max(1, differences.size // 200_000))
    done = [stopping(part, design) if isinstance(design, BettingDesign) else group_stopping(part, design) for part in parts]
    return np.concatenate([outcome for outcome, _ in done]), np.concatenate([pairs for _, pairs in done])


def expected(
    design: BettingDesign | GroupSequentialDesign,
    champion: float,
    candidate: float,
    *,
    correlation: float = 0.0,
    studies: int = STUDIES,
    seed: int = 0,
) -> Expectation:
    """Simulate studies of this design at these success rates. Raises `SpecError` for rates or a correlation outside 0..1."""
    found = paired_outcomes(candidate, champion, correlation, (studies, design.maximum), np.random.default_rng(seed))
    outcome, pairs = outcomes_of_studies(found, design)
    shares = [float(np.mean(outcome == value)) for value in (1, -1, 0)]
    return Expectation(
        champion=champion,
        candidate=candidate,
        correlation=correlation,
        shown=shares[0],
        refuted=shares[1],
        not_enough=shares[2],
        mean_pairs=float(pairs.mean()),
        most_pairs=int(pairs.max()),
        studies=studies,
    )


def minimum_detectable(
    design: BettingDesign | GroupSequentialDesign,
    champion: float,
    *,
    correlation: float = 0.0,
    power: float = POWER,
    studies: int = STUDIES,
) -> float | None:
    """The smallest true difference (of rates, to 0.01) that the design shows with this probability; None where none up to a rate of 1 is.

    Of a design with a margin it may be negative: a candidate that is worse by less than the margin.
    """
    margin = design.margin if isinstance(design, BettingDesign) else 0.0
    differences = np.arange(math.ceil(-min(margin, champion) / _STEP), math.floor((1.0 - champion) / _STEP + 1e-9) + 1) * _STEP
    low, high = -1, len(differences)  # not shown at low, shown at high
    while high - low > 1:
        middle = (low + high) // 2
        candidate = min(1.0, max(0.0, champion + float(differences[middle])))
        shown = expected(design, champion, candidate, correlation=correlation, studies=studies).shown
        low, high = (low, middle) if shown >= power else (middle, high)
    return round(float(differences[high]), 2) if high < len(differences) else None
