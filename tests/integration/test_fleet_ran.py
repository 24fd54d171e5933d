"""What ran where at a time, told by a real controller from signed reports and episodes on a real SQLite file, on a virtual clock."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from serving.fleet.controller.app import create_app
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.database import Database
from tests.simulated_fleet import SimulatedCell

OLD, NEW = "b" * 64, "a" * 64
BEGAN_S = 1_700_000_000.0


class Fleet:
    """A controller without tokens, and one cell that reports every ten seconds."""

    def __init__(self, client, controller, now):
        self.client, self.controller, self.now = client, controller, now
        self.cell = SimulatedCell(name="cell-1", running=OLD)
        self.post("/v1/cells/cell-1/enrol", self.cell.enrolment)
        self.post("/v1/releases", {"digest": OLD, "model_version": "pick/3", "allowed_by": "the gate"})

    def post(self, path, body):
        reply = self.client.post(path, json=body)
        assert reply.status_code == 200, reply.text

    def reports(self, count, every_s=10.0):
        for _ in range(count):
            self.now[0] += every_s
            reply = self.client.post("/v1/cells/cell-1/report", content=self.cell.report(self.now[0]))
            assert reply.status_code == 200, reply.text
            self.cell.answered(reply.content, self.controller.key.public_key())

    def at(self, after_s):
        reply = self.client.get(f"/v1/ran?at_s={BEGAN_S + after_s}")
        assert reply.status_code == 200, reply.text
        [cell] = reply.json()["cells"]
        return cell


@pytest.fixture
def fleet(tmp_path):
    now = [BEGAN_S]
    controller = Controller(Database(f"sqlite:///{tmp_path / 'fleet.db'}"), Ed25519PrivateKey.generate(), clock=lambda: now[0])
    with TestClient(create_app(controller, None, look_every_s=0.0), base_url="http://127.0.0.1:4000") as client:
        yield Fleet(client, controller, now)


def test_each_time_is_told_with_its_evidence_and_what_is_not_known_is_not_guessed(fleet):
    fleet.reports(10)  # 10 to 100 s: the old release
    fleet.cell.running = NEW
    fleet.reports(10)  # 110 to 200 s: the new one
    fleet.reports(1, every_s=300.0)  # silent until 500 s
    told = fleet.at(5)
    assert (told["release"], told["proof"]) == ("", "none")
    assert "first heard of at 2023-11-14 22:13:30 UTC" in told["told"]
    told = fleet.at(55)
    assert (told["release"], told["model_version"], told["proof"]) == (OLD, "pick/3", "reports")
    assert (told["from_s"] - BEGAN_S, told["until_s"] - BEGAN_S) == (10.0, 100.0)
    told = fleet.at(105)  # it changed between two reports
    assert (told["release"], told["proof"], told["then_release"], told["then_from_s"] - BEGAN_S) == (OLD, "changed", NEW, 110.0)
    assert (fleet.at(150)["release"], fleet.at(150)["proof"]) == (NEW, "reports")
    told = fleet.at(350)
    assert (told["release"], told["proof"], told["until_s"] - BEGAN_S) == (NEW, "both sides", 200.0)
    assert "silent in between" in told["told"]
    fleet.now[0] += 30.0  # one or two reports late: still its last word
    assert (fleet.at(525)["release"], fleet.at(525)["proof"]) == (NEW, "reports")
    fleet.now[0] += 300.0
    assert (fleet.at(700)["proof"], fleet.at(700)["until_s"] - BEGAN_S) == ("before", 500.0)


def test_an_episode_that_was_run_without_the_controller_tells_what_answered_it(fleet):
    fleet.reports(3)
    fleet.cell.offset_s = 7_200.0  # its clock is two hours ahead
    fleet.cell.running = NEW
    for end_s in (200.0, 260.0):
        fleet.cell.episode(BEGAN_S + end_s, np.random.default_rng(0), lasts_s=40.0)
    fleet.reports(1, every_s=570.0)  # 600 s
    told = fleet.at(180)
    assert (told["release"], told["proof"], told["episode"]) == (NEW, "episode", "cell-1-1")
    assert fleet.at(100)["proof"] == "changed"  # between the last report and the first episode
    ran = fleet.client.get(f"/v1/ran/{NEW}").json()
    assert [(one["cell"], one["from_s"] - BEGAN_S, one["until_s"] - BEGAN_S, one["is_now"]) for one in ran["cells"]] == [
        ("cell-1", 160.0, 600.0, True)
    ]
    assert [one["is_now"] for one in fleet.client.get(f"/v1/ran/{OLD}").json()["cells"]] == [False]


def test_reports_that_tell_the_same_write_no_row_and_episodes_under_them_none_either(fleet):
    for _ in range(20):
        fleet.reports(1)
        fleet.cell.episode(fleet.now[0] + 5.0, np.random.default_rng(0), lasts_s=4.0)

    def rows(db):
        from sqlalchemy import func, select

        from serving.fleet.controller.store.tables import EPISODES, RAN

        return tuple(db.execute(select(func.count()).select_from(table)).scalar() for table in (RAN, EPISODES))

    assert fleet.client.portal.call(fleet.controller.do, rows) == (1, 19)


def test_a_time_that_is_none_is_refused(fleet):
    for given in ("yesterday", "-1", "nan", str(BEGAN_S + 1e6)):
        reply = fleet.client.get(f"/v1/ran?at_s={given}")
        assert (reply.status_code, "not in the future" in reply.json()["reason"]) == (409, True)
    assert fleet.client.get("/v1/ran/abc").status_code == 409
