"""Two controllers over one PostgreSQL, of a server of their own: what each of them does alone on SQLite, they do together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from model_core.spec.fleet.order_log import LogEntry, first_problem
from serving.fleet.controller.app import create_app
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.database import Database
from tests.integration.test_fleet_controller import NEW, OLD, PLAN, World
from tests.postgres import programs, running_postgres
from tests.scale.fleet_controller import assert_consistent

pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: package postgresql)")


class Unnamed(World):
    """A controller without tokens: every caller of this machine may do everything."""

    def post(self, path, body=None, by="", expect=200):
        reply = self.client.post(path, json=body or {})
        assert reply.status_code == expect, reply.text
        return reply.json()

    def get(self, path, by="", expect=200):
        return self.client.get(path).json()


@pytest.fixture
def pair() -> Iterator[tuple[Unnamed, Unnamed]]:
    now, key = [1_000_000.0], Ed25519PrivateKey.generate()
    with running_postgres() as url:
        both = [Controller(Database(url), key, clock=lambda: now[0]) for _ in range(2)]
        apps = [create_app(one, None, look_every_s=0.0) for one in both]
        with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
            one = Unnamed(client=first, controller=both[0], now=now)
            yield one, Unnamed(client=second, controller=both[1], now=now, cells=one.cells, rng=one.rng)


def test_two_controllers_on_one_postgresql_act_as_one(pair):
    first, second = pair
    turns = itertools.cycle(pair)

    def round_of_all(pool):
        first.now[0] += 30.0
        for cell in first.cells:
            cell.episode(first.now[0], first.rng)
            message = cell.report(first.now[0])
            answers = list(pool.map(lambda world, cell=cell, message=message: world.send(cell, message), pair))  # to both at once
            assert {answer.acknowledged_sequence for answer in answers} == {cell.sequence}
        list(pool.map(lambda world: world.look(), pair))  # and both look at once

    with ThreadPoolExecutor(2) as pool:
        first.add(4)
        round_of_all(pool)
        second.post("/v1/releases", {"digest": NEW, "model_version": "pick/4", "allowed_by": "the gate promotes it"})
        first.post("/v1/rollouts", {"plan": PLAN})
        for cell in first.cells:
            cell.rates[NEW] = 0.1
        for _ in range(30):
            round_of_all(pool)
            if next(turns).rollout()["status"] == "rolled back":
                break
        round_of_all(pool)
        round_of_all(pool)
    assert [world.rollout()["status"] for world in pair] == ["rolled back"] * 2
    assert "shown to be worse" in second.rollout()["reason"]
    assert {cell.running for cell in first.cells} == {OLD}
    counted = first.rows("select count(*), count(distinct cell || id) from actwright_fleet_episodes")
    assert counted == [(sum(cell.number for cell in first.cells),) * 2]
    assert_consistent(first.rows)
    assert first_problem([LogEntry(**entry) for entry in second.get("/v1/log")]) == ""

    first.post("/v1/kills", {"scope": "digest", "target": OLD, "reason": "drops cups"})
    second.send(second.cells[0])
    assert second.cells[0].desired.blocked == (OLD,)
