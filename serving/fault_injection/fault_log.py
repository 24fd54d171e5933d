"""The log of injected faults: one JSON line each, to be compared with a client's own log."""

from __future__ import annotations

import json
import sys
import threading
from typing import TextIO


class FaultLog:
    """Writes lines to `stream` (standard output by default) and keeps the first `keep` of them. Thread-safe."""

    def __init__(self, stream: TextIO | None = None, *, keep: int = 100_000, silent: bool = False) -> None:
        self.lines: list[dict[str, object]] = []
        self._stream, self._keep, self._silent = stream, keep, silent
        self._lock = threading.Lock()

    def add(self, event: str, **facts: object) -> None:
        """Add one event."""
        line = {"event": event, **facts}
        with self._lock:
            if len(self.lines) < self._keep:
                self.lines.append(line)
            if not self._silent:
                stream = self._stream or sys.stdout
                stream.write(json.dumps(line) + "\n")
                stream.flush()

    def count(self, **facts: object) -> int:
        """The number of lines that have all of `facts`."""
        with self._lock:
            return sum(all(line.get(key) == value for key, value in facts.items()) for line in self.lines)
