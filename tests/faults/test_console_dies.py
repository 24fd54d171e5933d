"""A console that is killed while it follows a cell changes nothing of what the cell does; the next console shows the same cell.

The cell runs on virtual time, so its commands can be compared one by one with those of a cell that is shown nowhere: no step is held and no
answer is late on one side alone. What readers and a flood cost in real time: benchmarks/console_readers.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.workcell.audit.interface import NullAudit
from serving.workcell.audit.live_view import LiveView
from tests.console_parts import console_over
from tests.virtual_world import World, make_world

STEPS, KILLED_AT = 60, 30
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def console(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A console as a process of its own, and its address."""
    command = [sys.executable, "-m", "flows.commands.main", "console", "--port", "0"]
    process = subprocess.Popen(command, env=os.environ | {"ACTWRIGHT_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["console"]
    finally:
        process.kill()
        process.wait(20)


def stepped(world: World, steps: int) -> None:
    for _ in range(steps):
        for _ in range(5):
            world.clock.now += world.period_s / 5
            world.link.pump()
        assert world.cell.tick() is None


def commands(world: World) -> list[tuple[int, int]]:
    return [(tag.chunk_id, tag.row) for tag in world.robot.tags]


def opened(url: str) -> object:
    """The live stream, once the console listens and the cell has shown itself."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=30)
        time.sleep(0.1)
    raise AssertionError("the cell is not shown")


def test_a_cell_does_not_notice_that_the_console_is_killed(tmp_path):
    alone = make_world()
    stepped(alone, STEPS)
    view = LiveView(NullAudit(), tmp_path / "cells" / "cell-v", "cell-v")
    shown = make_world(audit=view)
    with console(tmp_path) as (process, address):
        stepped(shown, KILLED_AT)
        stream = opened(f"{address}/api/cells/cell-v/live")
        assert stream.readline().startswith(b"data: ")
        os.kill(process.pid, signal.SIGKILL)
        stepped(shown, STEPS - KILLED_AT)
    view.close()
    assert commands(shown) == commands(alone)
    assert len(commands(shown)) > STEPS / 2
    again = console_over(tmp_path).get("/api/cells").json()["cells"]
    assert [(one["name"], one["problem"]) for one in again] == [("cell-v", "")]
