"""A scheduled retraining, whole, by the commands: work pool, training on two nodes, judge, request, approval, rollout.

The nodes are network namespaces, the fleet's cells simulated; all else is what a user starts. Each part is killed once (SIGKILL).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from components.adapters.http import request as http
from components.artifacts.empty_databases import copy_database
from components.deployment.fleet.controller import OrderRefused, ask, order
from components.deployment.service_address import ServiceCredentials
from components.release.retraining_proposals import ProposalBook, ProposalState
from flows.platform.flow_runs import FlowRuns
from flows.platform.settings import Settings
from model_core.spec.errors import NotReady
from tests.fake_kube import IMAGE, FakeKube
from tests.integration.loop_runs import RUN, Home, eventually, kill_tree
from tests.integration.test_rollout_requests import OLD, Prefect
from tests.integration.test_tracking import Server, free_port
from tests.kubelets import Kubelets, end_group, kubeconfig
from tests.namespaces import needs_namespaces, two_hosts
from tests.simulated_fleet import SimulatedCell

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3600)]  # short: test_schedule, test_two_nodes, test_rollout_requests

JOB, MODEL = "train-miniature", "actwright-miniature"
CHANGES = ("train.steps=40", "train.checkpoint_every=5", "train.micro_batch=4")
PLAN = {"name": "careful", "stages": [{"name": "one", "cells": 1, "minimum_episodes": 2}]}
NOBODY = ServiceCredentials()


@dataclass
class Commands:
    """Commands of one home that run until they are killed, and what is seen of them."""

    home: Home
    told: dict[str, str]
    controller: str = ""
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        """Start it, or start it again; returns when it has told where it serves."""
        self.kill(name)
        process = self.running[name] = self.home.start(*words, **self.told)
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()[1]

    def start_fleet(self) -> None:
        """A controller on a free port, at another address each time."""
        self.controller = f"http://127.0.0.1:{free_port()}"
        self.start("fleet", "fleet", "up", "--port", self.controller.rpartition(":")[2], "--mlflow", self.told["ACTWRIGHT_MLFLOW_URI"])

    def serve(self, plan: Path) -> None:
        """The flow of requests, for the controller where it is now."""
        self.start("serve", "fleet", "requests", "serve", str(plan), "--url", self.controller)

    def kill(self, name: str) -> None:
        """SIGKILL, with all processes below it."""
        if process := self.running.pop(name, None):
            kill_tree(process.pid)
            process.communicate()

    def json(self, *words: str) -> dict[str, Any]:
        """The answer of a command that ends."""
        done = self.home.actwright(*words, timeout_s=600, **self.told)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def asked(self, path: str) -> list[dict[str, Any]]:
        """What the controller tells; nothing where it does not answer."""
        with contextlib.suppress(NotReady, OrderRefused):
            return ask(self.controller, path, NOBODY)
        return []

    def flows(self) -> list[psutil.Process]:
        """The processes of flow runs."""
        return [one for one in self.home.processes() if "prefect.engine" in " ".join(one.cmdline())]

    def below(self, name: str, words: str) -> list[psutil.Process]:
        below = psutil.Process(self.running[name].pid).children(recursive=True)
        return [one for one in below if words in " ".join(one.cmdline())]

    def steps(self) -> list[int]:
        """The steps of the only training."""
        found = [*(self.home.root / "home" / "store" / "train").glob("*/metrics.jsonl")]
        return [json.loads(line)["step"] for line in found[0].read_text().splitlines() if '"loss"' in line] if found else []

    def stage(self, name: str) -> Callable[[], bool]:
        """Whether a stage was begun."""
        return lambda: any((self.home.root / "home" / "store" / name).glob("*"))


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Kubelets]:
    """A cluster of two machines; its kubeconfig is kube.yaml in `folder`."""
    with FakeKube() as kube, two_hosts([f"{JOB}-0.{JOB}", f"{JOB}-1.{JOB}"]) as spaces:
        kube.furnish()
        kubeconfig(folder, kube.url)
        kubelets = Kubelets(kube, spaces, folder)
        kubelets.start()
        try:
            yield kubelets
            assert kube.pods() == []
        finally:
            kubelets.stop()


def started(prefect: Prefect) -> bool:
    """One run of the retraining, once it is deployed."""
    with contextlib.suppress(NotReady):
        FlowRuns(api=prefect.api, deployment="retrain/retrain").make("by hand", {}, key="by hand")
        return True
    return False


def killed_for(prefect: Prefect, seconds: float) -> None:
    """Prefect's server is killed, and there again after a while."""
    prefect.kill()
    time.sleep(seconds)
    prefect.start()


def test_a_scheduled_retraining_reaches_the_fleet_whatever_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_namespaces()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # pods call their python so
    (tmp_path / "tracking").mkdir()
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    copy_database("mlflow", tmp_path / "tracking" / "mlflow.db")
    prefect = Prefect(settings=Settings(home=tmp_path / "prefect-home"))  # pyright: ignore[reportCallIssue]
    mlflow_port = free_port()
    told = {"ACTWRIGHT_PREFECT_API_URL": prefect.api, "ACTWRIGHT_MLFLOW_URI": f"http://127.0.0.1:{mlflow_port}"}
    told |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    commands = Commands(Home(tmp_path), told)
    mlflow = None
    try:
        prefect.start()
        mlflow = Server(tmp_path / "tracking", mlflow_port)
        with two_nodes(tmp_path) as nodes:
            retrained(commands, nodes, prefect, tmp_path)
        mlflow.kill()
        mlflow = Server(tmp_path / "tracking", mlflow_port)
        rolled_out(commands, prefect, tmp_path)
    finally:
        for name in list(commands.running):
            commands.kill(name)
        for left in commands.home.processes():
            kill_tree(left.pid)
        prefect.kill()
        if mlflow is not None:
            mlflow.kill()


def retrained(commands: Commands, nodes: Kubelets, prefect: Prefect, folder: Path) -> None:
    """From the schedule to a champion: every part that takes part in the training and in its judgement is killed."""
    changes = [word for change in CHANGES for word in ("--set", change)]
    schedule = (
        "schedule",
        "miniature",
        *RUN[2:],
        *changes,
        "--cron",
        "0 0 1 1 *",
        "--automatic",
        "--on-cluster",
        "--nodes",
        "2",
        "--image",
        IMAGE,
    )
    schedule = (*schedule, "--kubeconfig", str(folder / "kube.yaml"))
    commands.start("schedule", *schedule)
    eventually(lambda: started(prefect), timeout_s=600)

    eventually(lambda: len(commands.steps()) > 7, timeout_s=1500)
    end_group(next(iter(nodes.running.values())))  # a node is lost: the job is made again, and goes on from its last checkpoint
    eventually(lambda: len(commands.steps()) > 17, timeout_s=1200)
    (flow,) = commands.flows()
    for one in (*commands.below("schedule", "flows.pipeline.retrain"), flow):
        one.kill()  # the worker and its flow: the job trains on, and is taken over by the run that is put back
    eventually(commands.stage("evaluate"), timeout_s=1500)
    commands.start("schedule", *schedule)  # killed while it judges
    eventually(commands.flows, timeout_s=600)
    killed_for(prefect, 10.0)

    book = ProposalBook(folder / "home" / "proposals")
    eventually(lambda: [one for one in book.all() if one.state is ProposalState.DONE], timeout_s=1500, every_s=2.0)
    assert commands.steps() == list(range(1, 41))
    (run,) = eventually(lambda: [one for one in prefect.runs() if one["state_type"] == "COMPLETED" and one["deployment_id"]], 300)  # type: ignore[misc]
    asked = [one["id"] for one in prefect.runs() if one["deployment_id"] and not one["auto_scheduled"]]  # that of the next January apart
    assert asked == [run["id"]], "one run, put back each time"
    assert len(commands.home.digests()) >= 9, "no stage was made twice"
    assert commands.home.summary()["verdict"]["promote"]
    commands.kill("schedule")


def enrolled(url: str) -> None:
    """Two cells that run an older release."""
    for number in range(2):
        cell = SimulatedCell(name=f"cell-{number}", running=OLD)
        order(url, f"/v1/cells/{cell.name}/enrol", cell.enrolment, NOBODY)
        assert http("POST", f"{url}/v1/cells/{cell.name}/report", body=cell.report(time.time())).ok


def rolled_out(commands: Commands, prefect: Prefect, folder: Path) -> None:
    """From the champion to a rollout that a person approved, and that is started once; no controller ran when the alias moved."""
    commands.start_fleet()
    (asked,) = eventually(lambda: commands.asked("/v1/requests"), timeout_s=120)  # type: ignore[misc]
    assert (asked["model"], asked["version"], asked["decision"]) == (MODEL, "1", "open")
    enrolled(commands.controller)
    commands.serve(folder / "plan.yaml")
    waiting = prefect.run("PAUSED", saw="no release")
    commands.json("fleet", "keys", "new", str(folder / "keys"), "--site", "lab")
    made = commands.json("fleet", "release", "create", f"{MODEL}/1", "--key", str(folder / "keys" / "release.pem"), "--to", str(folder))
    commands.kill("fleet")
    commands.start_fleet()  # elsewhere: the run was made for another address
    commands.json("fleet", "offer", made["folder"], "--url", commands.controller)
    commands.serve(folder / "plan.yaml")
    assert prefect.run("PAUSED", saw=f"open {made['digest']}")["id"] == waiting["id"]
    commands.kill("serve")
    prefect.kill()
    commands.json("fleet", "requests", "approve", f"{MODEL}/1", "--url", commands.controller)
    prefect.start()
    commands.serve(folder / "plan.yaml")
    for one in eventually(lambda: commands.below("serve", "flows.pipeline.rollouts.flow"), timeout_s=120):  # type: ignore[attr-defined]
        one.kill()
    assert prefect.run("PAUSED", saw="rollout 1 running")["id"] == waiting["id"], "one run for one request"
    assert [one["release"] for one in commands.asked("/v1/rollouts")] == [made["digest"]]
    assert len(commands.asked("/v1/requests")) == 1
