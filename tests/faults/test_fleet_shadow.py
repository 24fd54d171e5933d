"""F30 over a fleet: a release that answers in shadow on the cells of a stage, from the controller's proposal to the signed report."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.fleet.agent.agent_state import SHADOW, SlotRecord
from serving.fleet.controller.app import create_app
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.database import Database
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.update_metadata import Target
from tests.faults.peer import CONTRACT, greeted, is_own_answer
from tests.faults.verdicts import covers
from tests.fleet_agent import Offered, Robot, ToldController, end_services, make_site, offer, repository_server, robot_of
from tests.loopback import serve_app

REAL = [sys.executable, "-m", "tests.faults.poor_service", "{bundle}", "{port}", "{candidate}"]


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> Offered:
    """Versions 1, 2 and 3; the light service answers the probe of 3 otherwise."""
    return make_site(tmp_path_factory.mktemp("fleet"), contract=json.dumps(CONTRACT.to_json()))


@pytest.fixture
def robot(offered, tmp_path):
    """A robot on version 1 whose site is offered the others."""
    with robot_of(offered, tmp_path) as made:
        for one in offered.made[1:]:
            offer(offered, made.place, one)
        made.controller.propose(offered.made[0].release.digest)
        made.turn_until(lambda: made.runs(offered.made[0].release.digest))
        yield made


def told(robot: Robot) -> dict[str, int]:
    """Release -> decisions, as reported last."""
    return {one.release: one.count for one in robot.controller.reports[-1].shadow}


@covers(
    "F30", I5="the permit and both slots stay as they are", I9="the release in shadow is taken in as any other, into a place of its own"
)
def test_a_release_answers_in_shadow_and_then_runs_without_being_fetched_again(offered, robot) -> None:
    one, two = (made.release.digest for made in offered.made[:2])
    before = (robot.cell / "permit.json").read_bytes()
    robot.controller.propose(one, shadow=two)
    robot.turn_until(lambda: told(robot).get(two, 0) >= 2)
    report = robot.controller.reports[-1]
    assert (report.running, report.error, report.phase) == (one, None, "idle")
    assert [(slot.state, slot.release) for slot in report.slots] == [("probed", one), ("empty", "")]
    assert report.shadow[0].distances == {"action": 0.25, "trace": 2.0, "refused": 1 / (report.shadow[0].count + 1)}
    assert (robot.cell / "permit.json").read_bytes() == before

    again, sent = robot.start(), robot.repository.sent  # an agent that was killed goes on with what is on the disk
    robot.turn_until(lambda: robot.controller.reports[-1].sequence > report.sequence + 100 and told(robot))
    assert robot.repository.sent == sent
    place = robot.home / "slots" / SHADOW
    assert place.is_dir()
    robot.controller.propose(two)
    robot.turn_until(lambda: robot.runs(two))
    assert robot.repository.sent - sent < 40_000  # metadata alone
    robot.turn_until(lambda: not place.exists())
    assert told(robot) == {}
    assert again.update.slots.check_bytes(robot.permit.slot, two)


@covers("F30", I9="a release that answers its probes otherwise in shadow is refused and told; the running one is not touched")
def test_a_release_that_fails_in_shadow_is_told_and_let_go(offered, robot) -> None:
    one, two, three = (made.release.digest for made in offered.made)
    robot.controller.propose(one, shadow=three)
    robot.turn_until(lambda: robot.error == "PROBES")
    error = robot.controller.reports[-1].error
    assert (error.release, robot.runs(one)) == (three, True)
    robot.turn_until(lambda: not (robot.home / "slots" / SHADOW).exists())
    for _ in range(5):
        robot.agent.turn()
    assert (told(robot), robot.error, robot.permit.release) == ({}, "PROBES", one)
    robot.controller.propose(one, shadow=two, blocked=(two,))
    robot.turn_until(lambda: robot.error == "")
    assert robot.agent.state.now.slot(SHADOW) == SlotRecord()  # what is blocked is not even fetched
    robot.controller.propose(one, shadow=two)
    robot.turn_until(lambda: two in told(robot))
    robot.controller.propose(one, shadow=two, blocked=(two,))
    robot.turn_until(lambda: not (robot.home / "services" / "a" / "candidate.json").exists())


def test_a_service_that_takes_no_candidate_is_told_with_what_to_do(offered, robot) -> None:
    one, two = (made.release.digest for made in offered.made[:2])
    robot.options["service"] = robot.settings()["service"][:-1]
    robot.prepare()
    end_services(robot.home)
    robot.start()
    robot.controller.propose(one, shadow=two)
    robot.turn_until(lambda: robot.error == "START")
    assert "Fix: add --candidate" in robot.controller.reports[-1].error.message
    assert robot.permit.release == one


@covers("F20", I9="on a disk that is full the candidate in shadow makes room, and what the robot may come back to stays")
def test_an_update_that_needs_the_room_has_the_candidate_go(offered, robot, monkeypatch) -> None:
    one, two, three = (made.release.digest for made in offered.made)
    robot.controller.propose(one, shadow=two)
    robot.turn_until(lambda: two in told(robot))
    store = robot.agent.update.taking.store

    def held() -> int:
        return sum(path.stat().st_size for path in store.path("any").parent.iterdir())

    full = held()

    def check_room(targets: Collection[Target]) -> None:
        """A disk that holds no byte more than it does now."""
        if held() + sum(target.size for target in targets if not store.has(target)) > full:
            raise UpdateRefused("NO_SPACE", "the disk is full")

    monkeypatch.setattr(store, "check_room", check_room)
    robot.controller.propose(three, shadow=two)
    robot.turn_until(lambda: robot.agent.state.now.slot("b").state == "verified")
    state = robot.agent.state.now
    assert (state.slot("a").release, state.slot("b").release, state.slot(SHADOW).release) == (one, three, "")
    assert held() < full


# --- with the real controller, the real gateway, and a cell that asks ---------------------------------------------------


@dataclass
class Fleet:
    """A controller behind HTTP and one robot."""

    url: str
    robot: Robot
    seq: int = field(default=0)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        reply = httpx.post(self.url + path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    @property
    def status(self) -> Any:
        return httpx.get(f"{self.url}/v1/status").json()

    @property
    def cell(self) -> Any:
        return self.status["cells"][0]

    def roll_out(self, digest: str, stages: list[dict[str, Any]], baseline: str = "") -> None:
        self.post("/v1/releases", {"digest": digest, "model_version": "arm/9", "allowed_by": "the gate promotes it"})
        self.post("/v1/rollouts", {"plan": {"name": digest[:8], "release": digest, "stages": stages}, "baseline": baseline})


@pytest.fixture
def fleet(offered, tmp_path) -> Iterator[Fleet]:
    repository = shutil.copytree(offered.repository, tmp_path / "repository")
    for one in offered.made:
        offer(offered, repository, one)
    controller = Controller(Database(f"sqlite:///{tmp_path / 'fleet.db'}"), Ed25519PrivateKey.generate(), report_every_s=0.2)
    config = uvicorn.Config(create_app(controller, None, look_every_s=0.2), host="127.0.0.1", port=0, log_level="critical")
    with serve_app(config) as address, repository_server(repository) as server:
        link = ToldController(key=controller.key, url=f"http://{address}")
        robot = Robot(folder=tmp_path / "robot", keys=offered.keys, repository=server, controller=link, options={"service": REAL})
        robot.prepare()
        made = Fleet(url=link.url, robot=robot)
        public = (robot.folder / "cell.pub.pem").read_text()
        made.post("/v1/cells/cell-1/enrol", {"site": "lab", "public_key": public})
        with contextlib.ExitStack() as ending:
            ending.callback(end_services, robot.home)
            robot.turn_until(lambda: made.cell["phase"])
            made.roll_out(offered.made[0].release.digest, [{"name": "install", "share": 1.0, "minimum_episodes": 1}], "0" * 64)
            made.post("/v1/rollouts/1/skip", {"reason": "the cell runs nothing yet"})
            robot.turn_until(lambda: made.cell["running"] == offered.made[0].release.digest, 40.0)
            yield made


@covers(
    "F30",
    I1="every live answer is the live policy's, with a good and with a poor release in its shadow",
    I9="the stage ends by what the cell reports: on for the good one, back for the one that refuses",
)
@pytest.mark.soak  # short: an agent with a good and a poor release in shadow, above; a stage that ends by reports in test_rollouts
def test_a_stage_in_shadow_ends_by_what_the_cell_reports(offered, fleet) -> None:
    one, two, three = (made.release.digest for made in offered.made)
    robot = fleet.robot
    stages = [
        {"name": "shadow", "share": 1.0, "shadow": True, "minimum_decisions": 6, "distances": {"action": 0.01, "refused": 0.2}},
        {"name": "fleet", "share": 1.0, "minimum_episodes": 1, "hold_out": 0.0},
    ]
    fleet.roll_out(two, stages)
    with greeted(robot.permit.url.removeprefix("ws://").removesuffix("/v1/session")) as peer:

        def asks() -> None:
            """The live cell asks as it goes on, and gets the live policy's own answers."""
            fleet.seq += 1
            assert is_own_answer(peer.ask(fleet.seq, value=fleet.seq % 200), fleet.seq % 200, fleet.seq)

        def is_compared() -> bool:
            asks()
            return fleet.cell["shadowed"] >= 3

        robot.turn_until(is_compared, 60.0)
        cell, rollout = fleet.cell, fleet.status["rollouts"][-1]
        assert (cell["running"], cell["proposed"], cell["shadow"]) == (one, one, two)  # it is not on the new version
        assert (rollout["stage"], rollout["reached"], rollout["shadows"], rollout["members"]) == ("shadow", 0, ["cell-1"], [])
        assert "in shadow on 1" in rollout["told"]

        def is_left() -> bool:
            asks()
            return fleet.status["rollouts"][-1]["stage"] == "fleet"

        robot.turn_until(is_left, 60.0)
    robot.turn_until(lambda: fleet.cell["running"] == two, 40.0)
    assert fleet.cell["shadow"] == ""
    fleet.post("/v1/rollouts/2/abort", {"reason": "the next one"})

    fleet.roll_out(three, [{**stages[0], "minimum_decisions": 1}, stages[1]])
    with greeted(robot.permit.url.removeprefix("ws://").removesuffix("/v1/session")) as peer:

        def is_stuck() -> bool:
            fleet.seq += 1
            assert is_own_answer(peer.ask(fleet.seq, value=fleet.seq % 200), fleet.seq % 200, fleet.seq)
            return (
                fleet.cell["shadow"] == three
                and json.loads((robot.home / "agent.json").read_bytes())["slots"][SHADOW]["state"] == "verified"
            )

        robot.turn_until(is_stuck, 60.0)
        document: dict[str, Any] = {}

        def is_refusing() -> bool:
            is_stuck()
            document.update(robot.agent.update.service(robot.permit.slot).compared())
            return any(task["refused"]["count"] >= 3 for task in document.get("tasks", {}).values())

        robot.turn_until(is_refusing, 60.0)
    assert document["release"] == three
    rollout = fleet.status["rollouts"][-1]
    assert (rollout["status"], rollout["stage"], rollout["decisions"]) == ("running", "shadow", 0)  # what refuses shows nothing
    assert fleet.cell["running"] == two
