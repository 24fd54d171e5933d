"""What rank 0 writes while it trains: the loss curve, the events for the launcher and the heartbeat."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from components.training.job import WORKING, JobFiles
from model_core.spec.files import atomic_write


class TrainingLog:
    """Rank 0's files: the curve (digested, no times), the events for the launcher, the heartbeat. Other ranks write nothing."""

    def __init__(self, files: JobFiles, *, writes: bool, first_step: int, clock: Callable[[], float] = time.time) -> None:
        self._files, self._clock, self._doing = files, clock, WORKING
        self._curve: IO[str] | None = None
        self._events: IO[str] | None = None
        if writes:
            _cut_curve(files.metrics, first_step)
            self._curve = files.metrics.open("a", buffering=1)
            self._events = files.progress.open("a", buffering=1)
            if self._events.tell() and not files.progress.read_bytes().endswith(b"\n"):
                self._events.write("\n")  # an earlier attempt ended within a line

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """One line of the curve."""
        if self._curve is not None:
            self._curve.write(json.dumps({"step": step, **{k: float(f"{v:.9g}") for k, v in sorted(values.items())}}) + "\n")
            self.beat(self._doing)

    def cut(self, step: int) -> None:
        """Forget the points after `step`, to which training goes back."""
        if self._curve is not None:
            self._curve.close()
            _cut_curve(self._files.metrics, step)
            self._curve = self._files.metrics.open("a", buffering=1)

    def beat(self, doing: str) -> None:
        """Tell the launcher that this process works, and at what: `STEPPING`, or `WORKING` before what may take longer than a step."""
        self._doing = doing
        if self._events is not None:
            self._files.heartbeat.write_text(doing)

    def event(self, name: str, step: int, **fields: object) -> None:
        """One event for the launcher, with the wall time."""
        if self._events is not None:
            self._events.write(json.dumps({"event": name, "step": step, "at": round(self._clock(), 3), **fields}) + "\n")
            self.beat(self._doing)


def _cut_curve(path: Path, last_step: int) -> None:
    """Drop what was written after the checkpoint that training resumes from, and a truncated last line."""
    kept: list[str] = []
    if path.is_file():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] <= last_step:
                    kept.append(line)
    atomic_write(path, "".join(f"{line}\n" for line in kept))
