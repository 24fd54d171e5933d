"""A process that must not outlive the one that started it: a forgotten cell would keep a robot moving.

As a program: ``python -m serving.lifeline PID COMMAND ...`` becomes COMMAND, which gets SIGTERM when process PID dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, signum: int = signal.SIGTERM) -> None:
    """Ask the kernel for `signum` when our parent, which must be process `parent`, dies. Kept across exec.

    Does nothing where there is no such kernel call. Exits at once when the parent is dead already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(128 + signum)


def end_on_signal() -> Callable[[], bool]:
    """Take SIGTERM and SIGINT from now on; what is returned says whether one of them came."""
    came: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: came.append(signum))
    return lambda: bool(came)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
