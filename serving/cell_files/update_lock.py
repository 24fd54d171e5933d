"""The update lock of one cell: an episode holds it from before it begins until the robot rests; the agent swaps only while it has it.

update.lock    locked (flock) by the process that has it; the kernel frees it when that process ends, however it ends
episode.json   written by the cell when an episode begins, removed when it ended and the robot rests

A cell that dies in an episode leaves episode.json: the lock is free and yet not to be had, because the motors may still be on. It
is removed when the cell's watchdog has stopped the drive (its stop is latched, or it was disarmed at rest), or by the next process of
the cell, once its robot is in its hands. No time that passes removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import NotReady
from model_core.spec.files import atomic_write

_LOCK, _MARK, _COUNT = "update.lock", "episode.json", "begun.json"
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEpisode:
    """What the holder left beside the lock. watchdog: its heartbeat file, "" without one."""

    cell: str
    pid: int
    number: int
    watchdog: str = ""


class UpdateLock:
    """The lock in the folder of one cell's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def taken(self, patience_s: float = 0.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[bool]:
        """Have the lock alone; yields False, having nothing, while another process has it for longer than `patience_s`."""
        descriptor = self._opened()
        try:
            yield locked_by(descriptor, time.monotonic() + patience_s, sleep)
        finally:
            os.close(descriptor)  # frees it

    @property
    def is_held(self) -> bool:
        """Another process has it now."""
        with self.taken() as is_mine:
            return not is_mine

    def _opened(self) -> int:
        """The lock's file, made where it is not there; one that is there costs no write."""
        path = self._folder / _LOCK
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def left_behind(self) -> RunningEpisode | None:
        """The episode that is running, or that a dead process left. Raises `NotReady` for a mark that cannot be read."""
        path = self._folder / _MARK
        try:
            return from_document(RunningEpisode, json.loads(path.read_bytes()), where=str(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NotReady(f"{path} cannot be read: {error}. Fix: see that the robot rests, then remove the file") from error

    def mark(self, cell: str, watchdog: Path | None) -> RunningEpisode:
        """An episode begins. Call it having the lock."""
        episode = RunningEpisode(cell=cell, pid=os.getpid(), number=self.begun + 1, watchdog=str(watchdog or ""))
        atomic_write(self._folder / _MARK, _text(episode))
        atomic_write(self._folder / _COUNT, _text({"begun": episode.number}))
        return episode

    def clear(self) -> None:
        """It ended, and the robot rests. Call it having the lock."""
        (self._folder / _MARK).unlink(missing_ok=True)

    @property
    def begun(self) -> int:
        """How many episodes the cell has begun, over all its processes. Raises `NotReady` where the count cannot be read."""
        path = self._folder / _COUNT
        try:
            return int(json.loads(path.read_bytes())["begun"])
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotReady(
                f"{path} cannot be read: {error}. Fix: write how many episodes were begun, or remove it to count again"
            ) from error


def locked_by(descriptor: int, give_up_at: float, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Lock an open file alone, waiting for another holder until `give_up_at` (monotonic seconds); whether it is locked."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                return False
            sleep(_LOOK_S)


def _text(value: object) -> str:
    return json.dumps(to_document(value), sort_keys=True) + "\n"
