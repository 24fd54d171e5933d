"""Alarms of quality: each cell and task is compared with its own quiet time, at a stated probability of any false alarm in a month. Pure.

For every cell, task and model version the first `reference` trials are its quiet time; what follows is watched. Every measure becomes a
stream of 0 and 1:

    failure, intervention    that it happened
    held, refused            the share is above all but a tenth of those of the quiet time
    depth, trace, action     the distance from the middle of the quiet time is (one half of it gives the middle, the other the tenth)

The rate of 1 in quiet times is at most its exact upper bound from the quiet time: for a threshold that k of n values exceed, the true rate
has the Beta distribution of that bound. Half of the budget pays for these bounds, half for the detector (`statistics.change`), each shared
equally by all streams. What is assumed: that trials of a quiet cell are alike and that one does not raise the failure rate of the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.deployment.quality.episodes import EpisodeQuality
from model_core.spec.errors import require
from model_core.statistics.binomial import upper_bound
from model_core.statistics.change import ChangeDesign, began_at, first_alarm

MEASURES = ("failure", "intervention", "held", "refused", "depth", "trace", "action")
_TENTH = 0.1
_FEWEST = 10  # trials with a prediction in the quiet time


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """reference: trials of the quiet time of a cell and task. month: trials of one of them in a month, at most.

    false_alarms: the probability of any false alarm in a month, over all cells, tasks and measures together.
    """

    reference: int = 50
    month: int = 2000
    false_alarms: float = 0.01

    def __post_init__(self) -> None:
        require(self.reference >= 10, "the quiet time needs 10 trials or more", got=self.reference)
        require(self.month >= 1, "month must be 1 or more", got=self.month)
        require(0.0 < self.false_alarms < 1.0, "false_alarms must be between 0 and 1", got=self.false_alarms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One measure of one cell and task after its quiet time. quiet_rate: at most so often 1 while all is quiet. trials: of `values`."""

    cell: str
    task: str
    model_version: str
    measure: str
    quiet_rate: float
    values: tuple[int, ...]
    trials: tuple[EpisodeQuality, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A change that was noticed at trial `at` after the quiet time. since: where it most likely began. rate: of 1 since then.

    episodes: ids of the trials since then that were 1: what caused it.
    """

    cell: str
    task: str
    model_version: str
    measure: str
    at: int
    since: int
    rate: float
    quiet_rate: float
    episodes: tuple[str, ...]
    paths: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For a person."""
        return (
            f"{self.cell}, {self.task}: {self.measure} in {self.rate:.0%} of {self.at - self.since + 1} trials, "
            f"at most {self.quiet_rate:.0%} is quiet ({self.model_version})"
        )


def streams_of(episodes: Iterable[EpisodeQuality], settings: WatchSettings) -> list[Stream]:
    """The streams of every cell, task and model version that has more trials than its quiet time takes. episodes: oldest first."""
    groups: dict[tuple[str, str, str], list[EpisodeQuality]] = defaultdict(list)
    for one in episodes:
        if one.is_trial:
            groups[one.cell, one.task, one.model_version].append(one)
    ready = {key: trials for key, trials in groups.items() if len(trials) > settings.reference}
    alpha = settings.false_alarms / 2 / max(len(ready) * len(MEASURES), 1)
    found = []
    for (cell, task, version), of_group in ready.items():
        quiet, watched = of_group[: settings.reference], of_group[settings.reference :]
        for measure in MEASURES:
            judged = _judge(measure, _predicting(measure, quiet), _predicting(measure, watched), alpha)
            if judged is not None:
                rate, values = judged
                trials = tuple(_predicting(measure, watched))
                found.append(
                    Stream(cell=cell, task=task, model_version=version, measure=measure, quiet_rate=rate, values=values, trials=trials)
                )
    return found


def alarms_of(streams: Sequence[Stream], settings: WatchSettings) -> list[Alarm]:
    """The first alarm of each stream that has one."""
    return [alarm for stream in streams if (alarm := _alarm(stream, settings.false_alarms / 2 / len(streams), settings.month))]


def _alarm(stream: Stream, alpha: float, month: int) -> Alarm | None:
    at = first_alarm(stream.values, ChangeDesign(quiet_mean=stream.quiet_rate, alpha=alpha, horizon=month))
    if at is None:
        return None
    since = began_at(stream.values, stream.quiet_rate, at)
    causing = [trial for trial, value in zip(stream.trials[since : at + 1], stream.values[since : at + 1], strict=True) if value]
    return Alarm(
        cell=stream.cell,
        task=stream.task,
        model_version=stream.model_version,
        measure=stream.measure,
        at=at,
        since=since,
        rate=len(causing) / (at - since + 1),
        quiet_rate=stream.quiet_rate,
        episodes=tuple(trial.episode_id for trial in causing),
        paths=tuple(trial.path for trial in causing),
    )


def _predicting(measure: str, trials: Sequence[EpisodeQuality]) -> Sequence[EpisodeQuality]:
    """The trials that a measure can be taken of: those with a prediction, where it is one of predictions; one in which every decision was
    refused has none."""
    return [one for one in trials if getattr(one, measure)] if measure in ("depth", "trace", "action") else trials


def _judge(
    measure: str, quiet: Sequence[EpisodeQuality], watched: Sequence[EpisodeQuality], alpha: float
) -> tuple[float, tuple[int, ...]] | None:
    """The bound of the quiet rate, and 0 or 1 for each watched trial; None where the model predicts no such thing."""
    if measure in ("failure", "intervention"):
        happened = [int(not one.success if measure == "failure" else one.interventions > 0) for one in (*quiet, *watched)]
        return _bounded(sum(happened[: len(quiet)]), len(quiet), alpha), tuple(happened[len(quiet) :])
    if measure in ("held", "refused"):
        before, after = (np.array([getattr(one, measure) for one in some], np.float64) for some in (quiet, watched))
    else:
        vectors = [getattr(one, measure) for one in (*quiet, *watched)]
        if len(quiet) < _FEWEST or len({len(vector) for vector in vectors}) != 1:
            return None
        all_NF = np.array(vectors, np.float64)
        middle, spread = all_NF[: len(quiet) : 2].mean(axis=0), all_NF[: len(quiet) : 2].std(axis=0) + 1e-3
        distance_N = np.sqrt((((all_NF - middle) / spread) ** 2).mean(axis=1))
        before, after = distance_N[1 : len(quiet) : 2], distance_N[len(quiet) :]
    return _above_a_tenth(before, after, alpha)


def _above_a_tenth(before: NDArray[np.float64], after: NDArray[np.float64], alpha: float) -> tuple[float, tuple[int, ...]]:
    exceeding = int(_TENTH * len(before))
    threshold = np.sort(before)[len(before) - 1 - exceeding]
    return _bounded(exceeding, len(before), alpha), tuple(int(value > threshold) for value in after)


def _bounded(count: int, of: int, alpha: float) -> float:
    return min(max(upper_bound(count, of, 1.0 - alpha), 0.001), 0.999)
