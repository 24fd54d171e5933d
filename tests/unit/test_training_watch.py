"""A training that makes no step is ended; one whose machine's clock is set is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.config.ports import Metric
from components.config.records import Silent
from components.training.job import JobFiles
from components.training.launcher import _watch
from components.training.supervision.relay import Relay
from components.training.training_log import TrainingLog
from model_core.spec.errors import JobError
from tests.tracking_twins import NullTracker

AN_HOUR_S = 3600.0


@contextmanager
def a_process(seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def files_in(folder: Path) -> JobFiles:
    files = JobFiles(folder)
    files.scratch.mkdir(parents=True)
    return files


def set_time(path: Path, seconds: float) -> None:
    os.utime(path, times=(seconds, seconds))


def test_a_clock_that_was_set_back_an_hour_ends_no_training_that_makes_steps(tmp_path: Path) -> None:
    files, done = files_in(tmp_path), threading.Event()

    def steps() -> None:
        while not done.wait(0.1):
            files.heartbeat.touch()
            set_time(files.heartbeat, time.time() - AN_HOUR_S)

    beating = threading.Thread(target=steps)
    beating.start()
    try:
        with a_process(2.0) as process:
            _watch(process, Relay(files, 10, None, Silent()), files, hang_s=1.0)
        assert process.returncode == 0
    finally:
        done.set()
        beating.join()


def test_no_step_for_too_long_ends_it_though_the_file_has_a_time_to_come(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    files.heartbeat.touch()
    set_time(files.heartbeat, time.time() + AN_HOUR_S)
    with a_process(30.0) as process, pytest.raises(JobError, match="made no step for 0 s"):
        _watch(process, Relay(files, 10, None, Silent()), files, hang_s=0.4)


class KeepingTracker(NullTracker):
    """Remembers the points."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        self.points += [(one.key, one.step, one.value) for one in metrics]


def test_what_a_job_told_while_nobody_watched_it_is_known_to_who_takes_over(tmp_path: Path) -> None:
    files, tracker = files_in(tmp_path), KeepingTracker()
    log = TrainingLog(files, writes=True, first_step=0)
    log.event("start", 0, precision="fp32", warning="", parameters={"all": 7}, pids=[1, 2], seconds=0.1)
    log.event("step", 1, steps=1, seconds=0.5, loss=3.0, mfu=0.1)
    log.event("step", 2, steps=1, seconds=0.5, loss=2.0, mfu=0.1)
    taken_over = Relay(files, 4, tracker, Silent())
    taken_over.take_over()
    assert (taken_over.step, taken_over.began_at, taken_over.ending) == (2, 0, ""), "steps were made, it goes on"
    assert (taken_over.precision, taken_over.parameters) == ("fp32", {"all": 7})
    log.event("step", 3, steps=1, seconds=0.5, loss=1.0, mfu=0.1)
    taken_over.pump(final=True)
    assert [(step, value) for key, step, value in tracker.points if key == "train/loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    log.event("done", 4)
    another = Relay(files, 4, None, Silent())
    assert (another.ending, another.step > another.began_at) == ("", False), "of another attempt nothing was told yet"
    another.take_over()
    assert another.ending == "done"
    with files.progress.open("a") as stream:
        stream.write('{"event": "st')  # the power goes
    TrainingLog(files, writes=True, first_step=0).event("start", 2, precision="fp32", warning="", pids=[3], seconds=0.1)
    again = Relay(files, 4, None, Silent())
    again.take_over()
    assert (again.ending, again.step) == ("", 2), "an attempt that began after it has not ended"
