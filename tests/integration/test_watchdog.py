"""Agent and watchdog guard each other across processes: kill -9 of either ends in a stop that no restart takes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_core.spec.errors import NotReady, SpecError
from serving.workcell.watchdog.heartbeat import SharedBeat, StopCode, StopLevel
from serving.workcell.watchdog.watchdog import StopGate, WatchLimits, WatchPost, is_alive, judge, main
from tests.loopback import wait_until

LIMITS = WatchLimits(command_s=0.4, heartbeat_s=2.5)  # wide: a shared machine pauses processes for some 100 ms

AGENT = """
import sys, time
from pathlib import Path
from serving.workcell.watchdog.watchdog import WatchLimits, WatchPost
post = WatchPost(Path(sys.argv[1]), WatchLimits(command_s=0.4, heartbeat_s=2.5))
post.start()
post.arm()
print(post.pid, flush=True)
while True:
    post.turn()
    post.commanded()
    time.sleep(0.02)
"""


@pytest.fixture
def post(tmp_path: Path) -> Iterator[WatchPost]:
    made = WatchPost(tmp_path / "beat", LIMITS)
    made.start()
    yield made
    made.close()


def commanding(post: WatchPost, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        post.turn()
        post.commanded()
        time.sleep(0.02)


def test_kill_9_of_the_agent_stops_the_driver_and_a_restart_does_not_resume(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(path)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        watchdog = int(agent.stdout.readline())
        gate = StopGate(path)
        time.sleep(0.2)
        assert gate.verdict()[0] is StopLevel.NONE
        agent.send_signal(signal.SIGKILL)
        killed_at_ns = time.monotonic_ns()
        agent.wait(5)
        wait_until(lambda: gate.verdict()[0] is StopLevel.STOP)
        beat = SharedBeat(path)
        assert beat.code is StopCode.AGENT_DEAD
        assert (beat.stopped_at_ns - killed_at_ns) / 1e9 < LIMITS.heartbeat_s + 1.0
        wait_until(lambda: not is_alive(watchdog))  # its work is done: nothing is left behind
    finally:
        agent.kill()
        agent.wait(5)
    again = WatchPost(path, LIMITS)
    with pytest.raises(NotReady, match="latched"):
        again.start()
    assert main(["--beat", str(path), "--clear", "--by", "anna"]) == 0
    assert gate.verdict()[0] is StopLevel.NONE
    gate.close()


def test_kill_9_of_the_watchdog_is_noticed_by_the_agent(post: WatchPost) -> None:
    post.arm()
    commanding(post, 0.2)
    assert post.complaint() == ""
    os.kill(post.pid, signal.SIGKILL)
    wait_until(lambda: post.complaint())
    assert "ended" in post.complaint()


def test_a_frozen_watchdog_is_noticed_too(post: WatchPost) -> None:
    post.arm()
    os.kill(post.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "silent" in post.complaint())
    finally:
        os.kill(post.pid, signal.SIGCONT)


def test_no_command_is_a_hold_that_commands_end_and_silence_is_a_stop_that_they_do_not(post: WatchPost) -> None:
    post.arm()
    commanding(post, 0.1)
    give_up_at = time.monotonic() + 10
    while post.beat.level is StopLevel.NONE and time.monotonic() < give_up_at:  # the loop turns, but commands nothing
        post.turn()
        time.sleep(0.02)
    assert post.beat.level is StopLevel.HOLD
    give_up_at = time.monotonic() + 10
    while post.beat.level is not StopLevel.NONE and time.monotonic() < give_up_at:
        post.turn()
        post.commanded()
        time.sleep(0.02)
    assert post.beat.level is StopLevel.NONE
    wait_until(lambda: post.beat.level is StopLevel.STOP)  # the loop hangs
    commanding(post, 0.3)
    assert post.beat.level is StopLevel.STOP
    assert "heartbeat" in post.complaint()


def test_what_is_not_armed_is_not_stopped(post: WatchPost) -> None:
    time.sleep(LIMITS.command_s * 2)
    assert post.beat.level is StopLevel.NONE
    post.arm()
    post.disarm()
    time.sleep(LIMITS.command_s * 2)
    assert post.beat.level is StopLevel.NONE


def test_judges_by_the_clock_of_the_machine_alone(tmp_path: Path) -> None:
    now = [10**12]
    beat = SharedBeat(tmp_path / "beat", lambda: now[0])
    limits = WatchLimits(command_s=0.25, heartbeat_s=1.0)
    assert judge(beat, limits, lambda pid: True) == (StopLevel.NONE, StopCode.NONE)
    beat.arm()
    for seconds, expected in ((0.2, StopLevel.NONE), (0.3, StopLevel.HOLD), (1.1, StopLevel.STOP)):
        now[0] = 10**12 + int(seconds * 1e9)
        assert judge(beat, limits, lambda pid: True)[0] is expected
    assert judge(beat, limits, lambda pid: False) == (StopLevel.STOP, StopCode.AGENT_DEAD)
    beat.stop(StopLevel.STOP, StopCode.OPERATOR)
    beat.stop(StopLevel.HOLD, StopCode.NO_COMMAND)  # a stop is never lowered
    beat.end_hold()
    assert (beat.level, beat.code) == (StopLevel.STOP, StopCode.OPERATOR)
    with pytest.raises(SpecError, match="name"):
        beat.clear("")
    beat.close()


def test_wrong_usage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "notes.txt"
    foreign.write_text("something else, long enough to be a file of some other kind" * 4)
    assert main(["--beat", str(foreign), "--show"]) == 2
    assert main(["--beat", str(tmp_path / "beat"), "--clear"]) == 2
    assert main(["--beat", str(tmp_path / "beat"), "--show"]) == 0
    assert "no stop" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["--beat", str(tmp_path / "beat"), "--command-ms", "-3"])
    assert left.value.code == 2
