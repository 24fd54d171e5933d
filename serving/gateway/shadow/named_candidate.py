"""A shadow of whichever candidate a file names now: an agent writes the file, and the service that runs need not be started again.

A thread looks at the file; a name that appears, changes or goes away starts, exchanges or ends a shadow. What is read there can start
nothing but a `Shadow`, which has no way to a robot; who may write the file may read and end this process anyway.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_core.spec.errors import SpecError
from model_core.spec.fleet.candidate import read_candidate
from model_core.spec.protocol.wire import Chunk, Observe, Reject
from serving.gateway.shadow.shadow import Shadow

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_MOST_BYTES = 16_384
WAITING = "no candidate is named"


class NamedCandidate:
    """The shadow of what `file` names. make: a shadow of the bundle in a folder, not started."""

    def __init__(self, file: Path, make: Callable[[str], Shadow]) -> None:
        self._file, self._make = file, make
        self._content: bytes | None = None
        self._release, self._problem = "", ""
        self._shadow: Shadow | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="candidate-file", daemon=True)

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the shadow and the thread."""
        self._stopping.set()
        self._thread.join()
        self._end()

    def see(self, cell: str, observe: Observe, live: Chunk | Reject) -> None:
        """A live observation of a cell was answered. Called on the event loop."""
        shadow = self._shadow
        if shadow is not None:
            shadow.see(cell, observe, live)

    def document(self) -> dict[str, Any]:
        """What was found so far of the candidate that is named, with its release, as JSON values."""
        shadow, release = self._shadow, self._release
        if shadow is None:
            return {"state": f"failed: {self._problem}" if self._problem else WAITING, "release": release}
        return {**shadow.document(), "release": release}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except Exception as error:  # whatever is there must not end this thread
                self._end()
                self._problem = f"{type(error).__name__}: {error}"[:500]
                logger.exception("shadow.candidate_file file=%s", self._file)
            self._stopping.wait(_LOOK_S)

    def _look(self) -> None:
        try:
            with self._file.open("rb") as file:
                content = file.read(_MOST_BYTES)
        except FileNotFoundError:
            content = None
        if content == self._content:
            return
        self._end()
        self._content = content
        if content is None:
            return
        try:
            candidate = read_candidate(content, str(self._file))
        except SpecError as error:
            self._problem = str(error)[:500]
            logger.error("shadow.candidate_refused reason=%s", self._problem)  # noqa: TRY400
            return
        logger.info("shadow.candidate_named release=%s", candidate.release[:16])
        shadow = self._make(candidate.bundle)
        shadow.cell = candidate.cell
        self._release, self._shadow = candidate.release, shadow
        shadow.start()

    def _end(self) -> None:
        shadow, self._shadow = self._shadow, None
        self._release = self._problem = ""
        if shadow is not None:
            shadow.stop()
