"""An encoder must not make this process a real-time one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextlib.contextmanager
def scheduling_kept() -> Iterator[None]:
    """Threads that are there keep the scheduling policy that they have; those that begin inside get the caller's.

    SVT-AV1 makes its threads and the caller SCHED_FIFO 99 where it may (as root), and leaves the caller so: every ordinary process would
    wait for this one, a robot's control loop too. Seen with SVT-AV1 4.1.0 in PyAV 18.1.0. Nothing is done where there are no such policies.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    before = _policies()
    try:
        yield
    finally:
        kept = before[threading.get_native_id()]
        if (os.sched_getscheduler(0), os.sched_getparam(0)) != kept:
            for thread in _policies():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setscheduler(thread, *before.get(thread, kept))


def _policies() -> dict[int, tuple[int, os.sched_param]]:
    found = {}
    for thread in map(int, os.listdir(_THREADS)):
        with contextlib.suppress(ProcessLookupError):
            found[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread)
    return found
