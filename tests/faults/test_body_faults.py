"""F31, F32: drivers that reject, stops that are pressed, agents that pause or die, a watchdog that is killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from model_core.spec.types import StopReason
from serving.workcell.control.realtime_cell import RealtimeCell
from serving.workcell.watchdog.heartbeat import StopLevel
from serving.workcell.watchdog.watchdog import StopGate, WatchLimits, WatchPost
from tests.fakes import make_embodiment
from tests.faults.checker import Breach
from tests.faults.verdicts import covers
from tests.faults.world import World, absolute_body, bounds_of
from tests.loopback import wait_until

LIMITS = WatchLimits(command_s=0.4, heartbeat_s=1.5)


@covers(
    "F31",
    I1="after a rejected command everything that was queued is void, the gripper's rows too; the next chunk is of a new epoch",
    I3="the first action after it starts from the measured pose",
)
@pytest.mark.parametrize("body", [make_embodiment(), absolute_body()], ids=["delta", "absolute"])
def test_the_driver_rejects_a_command(tmp_path: Path, body) -> None:
    world = World(tmp_path, body=body, driver_options={"reject_at": 30})
    world.run(10)
    assert world.breaches() == []
    lines = world.driver_lines()
    before, after = lines[:30], lines[30:]
    assert after[0]["chunk_id"] == ""
    gripper = [line["action"][3] for line in (before[-1], after[0])]
    assert gripper[0] == gripper[1] or bounds_of(body).hold[3] is not None
    moving = [line for line in after if line["chunk_id"]]
    assert moving[0]["epoch"] > before[-1]["epoch"]
    assert moving[0]["row"] == 0
    assert len(moving) > 50


@covers("F32", I2="a row that expires on its way to the driver is rejected there", I8="the episode goes on with a new answer")
def test_a_row_that_comes_late_to_the_driver(tmp_path: Path) -> None:
    world, ahead_s = World(tmp_path), [0.0]
    world.driver._clock = lambda: world.clock.now + ahead_s[0]
    world.at(2.0, lambda: ahead_s.__setitem__(0, 1.0))  # as if the cell's process had stood still for a second, just before the driver
    world.at(2.2, lambda: ahead_s.__setitem__(0, 0.0))
    result = world.run(6)
    assert result.stop_reason is StopReason.MAX_STEPS
    assert 0.5 < world.driver.late_s < 1.0
    assert world.breaches() == [Breach("I2", f"I2 a row came to the driver {world.driver.late_s:.4f} s late")]  # but none was executed
    assert world.moving(3.0, 6.0) > 40


class StandsStillWhileItJudges(RealtimeCell):
    """The machine runs other programs for a second while a row is judged."""

    def begin(self, seed):
        envelope, reason = self._control._body.envelope, super().begin(seed)
        check, calls = envelope.check, itertools.count()

        def slowly(*words, **named):
            verdict = check(*words, **named)
            if next(calls) == 30:
                self._control._clock.sleep(1.0)
            return verdict

        envelope.check = slowly
        return reason


@covers("F32", I2="a row that expires while it is judged is not sent", I4="the robot is held in that step", I8="the episode goes on")
def test_a_row_that_expires_while_it_is_judged(tmp_path: Path) -> None:
    world = World(tmp_path, make_cell=StandsStillWhileItJudges)
    result = world.run(6)
    assert result.stop_reason is StopReason.MAX_STEPS
    assert world.driver.late_s == 0.0
    assert world.breaches() == []
    assert [note["detail"]["reason"] for note in world.audit.events("reject")] == ["the row expired while it was judged"]
    assert world.moving(3.0, 6.0) > 40


@covers(
    "F31", I1="under a protective or emergency stop nothing is sent", I4="and nothing moves when it is released, until a person resumes"
)
@pytest.mark.parametrize("stop", ["protective_at", "emergency_at"])
@pytest.mark.parametrize("body", [make_embodiment(), absolute_body()], ids=["delta", "absolute"])
def test_a_stop_is_pressed_and_released(tmp_path: Path, stop: str, body) -> None:
    said: list[str] = [""]
    world = World(tmp_path, body=body, driver_options={stop: 30}, operator=lambda: said[0], operator_wait_s=60.0)
    world.at(4.0, world.driver.release)
    world.at(7.0, lambda: said.__setitem__(0, "anna"))
    world.run(14)
    assert world.breaches() == []
    assert world.moving(1.6, 7.0) == 0  # released at 4 s; resumed by nobody until 7 s
    moving = [line for line in world.driver_lines() if line["chunk_id"] and line["t"] - 1000 > 7.0]
    assert len(moving) > 60
    assert moving[0]["row"] == 0
    assert moving[0]["epoch"] >= 2
    assert [note["detail"]["operator"] for note in world.audit.events("resumed")] == ["anna"]


@covers("F31", I4="nobody resumes: the episode ends in a stop and the next one does not begin")
def test_a_stop_that_nobody_takes_back(tmp_path: Path) -> None:
    world = World(tmp_path, driver_options={"emergency_at": 30})
    assert world.run(10).stop_reason is StopReason.GUARD_STOPPED
    count = len(world.driver_lines())
    assert world.run(3, seed=2).stop_reason is StopReason.GUARD_STOPPED
    assert len(world.driver_lines()) == count


@covers("F32", I2="after a pause of the agent nothing that expired meanwhile is sent", I4="it holds and asks anew")
@pytest.mark.parametrize("pause_s", [0.1, pytest.param(0.5, marks=pytest.mark.soak), 5.0])  # short of 0.5: a shorter and a longer one
def test_the_agent_pauses(tmp_path: Path, pause_s: float) -> None:
    world = World(tmp_path)
    for second in (3.0, 4.03, 5.06):
        world.at(second, lambda: world.clock.sleep(pause_s))
    world.run(20 + 3 * pause_s)
    assert world.breaches() == []
    assert world.moving(12 + 3 * pause_s) > 50


@covers("F32", I4="a starved control loop (one step in four is late) goes on or holds", I2="and executes nothing that is too old")
def test_a_starved_control_loop(tmp_path: Path) -> None:
    world = World(tmp_path)
    for tenth in range(1, 100):
        world.at(0.2 * tenth, lambda: world.clock.sleep(0.07))
    world.run(20)
    assert world.breaches() == []
    assert world.moving() > 100


AGENT = """
import sys, time
from pathlib import Path
from serving.workcell.watchdog.watchdog import WatchLimits, WatchPost
post = WatchPost(Path(sys.argv[1]), WatchLimits(command_s=0.4, heartbeat_s=1.5))
post.start(); post.arm(); print(post.pid, flush=True)
while True:
    post.turn(); post.commanded(); time.sleep(0.02)
"""


@covers("F32", I4="kill -9 of the agent: the other guard stops the driver", I8="a restart never resumes motion by itself")
def test_the_agent_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(path)], stdout=subprocess.PIPE)
    gate = StopGate(path)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        agent.send_signal(signal.SIGKILL)
        began = time.monotonic()
        agent.wait(5)
        wait_until(lambda: gate.verdict()[0] is StopLevel.STOP)
        assert time.monotonic() - began < LIMITS.heartbeat_s + 3.0
        again = WatchPost(path, LIMITS)
        with pytest.raises(Exception, match="latched"):
            again.start()
    finally:
        gate.close()
        agent.kill()
        agent.wait(5)
        agent.stdout.close() if agent.stdout else None


@covers("F32", I4="kill -9 of the watchdog: the agent stops by itself")
def test_the_watchdog_is_killed(tmp_path: Path) -> None:
    post = WatchPost(tmp_path / "beat", LIMITS)
    post.start()
    try:
        post.arm()
        post.turn()
        post.commanded()
        assert post.complaint() == ""
        os.kill(post.pid, signal.SIGKILL)
        wait_until(lambda: post.complaint() != "")
    finally:
        post.close()


class DeadWatch:
    """A watch post whose watchdog dies at a moment."""

    def __init__(self, world: World, at_s: float) -> None:
        self._world, self._at_s = world, at_s

    def arm(self) -> None: ...
    def disarm(self) -> None: ...
    def turn(self) -> None: ...
    def commanded(self) -> None: ...
    def close(self) -> None: ...

    def complaint(self) -> str:
        return "the watchdog's process ended with code -9" if self._world.now > self._at_s else ""

    @property
    def is_holding(self) -> bool:
        return False


@covers("F32", I4="without a watchdog the cell does not move on")
def test_a_cell_whose_watchdog_died_stops(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.make_cell = partial(RealtimeCell, watch=DeadWatch(world, 3.0))  # type: ignore[arg-type]
    assert world.run(10).stop_reason is StopReason.GUARD_STOPPED
    assert world.breaches() == []
    assert world.moving(3.2) == 0
    assert world.audit.events("watchdog")
