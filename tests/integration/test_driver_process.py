"""A drive that keeps its velocity, the cell that commands it and the watchdog between them, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.workcell.robot.strict_driver import simple_body
from serving.workcell.watchdog.heartbeat import SharedBeat
from serving.workcell.watchdog.watchdog import main as watchdog
from tests.fakes import EchoPolicy, make_contract, with_actions
from tests.loopback import echo_gateway, serve, wait_until

COMMAND_S, HEARTBEAT_S = 0.8, 3.0  # wide: a shared machine pauses processes for some 100 ms


class Arm:
    """The drive's process and its log."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.beat, self.log = folder / "s", folder / "beat", folder / "arm.jsonl"
        words = ["--socket", str(self.socket), "--beat", str(self.beat), "--log", str(self.log)]
        self.process = subprocess.Popen([sys.executable, "-m", "serving.workcell.robot.driver_process", *words])

    def last(self) -> dict[str, Any]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return json.loads(lines[-1]) if lines else {"velocity": [0.0] * 4, "gate": ""}

    def is_moving(self) -> bool:
        return any(self.last()["velocity"][:3])


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Arm]:
    made = Arm(tmp_path)
    wait_until(made.socket.exists)
    yield made
    made.process.terminate()
    made.process.wait(5)


@pytest.fixture
def cell(arm: Arm, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    contract = make_contract(simple_body(mode="velocity"))
    policy = EchoPolicy(contract=contract, change=lambda d: with_actions(d, np.full((8, 4), 0.1, np.float32)))
    gateway = echo_gateway(policy)
    started: list[subprocess.Popen[bytes]] = []
    with serve(gateway) as address:
        wait_until(lambda: gateway.is_ready)

        def start() -> subprocess.Popen[bytes]:
            words = [
                "--robot",
                "serving.workcell.robot.driver_process:make_robot",
                "--robot-option",
                f"socket={arm.socket}",
                "--task",
                "button",
            ]
            words += ["--url", f"ws://{address}/v1/session", "--cell", "c", "--result", str(tmp_path / "r.json"), "--realtime"]
            words += ["--watchdog", str(arm.beat), "--watchdog-command-ms", str(1e3 * COMMAND_S)]
            words += ["--watchdog-heartbeat-ms", str(1e3 * HEARTBEAT_S), "--heartbeat-s", "5"]
            process = subprocess.Popen([sys.executable, "-m", "serving.workcell", *words], stderr=subprocess.PIPE)
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.communicate(timeout=10)


def test_kill_9_of_the_cell_stops_a_drive_that_would_go_on_and_a_restart_does_not_resume(
    arm: Arm, cell: Callable[[], subprocess.Popen[bytes]]
) -> None:
    agent = cell()
    wait_until(arm.is_moving, 20.0)
    agent.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    wait_until(lambda: arm.last()["gate"] == "STOP")
    stopped = next(line for line in map(json.loads, arm.log.read_text().splitlines()) if line["gate"] == "STOP")
    assert stopped["t"] - killed_at < HEARTBEAT_S + 1.0
    assert stopped["velocity"][:3] == [0.0] * 3
    again = cell()
    assert again.wait(20) == 1
    assert again.stderr is not None
    assert b"latched" in again.stderr.read()
    assert not arm.is_moving()
    assert watchdog(["--beat", str(arm.beat), "--clear", "--by", "anna"]) == 0
    time.sleep(0.2)
    assert not arm.is_moving()  # cleared is not resumed
    cell()
    wait_until(arm.is_moving, 20.0)


def test_a_frozen_cell_is_stopped_and_finds_out_when_it_wakes(arm: Arm, cell: Callable[[], subprocess.Popen[bytes]]) -> None:
    agent = cell()
    wait_until(arm.is_moving, 20.0)
    agent.send_signal(signal.SIGSTOP)
    wait_until(lambda: arm.last()["gate"] == "STOP")
    assert not arm.is_moving()
    agent.send_signal(signal.SIGCONT)
    assert agent.wait(20) == 4  # SAFE_STOP: a person has to look
    assert not arm.is_moving()


def test_kill_9_of_the_watchdog_stops_the_cell(arm: Arm, cell: Callable[[], subprocess.Popen[bytes]]) -> None:
    agent = cell()
    wait_until(arm.is_moving, 20.0)
    beat = SharedBeat(arm.beat)
    os.kill(beat.dog_pid, signal.SIGKILL)
    assert agent.wait(20) == 4
    wait_until(lambda: not arm.is_moving())
    beat.close()
