"""A training that makes no step is ended; one whose machine's clock is set is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.config.records import Silent
from components.training.job import JobFiles
from components.training.launcher import _watch
from components.training.supervision.relay import Relay
from model_core.spec.errors import JobError

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
