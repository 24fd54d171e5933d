"""As `bundle_service`, but model versions 3, 5, 7, ... refuse every decision: -m tests.faults.poor_service BUNDLE PORT [CANDIDATE [PID]].

PID: it ends when that process does, whoever started it: an agent that is killed leaves its service running on purpose.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from model_core.bundle import read_manifest
from model_core.spec.types import Decision, Refusal, RefusalCode
from tests.faults.bundle_service import main


def refused(decision: Decision) -> Decision:
    """The decision of a model whose answers are not in its language."""
    return replace(decision, chunk=None, reasoning=None, refusal=Refusal(code=RefusalCode.PARSE, reason="a poor version"))


def change_of(folder: Path) -> Callable[[Decision], Decision] | None:
    """What becomes of the decisions of the bundle in a folder."""
    number = int(read_manifest(folder).model_version.rpartition("/")[2])
    return refused if number > 1 and number % 2 else None


def end_with(pid: int) -> None:
    """End this process, and the candidate in its group, when process `pid` does."""
    other = os.pidfd_open(pid)

    def wait() -> None:
        select.select([other], [], [])
        os.killpg(0, 9)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    bundle = Path(sys.argv[1])
    if len(sys.argv) > 4:
        end_with(int(sys.argv[4]))
    main(bundle, int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None, change_of(bundle))
