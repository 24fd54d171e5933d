"""A version that MLflow's alias asks for is approved by a person and rolled out once, whatever is killed in between."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from components.adapters.http import NoAnswerError
from components.adapters.http import request as http
from components.adapters.processes import free_port
from components.deployment.fleet.controller import ControllerFiles, ask, order, running_controller
from components.deployment.gateway_service import Listening
from components.deployment.service_address import ServiceCredentials
from flows.pipeline.rollouts.situation import Step, situation_of
from flows.platform.prefect_server import start_prefect_server
from flows.platform.settings import Settings
from model_core.spec.fleet.signatures import make_key
from serving.fleet.controller.app import create_app
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.database import Database
from serving.fleet.controller.store.releases import RolloutRequest, request
from tests.integration.loop_runs import Home, eventually, kill_tree
from tests.simulated_fleet import SimulatedCell

NEW, OTHER, OLD = "a" * 64, "c" * 64, "b" * 64
ASKED = RolloutRequest(model="pick", version="4", alias="champion", asked_at_s=1.0, source="mlflow")
PLAN = {"name": "careful", "stages": [{"name": "one", "cells": 1, "minimum_episodes": 2}]}
VERSION = {"model": "pick", "version": "4"}


@dataclass
class World:
    client: TestClient
    controller: Controller
    cells: list[SimulatedCell] = field(default_factory=lambda: [SimulatedCell(name=f"cell-{n}", running=OLD) for n in range(2)])

    def post(self, path, body, expect=200):
        reply = self.client.post(path, json=body)
        assert reply.status_code == expect, reply.text
        return reply.json()

    def situation(self):
        (asked,) = self.client.get("/v1/requests").json()
        number = asked["rollout"]
        return situation_of(asked, self.client.get(f"/v1/rollouts/{number}").json() if number is not None else None)

    def start(self, expect=200):
        return self.post("/v1/requests/start", {**VERSION, "plan": PLAN}, expect)


@pytest.fixture
def world(tmp_path):
    controller = Controller(Database(f"sqlite:///{tmp_path / 'fleet.db'}"), Ed25519PrivateKey.generate(), clock=lambda: 1e6)
    with TestClient(create_app(controller, None, look_every_s=0.0)) as client:
        here = World(client=client, controller=controller)
        for cell in here.cells:
            here.post(f"/v1/cells/{cell.name}/enrol", cell.enrolment)
            assert client.post(f"/v1/cells/{cell.name}/report", content=cell.report(1e6)).status_code == 200
        client.portal.call(controller.do, lambda db: request(db, ASKED))
        yield here


def test_what_was_asked_for_is_started_once_and_only_as_a_person_approved_it(world):
    assert (world.situation().step, world.situation().key) == (Step.WAIT, "no release")
    assert "offered" in world.post("/v1/requests/approve", {**VERSION, "release": NEW}, 409)["reason"]
    for digest, version in ((NEW, "pick/4"), (OTHER, "pick/5")):
        world.post("/v1/releases", {"digest": digest, "model_version": version, "allowed_by": "the gate promotes it"})
    before = world.situation().key
    assert before == f"open {NEW}"
    assert "was not approved" in world.start(409)["reason"]
    assert "not one of pick/4" in world.post("/v1/requests/approve", {**VERSION, "release": OTHER}, 409)["reason"]

    assert world.post("/v1/requests/approve", {**VERSION, "release": NEW, "reason": "seen on the bench"})["head"]
    assert world.post("/v1/requests/approve", {**VERSION, "release": NEW})["head"] == "", "the same again is nothing new"
    assert world.situation().step is Step.START
    first, second = world.start(), world.start()
    assert first["id"] == second["id"] == 1
    assert [one["release"] for one in world.client.get("/v1/rollouts").json()] == [NEW]
    assert "already with rollout 1" in world.post("/v1/requests/decline", {**VERSION, "reason": "too late"}, 409)["reason"]

    assert world.situation().step is Step.WAIT
    world.post("/v1/rollouts/1/rollback", {"reason": "drops cups"})
    ended = world.situation()
    assert ended.step is Step.FAILED
    assert "in stage one: rollback by" in ended.told
    assert "drops cups" in ended.told
    actions = [entry["action"] for entry in world.client.get("/v1/log").json()]
    assert [action for action in actions if "request" in action] == ["rollout request", "request approved", "request started"]


def test_what_was_declined_is_not_started(world):
    world.post("/v1/releases", {"digest": NEW, "model_version": "pick/4", "allowed_by": "the gate promotes it"})
    assert "reason" in world.post("/v1/requests/decline", VERSION, 409)["reason"]
    world.post("/v1/requests/decline", {**VERSION, "reason": "recorded with the old gripper"})
    assert world.situation().step is Step.DECLINED
    assert world.start(409)
    assert "was declined by" in world.post("/v1/requests/approve", {**VERSION, "release": NEW}, 409)["reason"]


@dataclass
class Prefect:
    """A real server with its database in a home, at one port, that can be killed and started again."""

    settings: Settings
    port: int = field(default_factory=free_port)

    @property
    def api(self):
        return f"http://127.0.0.1:{self.port}/api"

    def start(self):
        self.child = start_prefect_server(self.settings, pages=True, port=self.port)
        self.child.wait_ready(timeout_s=900)

    def kill(self):
        kill_tree(self.child.process.pid)
        self.child.process.wait()

    def runs(self):
        """Every flow run; none while the server does not answer."""
        with contextlib.suppress(NoAnswerError):
            reply = http("POST", f"{self.api}/flow_runs/filter", timeout_s=60.0, headers={"Content-Type": "application/json"}, body=b"{}")
            return reply.json() if reply.ok else []
        return []

    def run(self, state, saw=""):
        """The only run, once it is in this state and saw this."""

        def found():
            here = [one for one in self.runs() if one["state_type"] == state]
            return [one for one in here if saw in str((one["state"].get("state_details") or {}).get("pause_key"))]

        (one,) = eventually(found, timeout_s=400)
        return one


def seeded(url, database):
    """Two cells that run the old release, a request, and a release of what was asked for."""
    nobody = ServiceCredentials()
    for number in range(2):
        cell = SimulatedCell(name=f"cell-{number}", running=OLD)
        order(url, f"/v1/cells/{cell.name}/enrol", cell.enrolment, nobody)
        assert http("POST", f"{url}/v1/cells/{cell.name}/report", body=cell.report(time.time())).ok
    order(url, "/v1/releases", {"digest": NEW, "model_version": "pick/4", "allowed_by": "the gate promotes it"}, nobody)
    beside = Database(database)
    assert beside.transaction(lambda db: request(db, ASKED))
    beside.close()


@pytest.mark.soak  # short: approved and started once, above; what is added here is Prefect's server and its worker, both killed
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_flow_run_waits_for_a_person_and_follows_the_rollout_through_kills(tmp_path: Path):
    home, nobody = Home(tmp_path), ServiceCredentials()
    key, database = tmp_path / "controller.pem", f"sqlite:///{tmp_path / 'fleet.db'}"
    make_key(key)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    prefect = Prefect(settings=Settings(home=tmp_path / "home"))  # pyright: ignore[reportCallIssue]
    serving = None
    try:
        prefect.start()
        with running_controller(ControllerFiles(database=database, key=key, log=tmp_path / "controller.log"), Listening()) as url:
            seeded(url, database)
            told = {"ACTWRIGHT_PREFECT_API_URL": prefect.api, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
            serving = home.start("fleet", "requests", "serve", str(tmp_path / "plan.yaml"), "--url", url, **told)
            waiting = prefect.run("PAUSED", saw=f"open {NEW}")
            prefect.kill()
            order(url, "/v1/requests/approve", {**VERSION, "release": NEW, "reason": "seen on the bench"}, nobody)
            time.sleep(5.0)  # without a server
            prefect.start()
            prefect.run("RUNNING")
            for worker in [
                one for one in psutil.Process(serving.pid).children() if "flows.pipeline.rollouts.flow" in " ".join(one.cmdline())
            ]:
                kill_tree(worker.pid)
            followed = prefect.run("PAUSED", saw="rollout 1 running")
            assert followed["id"] == waiting["id"], "one run for one request"
            assert [one["release"] for one in ask(url, "/v1/rollouts", nobody)] == [NEW]
            order(url, "/v1/rollouts/1/rollback", {"reason": "drops cups"}, nobody)
            ended = prefect.run("FAILED")
            assert "drops cups" in ended["state"]["message"]
            assert len(ask(url, "/v1/rollouts", nobody)) == len(prefect.runs()) == 1
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(200) == 0
    finally:
        for left in home.processes():
            kill_tree(left.pid)
        if serving is not None:
            kill_tree(serving.pid)
            out, err = serving.communicate()
            (tmp_path / "told.log").write_text(out + err)
        prefect.kill()
