"""Progress of work on a whole data set: a line for a person every few seconds."""

from __future__ import annotations

import time

from flows.terminal.output import print_line

_EVERY_S = 5.0


class ProgressLines:
    """A `Progress` that prints where the work is, at most every five seconds."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def update(self, done: int, total: int, message: str = "") -> None:
        """`done` of `total` units are finished."""
        if time.monotonic() - self._printed >= _EVERY_S:
            self._printed = time.monotonic()
            print_line(f"{done}/{total} {message}")
