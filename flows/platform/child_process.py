"""Child processes that cannot outlive us: own process group, signal on our death, ended as a group.

A server that ignored its first SIGTERM, or whose children did, is killed with its whole group after a grace.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from components.adapters.http import Readiness, answers, wait_until_ready
from components.adapters.processes import last_lines, stop_group, tell_of_end
from model_core.spec.errors import JobError

logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Child:
    """A started process with a name, a log and, for servers, an address that answers when it is ready."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, ready_url: str = "", env: Mapping[str, str] | None = None) -> None:
        self.name, self.log, self.ready_url = name, log, ready_url
        self._stopping = threading.Event()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def wait_ready(self, timeout_s: float = 240.0) -> None:
        """Return once `ready_url` answers; raises `JobError` with the last lines of the log when it does not in time."""
        ended = wait_until_ready(lambda: answers(self.ready_url), timeout_s=timeout_s, is_alive=lambda: self.process.poll() is None)
        if ended is Readiness.DIED:
            raise JobError(f"{self.name} ended at once with code {self.process.returncode}:\n{self.last_lines()}")
        if ended is Readiness.LATE:
            raise JobError(f"{self.name} did not answer at {self.ready_url} within {timeout_s:.0f} s:\n{self.last_lines()}")

    def tell_end(self, say: Callable[[str], object]) -> None:
        """Let `say` hear of it where the process ends by itself, before `stop`."""
        self._stopping = tell_of_end(self.process, say, name=self.name, log=self.log)

    def stop(self, grace_s: float = 8.0) -> None:
        """End the whole process group: by SIGTERM first, then by SIGKILL."""
        self._stopping.set()
        if not stop_group(self.process, grace_s):
            logger.error("child.survived name=%s pid=%d", self.name, self.process.pid)

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        return last_lines(self.log, count, margin="  | ")


def _die_with_parent() -> None:
    """In the child, before exec: get SIGTERM when the parent dies, even by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
