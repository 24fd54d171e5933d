"""Training watched from outside: what hangs, what another attempt is for, how well time was used; and the rule of spikes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from components.training.job import STEPPING, WORKING, JobFiles
from components.training.launcher import ending_error
from components.training.optimizer.spikes import Spikes
from components.training.supervision.attempts import AttemptLostError, with_restarts
from components.training.supervision.goodput import goodput
from components.training.supervision.liveness import Liveness
from model_core.spec.errors import CheckpointError, JobError


class Watched:
    """The files of an attempt, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.files, self.now, self.writes = JobFiles(folder), 0.0, 0
        self.files.alive.mkdir(parents=True)
        self.liveness = Liveness(self.files, hang_s=900.0, clock=lambda: self.now)

    def _write(self, path: Path, text: str) -> None:
        self.writes += 1
        path.write_text(text)
        os.utime(path, ns=(self.writes, self.writes))

    def turn(self, seconds: float, *, doing: str = "", ranks: tuple[int, ...] = ()) -> str:
        """After `seconds`: rank 0 tells what it does, these ranks are alive; returns what is found."""
        self.now += seconds
        for rank in ranks:
            self._write(self.files.alive / f"rank_{rank:05d}", "1")
        if doing:
            self._write(self.files.heartbeat, doing)
        return self.liveness.problem()


def test_a_rank_that_does_not_run_is_named_within_a_minute(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    assert watched.turn(30, doing=WORKING, ranks=(0, 1)) == ""
    for _ in range(8):
        assert watched.turn(5, doing=STEPPING, ranks=(0,)) == ""
    assert watched.turn(6, ranks=(0,)) == "hangs, rank 1 has not run for 46 s"


def test_steps_that_stop_are_found_by_how_long_steps_took_and_other_work_may_take_longer(tmp_path: Path) -> None:
    quick, slow, other = (Watched(tmp_path / name) for name in ("quick", "slow", "other"))
    for watched, seconds in ((quick, 1), (slow, 20)):
        for _ in range(4):
            assert watched.turn(seconds, doing=STEPPING) == ""
    assert quick.turn(44) == ""
    assert quick.turn(2) == "made no step for 46 s"
    assert slow.turn(199) == ""
    assert slow.turn(2) == "made no step for 201 s"
    assert other.turn(1, doing=STEPPING) == other.turn(1, doing=STEPPING) == other.turn(1, doing=WORKING) == other.turn(899) == ""
    assert other.turn(2) == "made no step for 901 s"


def test_a_lost_attempt_is_made_again_while_the_budget_lasts_and_no_other_error(tmp_path: Path) -> None:
    ends = iter([AttemptLostError("killed"), AttemptLostError("hung"), None])

    def attempt() -> str:
        if (end := next(ends)) is not None:
            raise end
        return "done"

    assert with_restarts(attempt, restarts=2) == "done"
    ends = iter([AttemptLostError("killed"), AttemptLostError("hung"), None])
    with pytest.raises(AttemptLostError, match="hung"):
        with_restarts(attempt, restarts=1)
    ends = iter([CheckpointError("other data"), None])
    with pytest.raises(CheckpointError):
        with_restarts(attempt, restarts=2)


def test_which_endings_another_attempt_may_change(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.scratch.mkdir()
    assert isinstance(ending_error(files, -9, "", made_steps=False), AttemptLostError)
    assert not isinstance(ending_error(files, 0, "stopped"), AttemptLostError)  # a person or a scheduler asked for it
    files.error.write_text(json.dumps({"error": "JobError", "unexpected": True, "message": "connection closed by peer"}))
    assert isinstance(ending_error(files, 1, ""), AttemptLostError)
    assert not isinstance(ending_error(files, 1, "", made_steps=False), AttemptLostError)  # it would fail there again
    files.error.write_text(json.dumps({"error": "JobError", "unexpected": False, "message": "loss became nan"}))
    assert type(ending_error(files, 1, "")) is JobError


def test_goodput_counts_steps_that_were_kept_once() -> None:
    def step(at: float, last: int, steps: int, seconds: float) -> dict[str, object]:
        return {"event": "step", "at": at, "step": last, "steps": steps, "seconds": seconds}

    whole = [
        {"event": "start", "at": 110.0, "step": 0, "seconds": 10.0},
        step(150.0, 4, 4, 40.0),
        {"event": "done", "at": 160.0, "step": 4},
    ]
    assert goodput(whole) == pytest.approx(40 / 60)
    killed = [whole[0], step(150.0, 4, 4, 40.0), step(190.0, 8, 4, 40.0)]  # saved after step 6; started again 30 s later
    again = [
        {"event": "start", "at": 230.0, "step": 6, "seconds": 10.0},
        step(250.0, 8, 2, 20.0),
        {"event": "done", "at": 250.0, "step": 8},
    ]
    assert goodput([*killed, *again]) == pytest.approx((40 + 20 + 20) / 150)
    stopped = [whole[0], step(150.0, 4, 4, 40.0), {"event": "stopped", "at": 150.0, "step": 4}]
    a_day_later = [{"event": "start", "at": 90_010.0, "step": 4, "seconds": 10.0}, step(90_050.0, 8, 4, 40.0)]
    assert goodput([*stopped, *a_day_later]) == pytest.approx(80 / 100)
    assert goodput([]) == 0.0


def test_spikes_are_decided_by_the_curve_alone() -> None:
    calm = [1.0 + 0.01 * (number % 3) for number in range(20)]
    assert Spikes("note", calm).limit == float("inf")
    rule = Spikes("rewind", calm)
    assert 1.05 < rule.limit < 2.0
    assert [rule.take(loss) for loss in (9.0, 9.0)] == [True, True]
    assert not rule.goes_back
    assert Spikes("rewind", [*calm, 9.0, 9.0, 9.0]).goes_back
    assert not Spikes("skip", [*calm, 9.0, 9.0, 9.0]).goes_back
    assert not Spikes("rewind", [*calm, 9.0, 9.0, 1.0, 9.0]).goes_back
