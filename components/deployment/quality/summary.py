"""How each cell and task did, with exact intervals of the success rate. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from components.deployment.quality.episodes import EpisodeQuality
from model_core.statistics.intervals import clopper_pearson


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTask:
    """One cell, task and model version. held, refused, clipped: mean shares. low, high: of the success rate, 95 %."""

    cell: str
    task: str
    model_version: str
    trials: int
    successes: int
    interventions: int
    low: float
    high: float
    held: float
    refused: float
    clipped: float

    @property
    def rates(self) -> dict[str, float]:
        """What is recorded of it, by name."""
        count = max(self.trials, 1)
        return {
            "success": self.successes / count,
            "interventions": self.interventions / count,
            "held": self.held,
            "refused": self.refused,
            "clipped": self.clipped,
        }

    @property
    def sentence(self) -> str:
        """For a person."""
        return (
            f"{self.cell}, {self.task} ({self.model_version}): {self.successes} of {self.trials} succeeded "
            f"({self.low:.0%} to {self.high:.0%}), held {self.held:.1%}, refused {self.refused:.1%}, clipped {self.clipped:.1%}, "
            f"{self.interventions} interventions"
        )


def summary_of(episodes: Iterable[EpisodeQuality]) -> list[CellTask]:
    """One row for each cell, task and model version, trials alone, sorted."""
    groups: dict[tuple[str, str, str], list[EpisodeQuality]] = defaultdict(list)
    for one in episodes:
        if one.is_trial:
            groups[one.cell, one.task, one.model_version].append(one)
    return [_row(key, trials) for key, trials in sorted(groups.items())]


def _row(key: tuple[str, str, str], trials: list[EpisodeQuality]) -> CellTask:
    successes = sum(one.success for one in trials)
    low, high = clopper_pearson(successes, len(trials))
    held, refused, clipped = (float(np.mean([getattr(one, name) for one in trials])) for name in ("held", "refused", "clipped"))
    return CellTask(
        cell=key[0],
        task=key[1],
        model_version=key[2],
        trials=len(trials),
        successes=successes,
        interventions=sum(one.interventions for one in trials),
        low=low,
        high=high,
        held=held,
        refused=refused,
        clipped=clipped,
    )
