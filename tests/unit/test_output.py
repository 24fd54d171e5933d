"""A command that is asked to stop says so at once, whoever handles the signal, and ends in order.

Run: .venv/bin/python -m pytest tests/unit/test_output.py
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.terminal.output import stoppable

PROGRAM = """
import os, signal, sys, time
from flows.terminal.output import ended, print_line, stoppable

class Termination(BaseException):
    pass

def another(*_):
    raise Termination

def command():
    with stoppable():
        try:
            print("begun", flush=True)
            if sys.argv[1] == "replaced":  # as Prefect does: its own handler, then ours again, and the signal once more
                ours = signal.signal(signal.SIGTERM, another)
                try:
                    time.sleep(30)
                except Termination:
                    time.sleep(0.2)
                    signal.signal(signal.SIGTERM, ours)
                    os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            print_line("ended in order")

sys.exit(ended(command))
"""


@pytest.mark.parametrize("handler", ["ours", "replaced"])
def test_a_command_that_is_asked_to_stop_says_so_at_once(handler):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, handler],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    first, last = said.splitlines()
    assert first.startswith("stopping: ")
    assert first.endswith("run the same command again to continue")
    assert last == "ended in order"
    assert process.returncode == 128 + signal.SIGTERM


def test_handlers_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
