"""A line that a person draws while the robot runs, given in a file: writing it steers, changing it steers again, removing it ends that.

What it holds: `model_core.spec.protocol.steering_input`.
A drawing steers one episode, for the next scene is another; what cannot be read is logged
and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import ActwrightError
from model_core.spec.protocol.steering_input import MAX_DRAWING_BYTES, read_drawing
from model_core.spec.protocol.wire import SteeringInput

logger = logging.getLogger(__name__)

_LOOK_S = 0.05


class SteeringFile:
    """Watches `path` from a thread of its own and tells `steer` of every change. camera: the one that is drawn on."""

    def __init__(self, path: Path, body: EmbodimentSpec, camera: str, steer: Callable[[SteeringInput | None], None]) -> None:
        self._path, self._body, self._camera, self._steer = path, body, camera, steer
        self._seen: bytes | None = None
        self._trouble = ""
        self._revision = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, name="steering", daemon=True)

    def start(self) -> None:
        """Look once, so that a file that is there already steers from the first request on, and keep looking."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def look(self) -> None:
        """Tell of a change since the last look."""
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_DRAWING_BYTES + 1)
        except FileNotFoundError:
            content = None
        except OSError as error:
            if error.strerror != self._trouble:  # once, and not at every look
                logger.warning("steering.unreadable file=%s reason=%s", self._path, error.strerror)
            self._trouble = error.strerror
            return
        self._trouble = ""
        if content == self._seen:
            return
        self._seen = content
        if content is None:
            self._steer(None)
            return
        try:
            drawn = read_drawing(content, self._body, self._camera, revision=self._revision + 1)
        except ActwrightError as error:
            logger.warning("steering.refused file=%s reason=%s", self._path, error)
            return
        self._revision = drawn.revision
        self._steer(drawn)

    def _main(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.look()
