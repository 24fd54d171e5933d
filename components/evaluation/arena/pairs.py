"""Every two policies on the cases that both had: the exact test, corrected for the number of pairs, and the groups that it can tell apart.

McNemar's exact test is two-sided here: each pair is asked which of both is better. Of several tasks with different rates it errs on the
safe side: under equal mean success the number of wins varies less than a binomial one (Hoeffding 1956, Ann. Math. Statist. 27:713-721).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from components.evaluation.suites.results import CONFIDENCE
from model_core.statistics.binomial import FloatArray
from model_core.statistics.intervals import PairCounts, mcnemar, tango
from model_core.statistics.multiplicity import holm


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """Two policies. wins: cases in which only `first` scored higher. p: two-sided. adjusted: for the number of pairs (Holm).

    difference: wins minus losses as a share of the cases, with its 95 % interval (Tango). better: the one that was shown to be, or "".
    """

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    p: float
    difference: float
    low: float
    high: float
    adjusted: float = 1.0
    better: str = ""

    @property
    def cases(self) -> int:
        """How many both had."""
        return self.wins + self.losses + self.ties

    @property
    def other(self) -> str:
        """The one that `better` was shown to be better than; "" without such a claim."""
        return "" if not self.better else self.second if self.better == self.first else self.first


def all_pairs(names: Sequence[str], scores: FloatArray, alpha: float) -> tuple[PairResult, ...]:
    """Every two of `names`. scores: shape (cases, names), NaN where there was no trial. alpha: of any wrong "better" among them all."""
    made = [_pair((names[one], names[other]), scores[:, [one, other]]) for one, other in combinations(range(len(names)), 2)]
    adjusted = holm({str(place): pair.p for place, pair in enumerate(made)})
    return tuple(_decided(pair, adjusted[str(place)], alpha) for place, pair in enumerate(made))


def groups_of(names: Sequence[str], pairs: Sequence[PairResult]) -> list[int]:
    """The group of each of `names`, which begin with the highest rating.

    A group ends only where all policies above were shown to be better than all below, so that what cannot be told apart is one group.
    """
    return grouped(names, {(one.better, one.other) for one in pairs if one.better})


def grouped(names: Sequence[str], shown: Set[tuple[str, str]]) -> list[int]:
    """The group of each of `names`, as `groups_of` has it. shown: (better, other) of every claim that a test made."""
    groups = [1]
    for place in range(1, len(names)):
        is_apart = all((above, below) in shown for above in names[:place] for below in names[place:])
        groups.append(groups[-1] + is_apart)
    return groups


def _pair(names: tuple[str, str], scores: FloatArray) -> PairResult:
    both = scores[~np.isnan(scores).any(axis=1)]
    wins, losses = int(np.sum(both[:, 0] > both[:, 1])), int(np.sum(both[:, 0] < both[:, 1]))
    counts = PairCounts(both=len(both) - wins - losses, wins=wins, losses=losses, neither=0)
    against = replace(counts, wins=losses, losses=wins)
    low, high = tango(counts, CONFIDENCE)
    return PairResult(
        first=names[0],
        second=names[1],
        wins=wins,
        losses=losses,
        ties=counts.both,
        p=min(1.0, 2.0 * min(mcnemar(counts), mcnemar(against))),
        difference=counts.difference,
        low=low,
        high=high,
    )


def _decided(pair: PairResult, adjusted: float, alpha: float) -> PairResult:
    is_shown = adjusted <= alpha and pair.wins != pair.losses
    better = "" if not is_shown else pair.first if pair.wins > pair.losses else pair.second
    return replace(pair, adjusted=adjusted, better=better)
