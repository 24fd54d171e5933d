"""`python -m serving.workcell.watchdog.watchdog`: a process of its own that stops the driver when the agent does not command.

    no fresh command within --command-ms        HOLD, until commands come again
    no heartbeat within --heartbeat-ms          STOP, until a person takes it back
    the agent's process is gone                 STOP, at once

It reads and writes a few shared words (`shared_beat`) and knows nothing else: no network, no robot, no policy. The agent
watches it in turn. Restarting either never resumes motion: a STOP stays in the file until `--clear --by NAME`.

This is a guard in software, not a safety function: stops, speed and separation belong into a rated controller.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_core.spec.errors import NotReady, SpecError, require
from serving.lifeline import end_on_signal
from serving.workcell.watchdog.heartbeat import SharedBeat, StopCode, StopLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """How long silence is borne, in seconds."""

    command_s: float = 0.25
    heartbeat_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("command_s", "heartbeat_s"):
            require(0 < getattr(self, name) < 3600, f"{name} must be above 0", got=getattr(self, name))

    @property
    def poll_s(self) -> float:
        """How often the watchdog looks, and beats."""
        return min(self.command_s, self.heartbeat_s) / 5


def judge(beat: SharedBeat, limits: WatchLimits, is_alive: Callable[[int], bool]) -> tuple[StopLevel, StopCode]:
    """What the driver has to honour now, by the shared words alone."""
    if not beat.is_armed:
        return StopLevel.NONE, StopCode.NONE
    if not is_alive(beat.agent_pid):
        return StopLevel.STOP, StopCode.AGENT_DEAD
    if beat.agent_age_s() > limits.heartbeat_s:
        return StopLevel.STOP, StopCode.AGENT_SILENT
    if beat.command_age_s() > limits.command_s:
        return StopLevel.HOLD, StopCode.NO_COMMAND
    return StopLevel.NONE, StopCode.NONE


def watch(beat: SharedBeat, limits: WatchLimits, *, is_over: Callable[[], bool], sleep: Callable[[float], None] = time.sleep) -> None:
    """Judge, stop, beat, until `is_over`, or until the agent is gone and its stop is written."""
    while not is_over():
        level, code = judge(beat, limits, is_alive)
        if level is StopLevel.NONE:
            beat.end_hold()
        else:
            beat.stop(level, code)
        beat.dog_beat()
        if code is StopCode.AGENT_DEAD:
            return
        sleep(limits.poll_s)


def is_alive(pid: int) -> bool:
    """Does this process exist, and is no zombie?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return _exists(pid)
    return state not in "ZX"


def _exists(pid: int) -> bool:
    if sys.platform.startswith("linux") or pid <= 0:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


class WatchPost:
    """The agent's side: starts a watchdog, beats, and notices when the watchdog itself is gone or has spoken."""

    def __init__(self, path: Path, limits: WatchLimits | None = None, *, patience_s: float = 10.0) -> None:
        self.limits = limits or WatchLimits()
        self.beat = SharedBeat(path)
        self._process: subprocess.Popen[bytes] | None = None
        self._patience_s = patience_s

    def start(self) -> None:
        """Start the watchdog's process and wait for its first beat. Raises NotReady if it does not come, or a STOP is latched."""
        if self.beat.level is StopLevel.STOP:
            raise NotReady(
                f"{self.beat.path}: a stop is latched ({self.beat.code.explain()}); a person takes it back with: "
                f"python -m serving.workcell.watchdog.watchdog --beat {self.beat.path} --clear --by NAME"
            )
        command = [sys.executable, "-m", "serving.workcell.watchdog.watchdog", "--beat", str(self.beat.path)]
        command += ["--command-ms", str(1e3 * self.limits.command_s), "--heartbeat-ms", str(1e3 * self.limits.heartbeat_s)]
        command += ["--agent", str(os.getpid())]
        began = time.monotonic_ns()
        # A group of its own: what kills the agent's group must not kill the one who has to notice.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        give_up_at = time.monotonic() + self._patience_s
        while self.beat.dog_pid != self._process.pid or self.beat.dog_age_s() > (time.monotonic_ns() - began) / 1e9:
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise NotReady(f"the watchdog did not start (exit code {self._process.poll()}); nothing moves without it")
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The watchdog's process."""
        return 0 if self._process is None else self._process.pid

    def arm(self) -> None:
        """Commands begin."""
        self.beat.arm()

    def disarm(self) -> None:
        """Commands end on purpose."""
        self.beat.disarm()

    def turn(self) -> None:
        """The control loop turns."""
        self.beat.beat()

    def commanded(self) -> None:
        """A command went to the driver."""
        self.beat.commanded()

    def complaint(self) -> str:
        """Why the robot must be stopped; "" when all is well. A dead or silent watchdog is a reason of its own."""
        if self.beat.level is StopLevel.STOP:
            return f"watchdog: {self.beat.code.explain()}"
        if self._process is not None and self._process.poll() is not None:
            return f"the watchdog's process ended with code {self._process.poll()}"
        if self.beat.dog_age_s() > self.limits.heartbeat_s:
            return f"the watchdog is silent for {self.beat.dog_age_s():.2f} s"
        return ""

    def close(self) -> None:
        """Commands are over: end the watchdog."""
        self.beat.disarm()
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.0)
            if process.poll() is None:
                process.kill()
                process.wait(2.0)
        self.beat.close()


class StopGate:
    """The driver's side: ask before every command. Works without an agent or a watchdog being alive."""

    def __init__(self, path: Path) -> None:
        self._beat = SharedBeat(path)

    def verdict(self) -> tuple[StopLevel, str]:
        """What to honour now, and why."""
        return self._beat.level, self._beat.code.explain()

    def close(self) -> None:
        """Release everything that is held open."""
        self._beat.close()


def main(argv: list[str] | None = None) -> int:
    """Watch until SIGTERM; or clear or show a stop. Returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        limits = WatchLimits(command_s=args.command_ms / 1e3, heartbeat_s=args.heartbeat_ms / 1e3)
        beat = SharedBeat(args.beat)
        if args.clear:
            beat.clear(args.by)
            sys.stdout.write(f"{args.beat}: cleared by {args.by}; the agent has to be started again\n")
            return 0
        if args.show:
            sys.stdout.write(f"{args.beat}: {beat.level.name}: {beat.code.explain()}\n")
            return 0
    except (SpecError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    is_asked_to_end = end_on_signal()
    watch(beat, limits, is_over=lambda: is_asked_to_end() or not (beat.is_armed or args.agent == 0 or is_alive(args.agent)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.workcell.watchdog.watchdog",
        description="Stop a driver whose agent does not command.",
        epilog="Example, after a stop: python -m serving.workcell.watchdog.watchdog --beat /dev/shm/cell-01.beat --clear --by anna",
    )
    parser.add_argument("--beat", type=Path, required=True, help="the shared words; best on a memory file system")
    parser.add_argument("--command-ms", type=_positive, default=250.0, help="hold when no command came for so long (default 250)")
    parser.add_argument("--heartbeat-ms", type=_positive, default=1000.0, help="stop when the agent was silent for so long (default 1000)")
    parser.add_argument("--agent", type=int, default=0, metavar="PID", help="end when this process is gone and nothing is armed")
    parser.add_argument("--clear", action="store_true", help="take a latched stop back (needs --by)")
    parser.add_argument("--by", default="", metavar="NAME", help="who takes it back")
    parser.add_argument("--show", action="store_true", help="say whether a stop is latched")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"must be a number of milliseconds above 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
