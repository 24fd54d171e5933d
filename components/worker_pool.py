"""Processes that share a stage's work on this machine. They end with the process that started them, however that ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from model_core.spec.errors import JobError

_LOOK_S = 0.5


@contextmanager
def worker_pool(workers: int, killed: Callable[[], str]) -> Iterator[ProcessPoolExecutor]:
    """At most `workers` fresh processes. When the block is left by an error, nothing more is begun.

    Raises `JobError` with what `killed` says when one of them died.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise JobError(killed()) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _end_with_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
