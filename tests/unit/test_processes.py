"""Processes that we start: their priorities, and what is said of an end that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.config.records import Silent
from components.deployment.service_process import ServiceProcess, running
from flows.platform.child_process import Child
from tests.integration.loop_runs import eventually

SAY = (
    "import os, threading; from components.adapters.processes import let_others_go_first as lower;"
    "from tests.unit.test_processes import group_nice; lower(3); told = [];"
    "thread = threading.Thread(target=lambda: told.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())));"
    "thread.start(); thread.join(); print(told[0], group_nice())"
)


def group_nice() -> str:
    """The priority of this process's group; "none" where the system has no such groups, or this process is in none (an empty file)."""
    group = Path("/proc/self/autogroup")
    words = group.read_text().split() if group.is_file() else []
    return words[-1] if words else "none"


@pytest.mark.parametrize("leads_session", [True, False])
def test_a_process_and_its_later_threads_let_others_go_first(leads_session: bool) -> None:
    before = group_nice()
    done = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True, start_new_session=leads_session)
    nice, of_session = done.stdout.split()
    assert int(nice) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    if leads_session:  # a new session has a group of its own even where this process is in none
        assert of_session in ("3", "none")
        assert of_session == "3" or before == "none"
    else:
        assert of_session == before


def test_who_started_a_process_hears_of_an_end_that_it_did_not_ask_for(tmp_path: Path) -> None:
    told: list[str] = []
    ended = Child("the page", ["sh", "-c", "exit 3"], log=tmp_path / "page.log")
    ended.tell_end(told.append)
    stopped = Child("the service", ["sleep", "60"], log=tmp_path / "service.log")
    stopped.tell_end(told.append)
    stopped.stop()
    eventually(lambda: told, timeout_s=30)
    ended.stop()
    assert [text.partition(",")[0] for text in told] == ["the page ended with code 3"]
    assert str(tmp_path / "page.log") in told[0]


def test_who_serves_a_policy_hears_of_an_end_that_it_did_not_ask_for(tmp_path: Path) -> None:
    told: list[str] = []
    for seconds in (0.2, 60):
        service = ServiceProcess(
            name="the policy service",
            command=["sh", "-c", f"sleep {seconds}; exit 4"],
            state=lambda: {"state": "ready", "instance": "a"},
            instance="a",
            port=1,
            log=tmp_path / "service.log",
        )
        with running(service, Silent(), told.append):
            if seconds < 1:
                eventually(lambda: told, timeout_s=30)
    assert [text.partition(",")[0] for text in told] == ["the policy service ended with code 4"]
