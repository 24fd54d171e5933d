"""A real cell beside a real agent, each a process or a loop of its own, over real gateways: F18, F19. Judged from driver and audit logs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model_core.spec.errors import NotReady
from model_core.spec.fleet.release import OfflineRule
from model_core.spec.types import StopReason
from serving.cell_files.boot_clock import moment
from serving.cell_files.finished_episodes import FinishedEpisodes
from serving.cell_files.permit import Contact, Permit, write_contact, write_permit
from serving.cell_files.update_lock import UpdateLock
from serving.gateway.inference.stub_policy import StubPolicy, stub_contract
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from serving.workcell.updates import AgentFiles
from serving.workcell.watchdog.heartbeat import SharedBeat, StopLevel
from tests.faults.real_cell import RealCell, real_cell, until
from tests.faults.verdicts import covers
from tests.fleet_agent import Offered, Robot, make_site, offer, robot_of
from tests.loopback import serve

ROOT = Path(__file__).parents[2]
# slow steps and long chunks: a test machine that stops a process for half a second breaks no promise of the cell
STUB = stub_contract(control_hz=4.0, chunk_length=16)
CONTRACT = json.dumps(STUB.to_json())
SERVICE = [sys.executable, "-m", "tests.faults.bundle_service", "{bundle}", "{port}"]


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> Offered:
    return make_site(tmp_path_factory.mktemp("fleet"), CONTRACT)


@pytest.fixture
def robot(offered, tmp_path) -> Iterator[Robot]:
    """On release 1; release 2 is offered."""
    with robot_of(offered, tmp_path, service=SERVICE) as made:
        offer(offered, made.place, offered.made[1])
        made.controller.propose(offered.made[0].release.digest)
        yield made


@contextlib.contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours, killed at the end."""
    child = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield child
    finally:
        child.kill()
        child.wait(10)


def agent_of(robot: Robot) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return process("serving.fleet.agent", "--config", str(robot.folder / "agent.json"))


def runs(robot: Robot, release: str) -> None:
    until(lambda: robot.runs(release), 60.0)


def bundles_of(cell: RealCell) -> set[str]:
    return {note["bundle_digest"] for note in cell.notes() if note["kind"] == "begin"}


@contextlib.contextmanager
def episode(robot: Robot, folder: Path) -> Iterator[RealCell]:
    """One episode under the agent's files, ended at the end."""
    folder.mkdir()
    files = AgentFiles(folder=robot.cell, cell="cell-r", task="stub", patience_s=30.0)
    with real_cell(folder, files.first_url(), steps=10_000, body=STUB.embodiment, deadline_s=2.0, heartbeat_s=2.0) as cell:
        made = cell.connect(30.0)
        files.takes_over("ab" * 32)
        with files.episode(made, cell.link) as note:
            cell.begin()
            cell.after(6)
            yield cell
            cell.driver._steps = 0
            note(cell.finish())


@covers(
    "F18",
    I1="driver and audit logs of both episodes hold no breach",
    I5="the whole episode runs on the release with which it began; the swap comes after it",
    I6="both audits rebuild every command",
    I9="the new release answers the next episode",
)
@covers("F19", I8="an agent that is killed while the lock is held changes nothing; the next one goes on")
def test_an_update_waits_for_the_episode_and_an_agent_that_dies_meanwhile_cuts_nothing(offered, robot, tmp_path) -> None:
    one, two = (made.release.digest for made in offered.made[:2])
    with agent_of(robot) as first:
        runs(robot, one)
        with episode(robot, tmp_path / "first") as cell:
            robot.controller.propose(two)
            until(lambda: robot.controller.reports[-1].phase == "ready", 60.0)
            first.kill()
            first.wait(10)
            told = len(robot.controller.reports)
            with agent_of(robot) as second:
                until(lambda: len(robot.controller.reports) > told and robot.controller.reports[-1].phase == "ready", 60.0)
                cell.after(len(cell.driver.executed) + 4)
                assert robot.permit.release == one
                assert robot.controller.reports[-1].in_episode
                second.kill()
    with agent_of(robot):
        runs(robot, two)
        with episode(robot, tmp_path / "second") as later:
            pass
        until(lambda: robot.controller.reports[-1].phase == "idle" and not robot.controller.reports[-1].waiting)
        until(lambda: {episode.release for report in robot.controller.reports for episode in report.episodes} == {one, two})
    assert (cell.breaches(), later.breaches()) == ([], [])
    assert len(bundles_of(cell) | bundles_of(later)) == 2
    assert (len(bundles_of(cell)), len(bundles_of(later))) == (1, 1)
    told_episodes = {episode.id: episode for report in robot.controller.reports for episode in report.episodes}
    assert [(one.outcome, one.cut_by) for one in told_episodes.values()] == [("failure", "")] * 2
    assert robot.controller.reports[-1].limits == "ab" * 32


@covers(
    "F19",
    I5="nothing is swapped while the motors of a dead cell may be on",
    I9="once its watchdog has latched the stop, the update goes on",
)
def test_a_cell_that_dies_in_an_episode_holds_the_update_until_its_watchdog_has_stopped_the_drive(offered, robot, tmp_path) -> None:
    one, two = (made.release.digest for made in offered.made[:2])
    beat = tmp_path / "beat"
    contract = tmp_path / "contract.json"
    contract.write_text(CONTRACT)
    words = ["--robot", "serving.workcell.robot.strict_driver:make_robot", "--robot-option", f"contract={contract}"]
    words += ["--robot-option", "steps=100000", "--task", "stub", "--cell", "cell-1", "--agent", str(robot.cell), "--realtime"]
    words += ["--watchdog", str(beat), "--result", str(tmp_path / "result.json"), "--deadline-ms", "5000"]
    words += ["--watchdog-heartbeat-ms", "5000"]  # beside other tests a living cell may get no processor for a second
    with agent_of(robot):
        runs(robot, one)
        with process("serving.workcell", *words) as cell:
            until(lambda: UpdateLock(robot.cell).left_behind() is not None and beat.exists() and shared(beat, "is_armed"), 60.0)
            dog = shared(beat, "dog_pid")
            robot.controller.propose(two)
            until(lambda: robot.controller.reports[-1].phase == "ready", 60.0)
            os.kill(dog, signal.SIGSTOP)  # so that the motors stay on for a while
            try:
                cell.kill()
                cell.wait(10)
                until(lambda: not robot.controller.reports[-1].in_episode)
                time.sleep(1.0)
                assert robot.permit.release == one
            finally:
                os.kill(dog, signal.SIGCONT)
        runs(robot, two)
        assert shared(beat, "level") is StopLevel.STOP
        assert UpdateLock(robot.cell).left_behind() is None


def shared(path: Path, name: str) -> object:
    """A word of the heartbeat file."""
    beat = SharedBeat(path)
    try:
        return getattr(beat, name)
    finally:
        beat.close()


@covers("F21", I4="a release that stops without its controller ends the running episode in a hold", I9="no further episode begins")
def test_a_lost_controller_stops_a_cell_whose_release_says_so(tmp_path) -> None:
    """No agent lives here: the cell judges by the time of the last contact alone."""
    model = LoadedModel(policy=StubPolicy(contract=STUB, service_s=0.01), contract=STUB, model_version="stub/1")
    with serve(Gateway(lambda: model, GatewayLimits(warm_up_s=1.0))) as address:
        rule = OfflineRule(then="stop", after_s=3600.0)
        folder, now = tmp_path / "files", moment()
        write_permit(
            folder,
            Permit(
                url=f"ws://{address}/v1/session",
                slot="a",
                release="a" * 64,
                number=1,
                bundle_digest="",
                contract_id=STUB.contract_id,
                offline=rule,
            ),
        )
        write_contact(folder, Contact(at=now))
        files = AgentFiles(folder=folder, cell="cell-r", task="stub", patience_s=0.5)
        (tmp_path / "cell").mkdir()
        with real_cell(tmp_path / "cell", files.first_url(), steps=10_000, body=STUB.embodiment, deadline_s=2.0, heartbeat_s=2.0) as cell:
            made = cell.connect(30.0)
            with files.episode(made, cell.link) as note:
                cell.begin()
                cell.after(4)
                write_contact(folder, Contact(at=replace(now, up_s=now.up_s - 7200.0)))
                result = cell.finish()
                note(result)
            (record,) = FinishedEpisodes(folder).oldest(9)
            assert (result.stop_reason, record.cut_by, record.outcome) == (StopReason.GUARD_STOPPED, "offline", "uncounted")
            with pytest.raises(NotReady, match="allows no further episode"), files.episode(made, cell.link):
                raise AssertionError("an episode began")
