"""Whether the processes of a training still work: each touches a file of its own, the first one another after every step.

What counts is that a file's time changes, measured by this process's clock: wall clocks that are set, or differ between machines, end no
training.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from components.training.job import STEPPING, JobFiles

RANK_SILENT_S = 45.0
_STEPS = 10


class Liveness:
    """Looks at the files of one attempt. hang_s: how long work other than steps may take: loading, validation, saving.

    A step may take ten times the longest one before it, and at least as long as a process may be silent.
    """

    def __init__(
        self, files: JobFiles, *, hang_s: float, silent_s: float = RANK_SILENT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files, self._hang_s, self._silent_s, self._clock = files, hang_s, silent_s, clock
        for path in files.alive.glob("rank_*"):  # of an earlier attempt
            path.unlink(missing_ok=True)
        self._seen: dict[Path, tuple[int, float]] = {files.heartbeat: (_changed(files.heartbeat), clock())}
        self._longest_s, self._was_step = 0.0, False

    def problem(self) -> str:
        """What the training does not do, as the end of a sentence; "" while all of it works."""
        now = self._clock()
        for path in sorted(self._files.alive.glob("rank_*")):
            if (quiet := self._quiet_s(path, now)) > self._silent_s:
                return f"hangs, rank {int(path.name.removeprefix('rank_'))} has not run for {quiet:.0f} s"
        before = self._seen[self._files.heartbeat][1]
        quiet = self._quiet_s(self._files.heartbeat, now)
        steps = _text(self._files.heartbeat) == STEPPING
        if quiet == 0.0:
            if steps and self._was_step:
                self._longest_s = max(self._longest_s, now - before)
            self._was_step = steps
        most_s = max(self._silent_s, _STEPS * self._longest_s) if steps and self._was_step else self._hang_s
        return f"made no step for {quiet:.0f} s" if quiet > min(most_s, self._hang_s) else ""

    def _quiet_s(self, path: Path, now: float) -> float:
        """Seconds since a change of the file was seen; 0 where it is seen now."""
        changed, (known, since) = _changed(path), self._seen.get(path, (-1, now))
        if changed != known:
            self._seen[path] = (changed, now)
            return 0.0
        return now - since


def kill_ranks(pids: Sequence[int], job: Path) -> None:
    """End the processes of an attempt that hang, or that torchrun left behind, where they are still those of this job."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if str(job).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)


def _changed(path: Path) -> int:
    """When the file was last written, in ns of the file system's clock; 0 before the first time. Opened: NFS then asks its server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
