"""Priorities of the processes that we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAY = (
    "import os, pathlib, threading; from components.adapters.processes import let_others_go_first as lower; lower(3);"
    "group = pathlib.Path('/proc/self/autogroup'); told = [];"
    "thread = threading.Thread(target=lambda: told.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())));"
    "thread.start(); thread.join(); print(told[0], group.read_text().split()[-1] if group.is_file() else 'none')"
)


@pytest.mark.parametrize("leads_session", [True, False])
def test_a_process_and_its_later_threads_let_others_go_first(leads_session: bool) -> None:
    group = Path("/proc/self/autogroup")
    before = group.read_text().split()[-1] if group.is_file() else "none"
    done = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True, start_new_session=leads_session)
    nice, of_session = done.stdout.split()
    assert int(nice) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    assert of_session == ("3" if leads_session and before != "none" else before)
