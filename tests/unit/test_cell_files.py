"""The files that a cell and its agent share: who may have the update lock, and whether an episode may begin."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from model_core.spec.errors import NotReady
from model_core.spec.fleet.documents import EpisodeRecord
from model_core.spec.fleet.release import OfflineRule
from serving.cell_files.boot_clock import Moment, age_s, moment
from serving.cell_files.finished_episodes import FinishedEpisodes
from serving.cell_files.permit import (
    PERMIT,
    Contact,
    Permit,
    episodes_left,
    read_permit,
    why_it_must_stop,
    why_none_begins,
    write_permit,
)
from serving.cell_files.update_lock import UpdateLock
from serving.fleet.agent.stale_lock import motors_are_off
from serving.fleet.intake import shared_service
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.shared_service import SharedService
from serving.workcell.watchdog.heartbeat import SharedBeat, StopCode, StopLevel

RULE = OfflineRule(then="episodes", after_s=60.0, episodes=2)
PERMIT_1 = Permit(url="ws://x", slot="a", release="a" * 64, number=1, bundle_digest="b", contract_id="c", offline=RULE)
THEN = Moment(boot="b1", up_s=1000.0, wall_s=5e8)
CONTACT = Contact(at=THEN, begun=7)


def later(seconds: float, **fields: object) -> Moment:
    return replace(THEN, up_s=THEN.up_s + seconds, wall_s=THEN.wall_s + seconds, **fields)


@pytest.mark.parametrize(
    ("contact", "now", "begun", "left"),
    [
        (CONTACT, later(60.0), 100, None),
        (CONTACT, later(60.1), 7, 2),
        (CONTACT, later(60.1), 8, 1),
        (CONTACT, later(60.1), 9, 0),
        (CONTACT, later(1e6), 12, 0),
        (CONTACT, replace(THEN, wall_s=THEN.wall_s - 7200.0), 7, None),  # a clock that is set back is no loss
        (CONTACT, replace(THEN, wall_s=THEN.wall_s + 7200.0), 7, None),  # nor one that is set ahead
        (CONTACT, later(30.0, boot="b2"), 7, None),
        (CONTACT, later(61.0, boot="b2"), 7, 2),
        (CONTACT, later(-1.0, boot="b2"), 7, 2),  # after a restart with a clock that went back, no one can tell
        (None, later(0.0), 0, 0),
    ],
)
def test_how_many_episodes_a_lost_controller_allows(contact, now, begun, left) -> None:
    assert episodes_left(PERMIT_1, contact, now, begun) == left
    assert bool(why_none_begins(PERMIT_1, contact, now, begun)) == (left == 0)
    assert why_it_must_stop(PERMIT_1, contact, now) == ""


def test_stop_and_finish_let_none_begin_and_stop_alone_ends_one() -> None:
    for then, stops in (("stop", True), ("finish", False)):
        permit = replace(PERMIT_1, offline=OfflineRule(then=then, after_s=60.0))
        assert why_none_begins(permit, CONTACT, later(59.0), 7) == ""
        assert why_it_must_stop(permit, CONTACT, later(59.0)) == ""
        assert "allows no further episode" in why_none_begins(permit, CONTACT, later(61.0), 7)
        assert bool(why_it_must_stop(permit, CONTACT, later(61.0))) == stops


def test_a_blocked_release_begins_no_episode() -> None:
    assert "blocked" in why_none_begins(PERMIT_1, replace(CONTACT, blocked=(PERMIT_1.release,)), later(0.0), 7)


def test_time_on_this_computer_is_of_one_boot_and_grows() -> None:
    one, two = moment(), moment()
    assert one.boot == two.boot
    assert 0.0 <= age_s(one, two) < 5.0


def test_a_permit_is_read_back_and_a_torn_one_is_not_guessed(tmp_path) -> None:
    assert read_permit(tmp_path) is None
    write_permit(tmp_path, PERMIT_1)
    assert read_permit(tmp_path) == PERMIT_1
    (tmp_path / PERMIT).write_bytes((tmp_path / PERMIT).read_bytes()[:-9])
    with pytest.raises(NotReady, match="cannot be read"):
        read_permit(tmp_path)


def test_the_lock_is_had_by_one_process_and_freed_by_its_death(tmp_path) -> None:
    lock = UpdateLock(tmp_path)
    with lock.taken() as is_mine:
        assert is_mine
        assert lock.is_held
        with UpdateLock(tmp_path).taken() as is_theirs:
            assert not is_theirs
    assert not lock.is_held
    program = "import sys, time; from pathlib import Path; from serving.cell_files.update_lock import UpdateLock\n"
    program += "with UpdateLock(Path(sys.argv[1])).taken() as is_mine:\n"
    program += "  UpdateLock(Path(sys.argv[1])).mark('c', None); print(is_mine, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert lock.is_held
    process.kill()
    process.wait(10)
    process.stdout.close()
    assert not lock.is_held
    assert lock.left_behind() is not None
    assert lock.begun == 1


def test_a_dead_cell_s_mark_is_recovered_only_when_its_watchdog_says_off(tmp_path) -> None:
    lock, beat = UpdateLock(tmp_path), SharedBeat(tmp_path / "beat")
    beat.arm()
    assert not motors_are_off(lock.mark("cell-1", None))  # without a watchdog no one knows
    episode = lock.mark("cell-1", tmp_path / "beat")
    assert episode.pid == os.getpid()
    assert episode.number == 2
    assert not motors_are_off(episode)
    beat.stop(StopLevel.HOLD, StopCode.NO_COMMAND)
    assert not motors_are_off(episode)  # a hold ends by itself
    beat.stop(StopLevel.STOP, StopCode.AGENT_DEAD)
    assert motors_are_off(episode)
    beat.clear("anna")
    assert motors_are_off(episode)  # disarmed
    beat.close()
    (tmp_path / "beat").unlink()
    assert not motors_are_off(episode)


def test_finished_episodes_stay_until_they_are_acknowledged(tmp_path) -> None:
    kept = FinishedEpisodes(tmp_path)
    records = [
        EpisodeRecord(id=f"{n:06d}-ab", release="a" * 64, task="t", started_at_s=n, ended_at_s=n, outcome="success") for n in (1, 2, 3)
    ]
    for number, record in enumerate(records, start=1):
        kept.add(number, record)
    assert kept.oldest(2) == tuple(records[:2])
    kept.drop(frozenset({records[0].id}))
    assert kept.oldest(10) == tuple(records[1:])
    next(iter((tmp_path / "episodes").glob("*2-*"))).write_bytes(b"{")
    assert kept.oldest(10) == (records[2],)
    assert len(kept) == 1


def test_an_agent_does_not_wait_for_ever_for_one_that_hangs(tmp_path, monkeypatch):
    def shared(cell: str) -> SharedService:
        return SharedService(folder=tmp_path / "services", cell=cell, slot="a", places=(), bundle=tmp_path)

    monkeypatch.setattr(shared_service, "_MOST_S", 0.2)
    late = pytest.raises(UpdateRefused, match=r"another agent has held .*services/lock for 0.2 s")
    with shared("cell-1")._alone(), late, shared("cell-2")._alone():
        pass
    with shared("cell-2")._alone():
        pass
