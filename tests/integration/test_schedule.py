"""The clock really starts a retraining: a *scheduled* run is seen, not only a deployment that says it has a schedule."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.integration.loop_runs import Home, eventually, kill_tree

pytestmark = pytest.mark.slow


def flow_runs(api: str) -> list[dict]:
    request = urllib.request.Request(f"{api}/flow_runs/filter", data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


@pytest.mark.timeout(300)
def test_cron_runs_the_deployment_and_it_proposes(tmp_path: Path):
    home = Home(tmp_path)
    process = home.start("schedule", "miniature", "--cron", "* * * * *")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["deployment"] == "retrain/retrain"
        assert told["automatic"] is False
        api = f"{told['prefect']}/api"

        proposals = tmp_path / "home" / "proposals"
        eventually(lambda: list(proposals.glob("*.json")), timeout_s=180)
        done = eventually(lambda: [r for r in flow_runs(api) if r["auto_scheduled"] and r["state_type"] == "COMPLETED"], timeout_s=60)
        assert done[0]["created_by"]["type"] == "SCHEDULE"

        (path,) = proposals.glob("*.json")
        proposal = json.loads(path.read_text())
        assert proposal["state"] == "open"
        assert proposal["recipe"]["name"] == "miniature"
        assert not (tmp_path / "runs").exists(), "a proposal must not train anything by itself"

        workers = [p.pid for p in home.processes()]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        eventually(lambda: not [pid for pid in workers if psutil.pid_exists(pid)], timeout_s=15)
    finally:
        for left in home.processes():
            kill_tree(left.pid)
        kill_tree(process.pid)
        process.wait()

    listed = home.actwright("approve", "list")
    assert json.loads(listed.stdout)["proposals"] == [proposal["proposal_id"]]
    assert "never run here" in listed.stderr


def test_a_wrong_cron_says_what_to_type(tmp_path: Path):
    done: subprocess.CompletedProcess[str] = Home(tmp_path).actwright("schedule", "miniature", "--cron", "daily")
    assert done.returncode == 2
    assert "minute hour day month weekday" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
