"""A deployment that retrains: started by hand, by the clock (a *scheduled* run is seen, `make soak`) and by new recordings."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.artifacts.step_store import StepStore
from components.release.retraining_proposals import ProposalBook, ProposalState, due
from flows.pipeline.recipes import get_recipe
from flows.platform.prefect_server import start_prefect_server
from flows.platform.settings import Settings
from tests.integration.loop_runs import RUN, Home, eventually, kill_tree

pytestmark = pytest.mark.slow


def asked(address: str, document: dict) -> Any:
    """What Prefect answers to a POST of `document`."""
    request = urllib.request.Request(address, data=json.dumps(document).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def accepted(address: str, document: dict) -> bool:
    """Whether Prefect takes a POST; 503 while its database is busy, which its own client tries again too."""
    try:
        asked(address, document)
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False
    return True


def flow_runs(api: str) -> list[dict]:
    return asked(f"{api}/flow_runs/filter", {})


def finished_step(home: Home, stage: str) -> str:
    """A finished step of `stage` in the home's store, as small as one can be; returns its digest."""
    store = StepStore(home.root / "home" / "store")
    (store.open(stage, "0" * 24) / "made.txt").write_text(stage)
    return store.commit(stage, "0" * 24, {}, {}, {"made": stage}).digest


def test_no_event_is_dropped_by_a_window_and_no_lock_is_lost_with_a_server(monkeypatch):
    """Inside a window Prefect drops the rest of a burst, by the sender's clock; leases of its limits end with its server's memory."""
    from datetime import timedelta

    from flows.pipeline import retrain as module

    served = []
    monkeypatch.setattr(module, "work_for", served.append)
    module.serve_deployment("recipe.json", "0 3 * * *", automatic=False)
    (deployment,) = served
    (trigger,) = deployment.triggers
    assert (trigger.threshold, trigger.within) == (1, timedelta(0))
    assert deployment.concurrency_limit is None, "one at a time, by the worker's own limit"
    assert deployment.work_pool_name == module.POOL
    assert not [value for value in deployment.parameters.values() if "{{" in str(value)], "nothing is rendered from an event"


@pytest.fixture
def prefect_api(tmp_path: Path) -> Iterator[str]:
    """A server of its own, as where it runs on another machine: what this test stops is not its."""
    server = start_prefect_server(Settings(home=tmp_path / "prefect-home"), pages=True)
    try:
        server.wait_ready(400)
        yield server.ready_url.removesuffix("/health")
    finally:
        server.stop()


@pytest.mark.soak  # short: test_proposals and the deployment above
@pytest.mark.timeout(3000)
def test_an_approved_retraining_is_carried_out_once_whatever_is_killed(tmp_path: Path, prefect_api: str):
    """The worker is killed while it trains, then the command; the approval and what was finished stand, and it ends as one undisturbed."""
    home = Home(tmp_path)
    recipe, at = str(tmp_path / "small.json"), {"ACTWRIGHT_PREFECT_API_URL": prefect_api}
    changes = ("--set", "train.steps=60", "--set", "train.checkpoint_every=10", "--set", "train.threads=1")
    assert home.actwright("recipe", *RUN[1:], *changes, "--out", recipe).returncode == 0
    assert home.actwright("data", "collect", recipe).returncode == 0

    def started() -> subprocess.Popen[str]:
        process = home.start("schedule", recipe, "--cron", "0 0 1 1 *", **at)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    def below(process: subprocess.Popen[str], words: str) -> list[psutil.Process]:
        return [one for one in psutil.Process(process.pid).children(recursive=True) if words in " ".join(one.cmdline())]

    def flows_of_home() -> list[psutil.Process]:
        return [one for one in home.processes() if "prefect.engine" in " ".join(one.cmdline())]

    book = ProposalBook(tmp_path / "home" / "proposals")
    proposal = due(get_recipe(recipe), (), (), ever_run=False)
    assert proposal is not None
    book.propose(proposal)
    process = started()
    try:
        asked = home.actwright("approve", proposal.proposal_id, "--scheduled")
        assert json.loads(asked.stdout)["state"] == "requested"
        trains = eventually(lambda: list((tmp_path / "home" / "store" / "train").glob("*.partial/metrics.jsonl")), timeout_s=900)
        (worker,) = below(process, "flows.pipeline.retrain")
        (flow,) = flows_of_home()
        worker.kill()
        eventually(lambda: not flow.is_running() or flow.status() == psutil.STATUS_ZOMBIE, timeout_s=60)  # two never run at once
        eventually(flows_of_home, timeout_s=300)  # the command has started a worker again, and put the run back
        kill_tree(process.pid)  # and now the command with all of its own
        process = started()
        eventually(lambda: book.find(proposal.proposal_id).state is ProposalState.DONE, timeout_s=1500, every_s=2.0)
        (run,) = [one for one in flow_runs(prefect_api) if one["idempotency_key"] == proposal.proposal_id]
        eventually(lambda: flow_runs_done(prefect_api, run["id"]), timeout_s=120)
        assert trains
        curve = (next((tmp_path / "home" / "store" / "train").glob("*/metrics.jsonl"))).read_text().splitlines()
        assert [json.loads(line)["step"] for line in curve if "loss" in json.loads(line)] == list(range(1, 61))
    finally:
        kill_tree(process.pid)
        for left in home.processes():
            kill_tree(left.pid)
        process.wait()


def flow_runs_done(api: str, run: str) -> bool:
    """Whether the flow run is completed."""
    return next(one for one in flow_runs(api) if one["id"] == run)["state_type"] == "COMPLETED"


@pytest.mark.soak  # short: the window and the lock of the event above
@pytest.mark.timeout(500)
def test_new_recordings_start_a_retraining(tmp_path: Path):
    """The event that `actwright ingest` sends wakes the deployment; the clock (once a year) has no part in it."""
    home = Home(tmp_path)
    finished_step(home, "train")
    recordings = finished_step(home, "ingest")
    process = home.start("schedule", "miniature", "--cron", "0 0 1 1 *")
    try:
        assert process.stdout is not None
        api = f"{json.loads(process.stdout.readline())['prefect']}/api"
        proposals = tmp_path / "home" / "proposals"
        code = "from flows.commands.operations.schedule import tell_new_recordings; print(tell_new_recordings(3))"

        def told_and_seen() -> list[Path]:
            """An event that came before the deployment's trigger was loaded wakes nobody: tell again, as the next ingest would."""
            told = subprocess.run(
                [sys.executable, "-c", code], env=home.environment, capture_output=True, text=True, check=True, timeout=120
            )
            assert told.stdout.strip() == "True"
            with contextlib.suppress(AssertionError):
                eventually(lambda: flow_runs(api), timeout_s=25)
                return eventually(lambda: list(proposals.glob("*.json")), timeout_s=90)  # type: ignore[return-value]
            return []

        eventually(told_and_seen, timeout_s=240)
        done = eventually(lambda: [r for r in flow_runs(api) if r["state_type"] == "COMPLETED"], timeout_s=60)
        assert {run["created_by"]["type"] for run in done} == {"AUTOMATION"}  # type: ignore[union-attr]
        assert not [run for run in done if run["auto_scheduled"]]  # type: ignore[union-attr]
        (path,) = proposals.glob("*.json")
        proposal = json.loads(path.read_text())
        assert proposal["reason"] == "1 ingested data sets are new since the last retraining"
        assert proposal["recordings"] == proposal["recipe"]["include"] == [recordings]
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        for left in home.processes():
            kill_tree(left.pid)
        kill_tree(process.pid)
        process.wait()


@pytest.mark.soak  # short: what is deployed, with which trigger and limit, above; what it proposes in test_proposals
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cron", [pytest.param("0 3 1 1 *", id="by hand"), pytest.param("* * * * *", id="by cron")])
def test_the_deployment_runs_and_it_proposes(tmp_path: Path, cron: str):
    """The clock starts it within a minute; by hand, the same deployment starts at once, and its schedule is looked at."""
    home, is_timed = Home(tmp_path), cron.startswith("*")
    process = home.start("schedule", "miniature", "--cron", cron)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["deployment"] == "retrain/retrain"
        assert told["automatic"] is False
        api = f"{told['prefect']}/api"

        proposals = tmp_path / "home" / "proposals"
        (deployment,) = eventually(lambda: asked(f"{api}/deployments/filter", {}), timeout_s=60)  # type: ignore[misc]
        assert [(one["active"], one["schedule"]["cron"]) for one in deployment["schedules"]] == [(True, cron)]
        if not is_timed:
            run = f"{api}/deployments/{deployment['id']}/create_flow_run"
            eventually(lambda: accepted(run, {"state": {"type": "SCHEDULED"}}), timeout_s=60)
        eventually(lambda: list(proposals.glob("*.json")), timeout_s=180)
        done = eventually(lambda: [r for r in flow_runs(api) if r["state_type"] == "COMPLETED"], timeout_s=60)
        assert done[0]["auto_scheduled"] == is_timed
        assert not is_timed or done[0]["created_by"]["type"] == "SCHEDULE"

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
