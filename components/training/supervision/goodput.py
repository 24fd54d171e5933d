"""Goodput: of the time that a training took, the share in which the steps of its final curve were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def goodput(events: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of the steps that were kept over all seconds, of the events of all attempts of one training, in order; 0 where none are.

    Lost are: loading, validation, waits for checkpoints, steps that were made again after a kill, and the time between an attempt that
    was lost and the next. The time after an attempt that a person stopped does not count.
    """
    windows: list[tuple[int, int, float]] = []
    wall_s, last, counts = 0.0, 0.0, False
    for event in events:
        at, step = float(event["at"]), int(event["step"])
        if event["event"] == "start":
            last = last if counts else at - float(event["seconds"])
            windows = _up_to(windows, step)
        wall_s += max(0.0, at - last)
        last, counts = at, event["event"] not in ("stopped", "done")
        if event["event"] == "step":
            windows.append((step - int(event["steps"]), step, float(event["seconds"])))
    useful_s = sum(seconds for _, _, seconds in windows)
    return min(1.0, useful_s / wall_s) if wall_s > 0 else 0.0


def _up_to(windows: list[tuple[int, int, float]], step: int) -> list[tuple[int, int, float]]:
    """What of the windows lies before `step`, from which another attempt went on."""
    return [
        (first, min(last, step), seconds * (min(last, step) - first) / (last - first)) for first, last, seconds in windows if first < step
    ]
