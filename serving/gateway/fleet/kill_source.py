"""The thread that reads the fleet's kill list again and again, from a file or an HTTP address, and gives each to the event loop.

Nothing here can stop the service or a robot: a source that does not answer is logged once, and the lease runs on (`KillSwitch`).
"""

from __future__ import annotations

import logging
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

from model_core.spec.errors import WireError
from model_core.spec.fleet.signatures import MOST_BYTES

logger = logging.getLogger(__name__)

_ANSWER_S = 5.0


class KillSource:
    """Polls `where`. deliver: called from this thread with the bytes of a list. every_s: asked after each turn."""

    def __init__(self, where: str, deliver: Callable[[bytes], None], every_s: Callable[[], float]) -> None:
        self._where, self._deliver, self._every_s = where, deliver, every_s
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kills", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """End; a read that hangs is left behind (daemon thread)."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._deliver(read_list(self._where))
                self._say("")
            except Exception as error:  # whatever a source does wrong must not end this thread
                self._say(f"{type(error).__name__}: {error}")
            self._stopping.wait(self._every_s())

    def _say(self, trouble: str) -> None:
        if bool(trouble) != bool(self._trouble):
            logger.warning("fleet.kill_list source=%s %s", self._where, f"trouble={trouble[:300]}" if trouble else "answers again")
        self._trouble = trouble


def read_list(where: str) -> bytes:
    """The bytes at a path or an address (http, https). Raises OSError, or WireError for more than a list can have."""
    if where.startswith(("http://", "https://")):
        with urllib.request.urlopen(where, timeout=_ANSWER_S) as answer:
            data = answer.read(MOST_BYTES + 1)
    else:
        with Path(where).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise WireError(f"{where} gives more than {MOST_BYTES} bytes")
    return data
