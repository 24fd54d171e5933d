"""Flow runs whose end Prefect was not told, because its server was away: how they end, and how they are found."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import httpx
import pytest

from flows.platform.flow_runs import RunsWithoutProcess, crashed_where_prefect_is_away
from flows.platform.settings import Settings
from model_core.spec.errors import SpecError


def said(**states):
    return [{"id": name, "state_type": state} for name, state in states.items()]


def test_a_run_without_a_process_is_lost_after_a_while_and_not_at_once():
    now, here = [0.0], [(7, "alive")]
    lost = RunsWithoutProcess(after_s=60.0, processes=lambda: here, clock=lambda: now[0])
    runs = said(alive="RUNNING", starting="PENDING", gone="RUNNING", waiting="SCHEDULED", over="COMPLETED", asleep="PAUSED")
    assert lost.of(runs) == frozenset()
    now[0] = 50.0
    here.append((8, "starting"))  # its process has come
    assert lost.of(runs) == frozenset()
    now[0] = 60.0
    assert lost.of(runs) == {"gone"}
    here.clear()
    now[0] = 70.0
    assert lost.of(said(alive="RUNNING", gone="RUNNING")) == {"gone"}, "the other one has been without for no time yet"
    now[0] = 100.0
    assert lost.of(said(gone="SCHEDULED")) == frozenset(), "it was put back"
    now[0] = 130.0
    assert lost.of(said(gone="RUNNING")) == frozenset(), "and is counted anew"


def test_a_process_of_a_run_is_found_by_its_environment():
    run = str(uuid.uuid4())
    lost = RunsWithoutProcess(after_s=0.0)
    assert lost.of(said(**{run: "RUNNING"})) == {run}
    command = [sys.executable, "-c", "print(1, flush=True); input()"]
    with subprocess.Popen(
        command, env={**os.environ, "PREFECT__FLOW_RUN_ID": run}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert lost.of(said(**{run: "RUNNING"})) == frozenset()
        process.communicate(b"\n")
    assert lost.of(said(**{run: "RUNNING"})) == {run}


def test_a_run_that_prefect_did_not_hear_has_not_failed(tmp_path):
    settings = Settings(home=tmp_path)  # pyright: ignore[reportCallIssue]
    with pytest.raises(SystemExit) as ended, crashed_where_prefect_is_away(settings):
        raise httpx.ConnectError("connection refused")
    assert ended.value.code == 75
    with pytest.raises(SpecError), crashed_where_prefect_is_away(settings):
        raise SpecError("the recipe is wrong")
