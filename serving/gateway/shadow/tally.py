"""What is counted of a shadow, per task: distances with intervals over episodes, refusals of both, times of both. Bounded. Thread-safe.

Decisions of one episode are alike, so an interval is of the mean over episodes of an episode's mean: Student's, at 95 %. Refusals are
counted by decision, with Clopper and Pearson's interval, which holds where decisions are independent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_core.spec.protocol.wire import Chunk, Reject
from model_core.statistics.intervals import clopper_pearson, mean_interval

MOST_TASKS = 64
OTHER = "(other tasks)"
_TIMES_KEPT = 512
_OPEN_KEPT = 128


@dataclass(slots=True)
class _Means:
    """Means of episodes: how many, their mean, the sum of squared deviations (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)


@dataclass(slots=True)
class _Task:
    compared: int = 0
    asked: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    live_refused: int = 0
    both_refused: int = 0
    means: dict[str, _Means] = field(default_factory=dict)
    ms: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES_KEPT))
    live_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES_KEPT))


@dataclass(slots=True)
class _Episode:
    task: str
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)


class ShadowTally:
    """Counts. Everything that one observation gave is added by one call of `add`."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._open: dict[str, _Episode] = {}
        self._lock = threading.Lock()

    def add(self, task: str, episode: str, live: Chunk | Reject, other: Chunk | Reject, measured: Mapping[str, float], ms: float) -> None:
        """One observation that both have answered. measured: the distances of two chunks, {} with a refusal. ms: the candidate took."""
        with self._lock:
            task = task if task in self._tasks or len(self._tasks) < MOST_TASKS else OTHER
            found = self._tasks.setdefault(task, _Task())
            found.asked += 1
            found.ms.append(ms)
            if isinstance(live, Chunk):
                found.live_ms.append(live.timing_ms.get("model", 0.0))
            else:
                found.live_refused += 1
                found.both_refused += isinstance(other, Reject)
            if isinstance(other, Reject):
                found.refused[other.code.value] = found.refused.get(other.code.value, 0) + 1
            if measured:
                found.compared += 1
                self._measure(task, episode, measured)

    def _measure(self, task: str, episode: str, measured: Mapping[str, float]) -> None:
        held = self._open.pop(episode, None)
        if held is None or held.task != task:
            self._close(held)
            held = _Episode(task)
        for name, value in measured.items():
            total, count = held.sums.get(name, (0.0, 0))
            held.sums[name] = (total + value, count + 1)
        self._open[episode] = held  # the newest last
        while len(self._open) > _OPEN_KEPT:
            self._close(self._open.pop(next(iter(self._open))))

    def _close(self, episode: _Episode | None) -> None:
        if episode is not None:
            for name, (total, count) in episode.sums.items():
                self._tasks[episode.task].means.setdefault(name, _Means()).add(total / count)

    def document(self, units: Mapping[str, str]) -> dict[str, Any]:
        """Task -> what was found, as JSON values."""
        with self._lock:
            return {name: self._told(name, task, units) for name, task in self._tasks.items()}

    def _told(self, name: str, task: _Task, units: Mapping[str, str]) -> dict[str, Any]:
        refused = sum(task.refused.values())
        low, high = clopper_pearson(refused, task.asked)
        means = {measure: _Means(one.count, one.mean, one.squares) for measure, one in task.means.items()}
        for episode in self._open.values():  # those that still run, or of which no end was seen
            if episode.task == name:
                for measure, (total, count) in episode.sums.items():
                    means.setdefault(measure, _Means()).add(total / count)
        return {
            "asked": task.asked,
            "compared": task.compared,
            "refused": {"count": refused, "low": low, "high": high, "codes": dict(task.refused)},
            "live_refused": task.live_refused,
            "both_refused": task.both_refused,
            "measures": {measure: _interval(one, units.get(measure, "")) for measure, one in sorted(means.items())},
            "ms": _quantiles(task.ms),
            "live_ms": _quantiles(task.live_ms),
        }


def _interval(means: _Means, unit: str) -> dict[str, Any]:
    low, high = mean_interval(means.count, means.mean, means.squares)
    return {"mean": means.mean, "low": low, "high": high, "episodes": means.count, "unit": unit}


def _quantiles(times: deque[float]) -> dict[str, float]:
    return {} if not times else {"p50": float(np.quantile(times, 0.5)), "p99": float(np.quantile(times, 0.99))}
