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
from model_core.statistics.decision import Outcome
from model_core.statistics.group_sequential import GroupSequentialDesign, group_sequential_test

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
    if isinstance(design, BettingDesign):
        parts = [stopping(part, design) for part in np.array_split(found, max(1, found.size // 200_000))]
        outcome, pairs = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    else:
        decided = [group_sequential_test(study, design) for study in found]
        outcome = np.array([{Outcome.SHOWN: 1, Outcome.REFUTED: -1}.get(one.outcome, 0) for one in decided])
        pairs = np.array([one.pairs for one in decided])
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
