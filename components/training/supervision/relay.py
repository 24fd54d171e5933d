"""The worker's events and curve as they grow, passed on to a person's progress and to the tracker."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.config.ports import Metric, Tracker
from components.config.records import Progress, Silent
from components.training.job import JobFiles
from components.training.monitoring import parameter_line, progress_line

logger = logging.getLogger(__name__)

_SEND_EVERY_S = 5.0
_TIMES = ("samples_per_s", "data_wait", "mfu", "goodput")
_NO_METRIC = frozenset({"eta_s", "at", "steps", "seconds"})  # what an event says of its own time


class Relay:
    """Reads the worker's events and curve as they grow; passes them to the progress and, in batches, to the tracker.

    Earlier events are read too, for a job goes on when the process that watches it is killed; the tracker
    skips those that it has.
    """

    def __init__(self, files: JobFiles, steps: int, tracker: Tracker | None, progress: Progress) -> None:
        self.files, self._events = files, _Tail(files.progress)
        self._steps, self._tracker = steps, tracker
        self._progress: Progress = Silent()
        self._waiting: list[Metric] = []
        self._sent_at = time.monotonic()
        self.step, self.began_at, self.ending, self.precision, self.spikes = 0, 0, "", "", 0
        self.pids: tuple[int, ...] = ()
        self.speed: dict[str, float] = {}
        self.parameters: dict[str, int] = {}
        self.pump()
        self._progress = progress
        self._before = self.began_at, self.ending
        self.began_at, self.ending, self.pids, self.spikes = self.step, "", (), 0

    def take_over(self) -> None:
        """The attempt that is watched is the one of which earlier events tell."""
        self.began_at, self.ending = self._before

    def pump(self, *, final: bool = False) -> None:
        """Take in what is new; send to the tracker when it is time."""
        for event in self._events.lines():
            self._take(event)
        if self._waiting and (final or time.monotonic() - self._sent_at > _SEND_EVERY_S):
            self._send()

    def add(self, name: str, value: float) -> None:
        """One more number of the whole run, for the tracker."""
        self._waiting.append(Metric(_metric_name(name), value, self.step))

    def _take(self, event: Mapping[str, Any]) -> None:
        name, self.step = event["event"], int(event["step"])
        numbers = {k: float(v) for k, v in event.items() if isinstance(v, int | float) and k != "step"}
        if name == "start":
            self.began_at, self.precision, self.pids, self.ending = self.step, str(event["precision"]), tuple(event["pids"]), ""
            self.parameters = dict(event.get("parameters", {}))
            if self.parameters:
                self._progress.update(self.step, self._steps, parameter_line(self.parameters))
            if event["warning"]:
                logger.warning("train.slow %s", event["warning"])
                self._progress.update(self.step, self._steps, str(event["warning"]))
        elif name == "step":
            self.speed = {k: numbers[k] for k in (*_TIMES, "eta_s") if k in numbers}
            self._progress.update(self.step, self._steps, progress_line(numbers["loss"], self.speed))
            self._waiting += [Metric(_metric_name(k), v, self.step) for k, v in numbers.items() if k not in _NO_METRIC]
        elif name == "validation":
            self._waiting += [Metric(_metric_name(k), v, self.step) for k, v in numbers.items() if k not in _NO_METRIC]
        elif name == "spike":
            self.spikes += 1
            self._waiting.append(Metric("train/loss_spike", numbers["loss"], self.step))
        elif name in ("done", "stopped"):
            self.ending = name

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        if self._tracker is None:
            self._waiting.clear()
            return
        try:
            self._tracker.log_metrics(self._waiting)
            self._waiting = []
        except Exception:
            # A tracker must never end a training. What it did not accept is sent again; the curve is on disk anyway.
            logger.warning("tracker.unavailable kept=%d", len(self._waiting), exc_info=True)


def _metric_name(key: str) -> str:
    if key.startswith("validation_"):
        return f"validation/{key.removeprefix('validation_')}"
    return f"{'speed' if key in _TIMES else 'train'}/{key}"


def events_of(files: JobFiles) -> Iterator[Mapping[str, Any]]:
    """All events of all attempts, in order."""
    return _Tail(files.progress).lines()


class _Tail:
    """New whole JSON lines of a growing file; one that a power cut left unfinished is passed over."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._rest = path, 0, ""

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was completed since the last call."""
        if not self._path.is_file():
            return
        with self._path.open() as stream:
            stream.seek(self._offset)
            text = self._rest + stream.read()
            self._offset = stream.tell()
        *whole, self._rest = text.split("\n")
        for line in whole:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
