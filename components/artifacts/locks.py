"""One process at a time, or so many: file locks that are released when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_S = 0.05


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float | None = None, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path` alone among all processes that use it.

    timeout_s: how long to wait for another holder; None: as long as it takes. on_wait: called once if there is another holder.
    Raises `TimeoutError` when the lock is not free in time. The file stays where it is: only the lock on it counts.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, preserve_lock_file=True)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if timeout_s == 0:
            raise
        if on_wait is not None:
            on_wait()
        lock.acquire(timeout=-1 if timeout_s is None else timeout_s, poll_interval=_POLL_S)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """As `locked`, without waiting: yields False, and holds nothing, while another process holds the lock."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path, timeout_s=0))
        except TimeoutError:
            yield False
            return
        yield True


@contextlib.contextmanager
def one_of(folder: Path, places: int) -> Iterator[None]:
    """Hold one of `places` places, which are lock files in `folder`, among all processes that use it; waits while none is free."""
    with contextlib.ExitStack() as held:
        while not any(_taken(folder / f"place-{number:03d}", held) for number in range(places)):
            time.sleep(_POLL_S)
        yield


def _taken(path: Path, held: contextlib.ExitStack) -> bool:
    attempt = contextlib.ExitStack()
    if is_free := attempt.enter_context(try_locked(path)):
        held.push(attempt)
    return is_free
