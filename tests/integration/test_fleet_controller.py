"""The controller through its real HTTP application on a real SQLite file: signed reports, rollouts, kills, roles, the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from model_core.access import Tokens, read_table, token_digest
from model_core.spec.fleet.documents import ShadowComparison
from model_core.spec.fleet.kill_list import KillList, check_successor
from model_core.spec.fleet.signatures import make_key, opened, trusted
from serving.fleet.controller.app import all_endpoints, create_app
from serving.fleet.controller.http.mlflow_hook import MlflowHook
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.database import Database
from serving.fleet.controller.store.operator_log import Actor
from serving.fleet.controller.store.releases import Offer, offer
from tests.scale.fleet_controller import assert_consistent
from tests.simulated_fleet import SimulatedCell

NEW, OLD = "a" * 64, "b" * 64
ROOT = Path(__file__).parents[2]
PLAN = {
    "name": "pick-4",
    "release": NEW,
    "stages": [
        {"name": "one", "cells": 1, "minimum_episodes": 5},
        {"name": "fleet", "share": 1.0, "hold_out": 0.25, "minimum_episodes": 5, "proof": {"margin": 0.3, "maximum_episodes": 500}},
    ],
    "guards": {"interventions": 0.3},
}
BO = Actor(subject="bo", role="admin")
PEOPLE = {"look": "observe", "ada": "operate", "bo": "admin", "bo-2": "admin", "cy": "admin"}


@dataclass
class World:
    """A controller with a virtual clock, and cells."""

    client: TestClient
    controller: Controller
    now: list[float]
    cells: list[SimulatedCell] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def post(self, path, body=None, by="bo", expect=200):
        reply = self.client.post(path, json=body or {}, headers={"authorization": f"Bearer {by}"})
        assert reply.status_code == expect, reply.text
        return reply.json()

    def get(self, path, by="look", expect=200):
        reply = self.client.get(path, headers={"authorization": f"Bearer {by}"})
        assert reply.status_code == expect, reply.text
        return reply.json()

    def add(self, count, **more):
        for _ in range(count):
            cell = SimulatedCell(name=f"cell-{len(self.cells)}", running=OLD, rates={OLD: 0.9, NEW: 0.9}, **more)
            self.post(f"/v1/cells/{cell.name}/enrol", cell.enrolment)
            self.cells.append(cell)

    def send(self, cell, message=None):
        reply = self.client.post(f"/v1/cells/{cell.name}/report", content=message or cell.report(self.now[0]))
        assert reply.status_code == 200, reply.text
        return cell.answered(reply.content, self.controller.key.public_key())

    def round(self, episodes=1):
        """Each cell runs an episode and reports; the controller looks."""
        for _ in range(episodes):
            self.now[0] += 30.0
            for cell in self.cells:
                cell.episode(self.now[0], self.rng)
                self.send(cell)
        self.look()

    def look(self):
        self.client.portal.call(self.controller.look)

    def rollout(self):
        return self.get("/v1/rollouts")[-1]

    def rows(self, text):
        from sqlalchemy import text as sql

        return self.client.portal.call(self.controller.do, lambda db: [tuple(row) for row in db.execute(sql(text))])


@pytest.fixture
def world(tmp_path):
    names = {token_digest(name): {"subject": name.partition("-")[0], "role": role} for name, role in PEOPLE.items()}
    now = [1_000_000.0]
    controller = Controller(Database(f"sqlite:///{tmp_path / 'fleet.db'}"), Ed25519PrivateKey.generate(), clock=lambda: now[0])
    with TestClient(
        create_app(controller, Tokens(read_table(names)), look_every_s=0.0, hook=MlflowHook(controller=controller, secret="s" * 32))
    ) as client:
        yield World(client=client, controller=controller, now=now)


def started(world, plan=PLAN):
    world.add(4)
    world.round()
    world.post("/v1/releases", {"digest": NEW, "model_version": "pick/4", "allowed_by": "the gate promotes it"}, by="ada")
    return world.post("/v1/rollouts", {"plan": plan}, by="ada")


def gauges_of(world):
    text = world.client.get("/metrics", headers={"authorization": "Bearer look"}).text
    lines = (line.removeprefix("actwright_fleet_").rsplit(" ", 1) for line in text.splitlines() if line.startswith("actwright_fleet_"))
    return {name: float(value) for name, value in lines}


def test_a_good_release_reaches_every_cell_stage_by_stage(world):
    done = started(world)
    assert done["id"] == 1
    world.round()
    assert sum(cell.running == NEW for cell in world.cells) == 1
    world.round()
    gauges = gauges_of(world)
    assert (gauges['open_rollouts{status="running"}'], gauges['open_rollouts{status="paused"}']) == (1.0, 0.0)
    assert (gauges['rollout_proposed_cells{rollout="1"}'], gauges['rollout_reached_cells{rollout="1"}']) == (1.0, 1.0)
    seen = set()
    for _ in range(80):
        world.round()
        status = world.rollout()
        seen.add((status["status"], status["stage"]))
        if status["status"] == "passed":
            break
        assert sum(cell.running == OLD for cell in world.cells) >= 1  # a hold-out until the verdict
    assert ("running", "fleet") in seen
    world.round(2)  # told in the first answer, reported in the second
    status = world.rollout()
    assert (status["reached"], status["proposed"], status["cells"]) == (4, 4, 4)
    assert "reached 4 of 4" in status["told"]
    gauges = gauges_of(world)
    assert (gauges['open_rollouts{status="running"}'], gauges['cells{state="settled"}']) == (0.0, 4.0)
    assert not any(name.startswith("rollout_") for name in gauges)  # of open ones only
    world.now[0] += 600.0
    told = world.rollout()["told"]
    assert "4 stale since 1970-01-1" in told
    assert_consistent(world.rows)


def test_a_bad_release_is_rolled_back_and_the_log_says_why(world):
    started(world)
    for cell in world.cells:
        cell.rates[NEW] = 0.1
    for _ in range(30):
        world.round()
        if world.rollout()["status"] == "rolled back":
            break
    status = world.rollout()
    assert status["status"] == "rolled back"
    assert "shown to be worse" in status["reason"]
    assert status["finished"] < 30
    world.round()
    assert {cell.running for cell in world.cells} == {OLD}
    assert all(cell.desired.rollback_to == (OLD,) for cell in world.cells)
    entry = world.get("/v1/log")[-1]
    assert (entry["subject"], entry["action"]) == ("controller", "rollout")
    assert "shown to be worse" in entry["detail"]
    world.post("/v1/rollouts", {"plan": {**PLAN, "name": "again"}, "baseline": OLD}, by="ada")
    assert "came after" in world.post("/v1/rollouts/1/rollback", by="ada", expect=409)["reason"]


def test_nothing_is_counted_twice_whatever_is_sent_again(world):
    started(world)
    world.round()
    cell = world.cells[0]
    first = cell.episode(world.now[0], world.rng)
    message = cell.report(world.now[0])
    answers = [world.client.post(f"/v1/cells/{cell.name}/report", content=message) for _ in range(3)]
    assert {reply.status_code for reply in answers} == {200}
    cell.waiting = [first, cell.episode(world.now[0], world.rng)]  # the answer was lost: the next report carries it again
    world.send(cell)
    cell.boot, cell.waiting = "boot-2", [first]
    world.send(cell)
    counted = dict(world.rows(f"select id, count(*) from actwright_fleet_episodes where cell = '{cell.name}' group by id"))
    assert set(counted.values()) == {1}
    assert len(counted) == cell.number
    # an old report on a long way does not turn the cell back
    cell.running = NEW
    world.send(cell)
    world.client.post(f"/v1/cells/{cell.name}/report", content=message)
    assert {one["name"]: one["running"] for one in world.get("/v1/cells")}[cell.name] == NEW


def test_only_the_cell_itself_reports_for_it(world):
    world.add(2)
    one, other = world.cells
    forged = one.report(world.now[0])
    for path, message, says in (
        (f"/v1/cells/{other.name}/report", forged, "not known here"),
        (f"/v1/cells/{one.name}/report", forged.replace(b"0.1.0", b"0.1.1"), "does not hold"),
        ("/v1/cells/nobody/report", forged, "not known here"),
        (f"/v1/cells/{one.name}/report", b"{}", "no signed document"),
        (f"/v1/cells/{one.name}/report", b"\xff" * 100, "no signed document"),
    ):
        reply = world.client.post(path, content=message)
        assert reply.status_code == 401
        assert says in reply.json()["reason"]
    one.site = "plant"
    reply = world.client.post(f"/v1/cells/{one.name}/report", content=one.report(world.now[0]))
    assert (reply.status_code, reply.json()["code"]) == (409, "REFUSED")
    assert "enrolled at lab" in reply.json()["reason"]


def test_clocks_that_are_hours_off_change_no_verdict(world):
    world.add(1, offset_s=-7_200.0)
    world.add(1, offset_s=7_200.0)
    world.add(2)
    world.round()
    before = world.cells[0].episode(world.now[0], world.rng)
    world.post("/v1/releases", {"digest": NEW, "model_version": "pick/4", "allowed_by": "the gate promotes it"})
    world.now[0] += 5.0
    world.post("/v1/rollouts", {"plan": PLAN})
    world.now[0] += 60.0
    for cell in world.cells:
        cell.episode(world.now[0], world.rng)
        world.send(cell)
    rows = dict(world.rows("select id, side from actwright_fleet_episodes where rollout = 1"))
    assert before.id not in rows  # it began before the rollout did, whatever its cell's clock says
    assert len(rows) == 4


def test_an_episode_of_a_clock_that_was_set_back_since_keeps_its_length_and_ended_when_it_was_received(world):
    world.add(1)
    world.cells[0].offset_s = 7_200.0
    world.cells[0].episode(world.now[0], world.rng, lasts_s=20.0)
    world.cells[0].offset_s = 0.0
    world.send(world.cells[0])
    ((started_s, ended_s),) = world.rows("select started_at_s, ended_at_s from actwright_fleet_episodes")
    assert (started_s, ended_s) == pytest.approx((world.now[0] - 20.0, world.now[0]), abs=1.0)


def test_a_guard_a_refusing_cell_and_a_person_stop_a_rollout(world):
    started(world)
    world.round()
    canary = next(cell for cell in world.cells if cell.running == NEW)
    canary.refuses = NEW
    world.send(canary)
    world.look()
    assert world.rollout()["status"] == "paused"
    assert "PROBES" in world.rollout()["reason"]
    canary.refuses = ""
    world.send(canary)
    world.post("/v1/rollouts/1/resume", {"reason": "probes repaired"}, by="ada")
    assert world.rollout()["status"] == "running"
    for _ in range(9):
        canary.episode(world.now[0] + 1, world.rng, interventions=2)
    world.send(canary)
    world.look()
    assert "guard interventions" in world.rollout()["reason"]
    assert world.rollout()["status"] == "rolled back"
    world.post("/v1/rollouts/1/pause", {}, expect=409)
    world.post("/v1/freeze", {"reason": "inventory"}, by="ada")
    world.post("/v1/rollouts", {"plan": PLAN}, expect=409)
    world.post("/v1/unfreeze", {"reason": "done"}, by="ada", expect=403)
    world.post("/v1/unfreeze", {"reason": "done"}, by="bo")
    world.round(2)
    world.post("/v1/rollouts", {"plan": PLAN})
    assert "are in rollout 2" in world.post("/v1/rollouts", {"plan": {**PLAN, "name": "again"}}, expect=409)["reason"]


def kill_list(world):
    """As a policy service polls it."""
    return opened(world.client.get("/v1/kill-list").content, KillList, trusted(world.controller.key.public_key()))


def test_a_kill_is_of_one_person_and_its_release_of_two(world):
    started(world)
    world.round()
    world.post("/v1/kills", {"scope": "digest", "target": NEW, "reason": "drops cups"}, by="ada", expect=403)
    killed = world.post("/v1/kills", {"scope": "digest", "target": NEW, "reason": "drops cups"}, by="bo")
    assert world.rollout()["status"] == "rolled back"
    revision = world.cells[0].desired.revision
    world.round()
    assert all(cell.desired.blocked == (NEW,) for cell in world.cells)
    assert world.cells[0].desired.revision > revision
    assert {cell.running for cell in world.cells} == {OLD}
    number = killed["kill"]["id"]
    world.post(f"/v1/kills/{number}/release", by="bo")
    for same in ("bo", "bo-2"):  # another token of the same person is the same person
        assert "second person" in world.post(f"/v1/kills/{number}/release", by=same, expect=409)["reason"]
    world.round()
    assert world.cells[0].desired.blocked == (NEW,)
    before = kill_list(world)
    assert [(kill.scope, kill.value) for kill in before.kills] == [("digest", NEW)]
    assert world.post(f"/v1/kills/{number}/release", by="cy")["kill"]["released_by"] == "cy"
    time.sleep(0.6)
    after = kill_list(world)
    check_successor(before, after)
    assert (after.kills, [one.by for one in after.released]) == ((), [("bo", "cy")])
    world.round()
    assert world.cells[0].desired.blocked == ()
    assert "already" in world.post(f"/v1/kills/{number}/release", by="cy", expect=409)["reason"]
    world.post("/v1/kills", {"scope": "model", "target": "pick/5", "reason": "drops cups"})
    world.round()
    assert world.cells[0].desired.blocked == ()
    world.post("/v1/kills", {"scope": "model", "target": "pick/4", "reason": "drops cups"})  # one version, as policy services read it
    world.round()
    assert world.cells[0].desired.blocked == (NEW,)
    unreadable = ({"scope": "digest", "target": "A" * 64}, {"scope": "model", "target": "m" * 201})  # every cell would refuse the answer
    unknown = ({"scope": "cell", "target": "cell-99"}, {"scope": "site"}, {"scope": "fleet", "target": "x"}, {"scope": "planet"})
    for wrong in (*unreadable, *unknown):
        assert world.client.post("/v1/kills", json={**wrong, "reason": "r"}, headers={"authorization": "Bearer bo"}).status_code in (
            400,
            409,
        )


def test_a_killed_model_of_many_releases_is_blocked_where_it_runs(world):
    """An answer carries at most 256 digests: first those that the cell has."""
    started(world)
    world.round()

    def offer_many(db):
        offer(db, Offer(digest=OLD, model_version="pick/1", allowed_by="the gate"), BO, 1.0)
        for number in range(300):
            offer(db, Offer(digest=f"{number:064x}", model_version=f"pick/{number + 5}", allowed_by="the gate"), BO, 2.0 + number)

    world.client.portal.call(world.controller.do, offer_many)
    world.post("/v1/kills", {"scope": "model", "target": "pick", "reason": "drops cups"})
    world.round()
    for cell in world.cells:
        assert OLD in cell.desired.blocked
        assert len(cell.desired.blocked) == 256


def test_a_look_reads_again_the_cells_that_changed_and_no_others(world):
    world.add(3)
    world.round()

    def read():
        return world.client.portal.call(world.controller.do, world.controller.cells.read)

    before = read()
    world.send(world.cells[1])
    assert [one is other for one, other in zip(before, read(), strict=True)] == [True, False, True]
    world.post("/v1/cells/cell-2/enrol", {**world.cells[2].enrolment, "site": "plant"})  # in the same second
    assert [cell.site for cell in read()] == ["lab", "lab", "plant"]
    world.add(1)
    assert [cell.name for cell in read()] == ["cell-0", "cell-1", "cell-2", "cell-3"]


def test_a_changed_log_is_found(world):
    started(world)
    from model_core.spec.fleet.order_log import LogEntry, first_problem

    found = [LogEntry(**entry) for entry in world.get("/v1/log")]
    assert first_problem(found) == ""
    assert "entry 2 is missing" in first_problem([found[0], *found[2:]])
    import dataclasses

    changed = [*found[:2], dataclasses.replace(found[2], subject="eve"), *found[3:]]
    assert "entry 3" in first_problem(changed)
    assert "was changed" in first_problem(changed)


def test_every_endpoint_asks_for_its_role_and_none_changes_by_get(world):
    before = world.get("/v1/log")
    for endpoint in all_endpoints():
        path = endpoint.path.replace("{cell}", "cell-0").replace("{id}", "1")
        assert world.client.request(endpoint.method, path, json={}).status_code == 401
        if endpoint.method == "POST":
            assert world.client.post(path, json={}, headers={"authorization": "Bearer look"}).status_code == 403
            assert world.client.get(path, headers={"authorization": "Bearer bo"}).status_code in (200, 405)
            assert world.client.post(path, content=b"x", headers={"authorization": "Bearer bo"}).status_code == 415
            headers = {"authorization": "Bearer bo", "origin": "https://elsewhere.example"}
            assert world.client.post(path, json={}, headers=headers).status_code == 403
    assert world.client.get("/metrics").status_code == 401
    assert world.client.get("/livez").status_code == 200
    assert world.client.get("/nothing", headers={"authorization": "Bearer look"}).status_code == 404
    assert world.get("/v1/log") == before


def test_the_openapi_document_is_the_committed_one_and_names_every_endpoint(world):
    served = world.get("/openapi.json")
    assert served == json.loads((ROOT / "docs" / "fleet_api.json").read_text(encoding="utf-8"))
    assert {"/v1/cells/{cell}/report", "/v1/hooks/mlflow"} <= set(served["paths"])


def test_comparisons_in_shadow_go_on_where_a_policy_service_was_started_again(world):
    stages = [{"name": "shadow", "cells": 1, "shadow": True, "minimum_decisions": 100}, *PLAN["stages"]]
    started(world, {**PLAN, "stages": stages})
    (name,) = world.rollout()["shadows"]
    cell = next(one for one in world.cells if one.name == name)

    def told(count, refused, depth):
        found = ShadowComparison(release=NEW, task="pick", count=count, asked=count + refused, refused=refused, distances={"depth": depth})
        world.send(cell, cell.report(world.now[0], shadow=(found,)))
        world.look()
        return world.rollout()

    assert told(40, 2, 0.1)["decisions"] == 40
    assert told(60, 3, 0.1)["decisions"] == 60
    after = told(20, 1, 0.5)  # it counts from 0 again
    assert after["decisions"] == 80
    assert after["distances"]["depth"] == pytest.approx((60 * 0.1 + 20 * 0.5) / 80)
    assert after["status"] == "running"
    assert told(40, 1, 0.5)["stage"] == "one"
    assert world.rollout()["decisions"] == 100, "what was found stays when the stage is over"


def test_a_candidate_that_refuses_everything_pauses_at_once(world):
    stages = [{"name": "shadow", "cells": 1, "shadow": True, "minimum_decisions": 100}, *PLAN["stages"]]
    started(world, {**PLAN, "stages": stages})
    cell = next(one for one in world.cells if one.name == world.rollout()["shadows"][0])
    found = ShadowComparison(release=NEW, task="pick", count=0, asked=20, refused=20, distances={"refused": 1.0})
    world.send(cell, cell.report(world.now[0], shadow=(found,)))
    world.look()
    assert world.rollout()["status"] == "paused"
    assert "refuses 20 of 20 observations" in world.rollout()["reason"]
    assert world.rollout()["distances"]["refused"] == 1.0


def test_mlflow_only_requests_a_rollout(world):
    body = json.dumps({"entity": "registered_model_alias", "data": {"name": "pick", "alias": "champion", "version": "4"}}).encode()

    def hook(secret="s" * 32, at=None):
        stamp = str(int(at if at is not None else world.now[0]))
        signed = hmac.new(secret.encode(), f"d1.{stamp}.".encode() + body, hashlib.sha256).digest()
        headers = {
            "X-MLflow-Signature": f"v1,{base64.b64encode(signed).decode()}",
            "X-MLflow-Delivery-Id": "d1",
            "X-MLflow-Timestamp": stamp,
            "content-type": "application/json",
        }
        return world.client.post("/v1/hooks/mlflow", content=body, headers=headers)

    assert hook(secret="t" * 32).status_code == 401
    assert hook(at=world.now[0] - 4_000).status_code == 401
    reply = hook()
    assert reply.status_code == 503  # no MLflow server was named, and the hint alone is no news
    assert world.get("/v1/requests") == []


def test_two_controllers_on_one_database_count_everything_once(world, tmp_path):
    started(world)
    second = Controller(Database(f"sqlite:///{tmp_path / 'fleet.db'}"), world.controller.key, clock=lambda: world.now[0])
    with TestClient(create_app(second, None, look_every_s=0.0)) as client:
        for turn in range(24):
            world.now[0] += 30.0
            for index, cell in enumerate(world.cells):
                cell.episode(world.now[0], world.rng)
                message = cell.report(world.now[0])
                for side in (world.client, client) if index == turn % 4 else ((world.client, client)[turn % 2],):
                    reply = side.post(f"/v1/cells/{cell.name}/report", content=message)
                cell.answered(reply.content, world.controller.key.public_key())
            world.look()
            client.portal.call(second.look)
    total = sum(cell.number for cell in world.cells)
    assert world.rows("select count(*) from actwright_fleet_episodes") == [(total,)]
    assert_consistent(world.rows)
    assert world.rollout()["finished"] >= 5


def test_a_killed_controller_goes_on_where_it_was(tmp_path):
    """SIGKILL of the real process between, and in, reports: what was acknowledged is there once, the rollout goes on, the chain holds."""
    key = make_key(tmp_path / "controller.pem")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, rng = f"http://127.0.0.1:{port}", np.random.default_rng(2)
    command = [sys.executable, "-m", "serving.fleet.controller", "--key", str(tmp_path / "controller.pem"), "--port", str(port)]
    command += ["--database", f"sqlite:///{tmp_path / 'fleet.db'}", "--look-every", "0.05"]

    def start():
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                    return process
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the controller did not start")

    cells = [SimulatedCell(name=f"cell-{n}", running=OLD, rates={OLD: 0.9, NEW: 0.9}) for n in range(3)]
    process = start()
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=5.0) as client:
            for cell in cells:
                client.post(f"/v1/cells/{cell.name}/enrol", json=cell.enrolment).raise_for_status()
                cell.answered(client.post(f"/v1/cells/{cell.name}/report", content=cell.report(time.time())).content, key.public_key())
            client.post("/v1/releases", json={"digest": NEW, "model_version": "pick/4", "allowed_by": "gate"}).raise_for_status()
            client.post("/v1/rollouts", json={"plan": PLAN}).raise_for_status()
            for turn in range(20):
                for cell in cells:
                    cell.episode(time.time(), rng, lasts_s=0.0)
                    if turn == 8 and cell is cells[1]:
                        process.send_signal(signal.SIGKILL)
                    try:
                        reply = client.post(f"/v1/cells/{cell.name}/report", content=cell.report(time.time()))
                        cell.answered(reply.content, key.public_key())
                    except httpx.TransportError:
                        process.wait()
                        process = start()
            told = client.get("/v1/rollouts").json()[0]
            assert told["finished"] >= 5
            assert told["status"] in ("running", "passed")
            from model_core.spec.fleet.order_log import LogEntry, first_problem

            assert first_problem(LogEntry(**entry) for entry in client.get("/v1/log").json()) == ""
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    import sqlite3

    with sqlite3.connect(tmp_path / "fleet.db") as db:
        counts = dict(db.execute("select cell, count(*) from actwright_fleet_episodes group by cell").fetchall())
    for cell in cells:
        assert counts[cell.name] + len(cell.waiting) >= cell.number
        assert counts[cell.name] <= cell.number
