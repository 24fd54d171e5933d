"""Processes that share a stage's work on this machine. They end with the process that started them, however that ends.

Ctrl-C in a terminal reaches every process of the group. Only the process that started the others handles it: a worker
never receives it, from its first instruction on, and is ended during its work, which leaves no partial file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from model_core.spec.errors import JobError

_LOOK_S = 0.5


@contextmanager
def worker_pool(workers: int, killed: Callable[[], str]) -> Iterator[ProcessPoolExecutor]:
    """At most `workers` fresh processes. When the block is left by an error, nothing more is begun; by Ctrl-C, they end at once.

    Raises `JobError` with the message of `killed` when one of them died.
    """
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    with (
        ours,
        theirs,
        _IgnoresCtrlC(workers, mp_context=context, initializer=end_with_parent, initargs=(os.getpid(), theirs)) as pool,
    ):
        try:
            yield pool
        except BrokenProcessPool as error:
            raise JobError(killed()) from error
        except Exception:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        except BaseException:
            ours.close()  # which every worker sees
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _IgnoresCtrlC(ProcessPoolExecutor):
    """Its processes are started while SIGINT is blocked, and inherit that: one that is still importing has no handler yet."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with ctrl_c_blocked():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """SIGINT waits until the block ends; a process that is started in it inherits that, and never receives it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(parent: int, lifeline: Connection) -> None:
    """To be called first in a started process: it ends when `parent` does, or closes the other end of `lifeline`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(OSError, EOFError):
            # nothing is ever sent: it becomes readable when the other end is closed, which a forked child of the parent may keep open
            while os.getppid() == parent and not lifeline.poll(_LOOK_S):
                pass
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
