"""Workers and Ctrl-C: nothing is printed by them, nothing of theirs is waited for, and none is left.

Run: .venv/bin/python -m pytest tests/unit/test_worker_pool.py
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.adapters.worker_pool import worker_pool
from model_core.spec.errors import JobError

PROGRAM = """
import sys, time
from concurrent.futures import as_completed
from components.adapters.worker_pool import worker_pool

def work(seconds):
    time.sleep(seconds)
    return os.getpid()

if __name__ == "__main__":
    try:
        with worker_pool(2, lambda: "killed") as pool:
            futures = [pool.submit(work, float(sys.argv[1])) for _ in range(4)]
            print("begun", flush=True)
            for future in as_completed(futures):
                future.result()
            print("idle", flush=True)
            for _ in range(300):  # a signal just before a sleep begins does not end it: Python looks for signals between its steps
                time.sleep(0.2)
    except KeyboardInterrupt:
        sys.exit(130)
else:
    time.sleep(0.5)  # a worker that takes long to import what it needs
import os
"""


@pytest.mark.parametrize(
    ("seconds", "after", "wait_s"), [("60", "begun", 0.1), ("60", "begun", 1.5), ("0", "idle", 0.0)], ids=["importing", "at work", "idle"]
)
def test_ctrl_c_is_quiet_and_waits_for_nobody(tmp_path, seconds, after, wait_s):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), seconds],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        while process.stdout.readline().strip() != after:
            pass
        time.sleep(wait_s)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert said == ""
    assert process.returncode == 130
    give_up_at = time.monotonic() + 10
    while _group_lives(process.pid) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_is_killed_is_told():
    with pytest.raises(JobError, match="killed after 0"), worker_pool(1, lambda: "killed after 0") as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()
