"""A module run under a wall clock that is set wrong: python -m tests.faults.shifted_process FILE MODULE ARGUMENTS.

FILE holds by how many seconds, and may change while the module runs; a file that is not there is a clock that is right. Monotonic clocks
are those of the computer, as they are where a person sets its time.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

_LOOK_S = 0.2


def shift(file: Path) -> None:
    """From now on `time.time` and `time.time_ns` of this process are shifted."""
    real, offset, look_at = time.time, 0.0, 0.0

    def shifted() -> float:
        nonlocal offset, look_at
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_S
            offset = float(file.read_text() or 0) if file.exists() else 0.0
        return real() + offset

    time.time = shifted
    time.time_ns = lambda: int(1e9 * shifted())


if __name__ == "__main__":
    shift(Path(sys.argv[1]))
    sys.argv = [sys.argv[2], *sys.argv[3:]]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
