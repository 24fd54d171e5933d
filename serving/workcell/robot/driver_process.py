"""`python -m serving.workcell.robot.driver_process`: a simulated drive that keeps the last velocity it was commanded.

As real drives do, it does not notice that the cell is gone. What stops it is the stop gate (`watchdog.StopGate`),
which it asks in every period: HOLD is velocity 0 until a new command comes, STOP is velocity 0 until a person clears it.
Commands come over a Unix socket as JSON lines; the cell's side of that is `RemoteArm`:

    python -m serving.workcell.robot.driver_process --socket arm.sock --beat /dev/shm/c1.beat --log arm.jsonl
    python -m serving.workcell --robot serving.workcell.robot.driver_process:make_robot --robot-option socket=/tmp/arm.sock ...
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import ActwrightError, SpecError
from model_core.spec.types import Observation
from serving.lifeline import end_on_signal
from serving.workcell.robot.interface import CommandTag, RobotStopped
from serving.workcell.robot.strict_driver import Step, simple_body
from serving.workcell.watchdog.heartbeat import StopLevel
from serving.workcell.watchdog.watchdog import StopGate

_LINE_BYTES = 4096


class Drive:
    """Three axes and a gripper that keep their velocity. log: JSONL, one line a period: t, velocity, state, gate, chunk_id."""

    def __init__(self, gate: StopGate, log: IO[str], *, control_hz: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.body = simple_body(mode="velocity", control_hz=control_hz)
        self._gate, self._log, self._clock = gate, log, clock
        self._velocity_A = np.zeros(4)
        self._state_P = np.zeros(4)
        self._chunk_id = ""

    def period(self) -> None:
        """One control period: obey the gate, move, write it down."""
        level, why = self._gate.verdict()
        if level is not StopLevel.NONE:
            self._velocity_A[:3] = 0.0  # the gripper keeps what it holds
            self._chunk_id = ""
        self._state_P[:3] += self._velocity_A[:3] / self.body.control_hz
        line = {
            "t": self._clock(),
            "velocity": self._velocity_A.tolist(),
            "state": self._state_P.tolist(),
            "gate": level.name,
            "why": why if level is not StopLevel.NONE else "",
            "chunk_id": self._chunk_id,
        }
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    def answer(self, asked: Mapping[str, object]) -> dict[str, object]:
        """One line of the cell: "state", or "act" with an action and where it comes from."""
        level, why = self._gate.verdict()
        stopped = why if level is StopLevel.STOP else ""
        if asked.get("do") == "act" and not stopped:
            action = asked.get("action")
            if not (isinstance(action, list) and len(action) == 4 and np.isfinite(np.array(action, np.float64)).all()):
                return {"error": "an action is four finite numbers"}
            self._velocity_A = np.clip(np.array(action, np.float64), -1.0, 1.0)
            self._chunk_id = str(asked.get("chunk_id", ""))
        return {"state": self._state_P.tolist(), "stopped": stopped}


class RemoteArm:
    """The `Robot` that talks to a `Drive` in another process."""

    def __init__(self, path: str, task: str, *, control_hz: float, steps: int) -> None:
        self.embodiment = simple_body(mode="velocity", control_hz=control_hz)
        self.task, self.instruction = task, "push the button"
        self._steps, self._done, self._chunk_id = steps, 0, ""
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(1.0)
        try:
            self._line.connect(path)
        except OSError as error:
            raise SpecError(f"no drive listens at {path}: {error}") from error
        self._file = self._line.makefile("rwb")

    def reset(self, seed: int) -> None:
        """Where it stands."""
        self._done = 0
        self._ask({"do": "state"})

    def observe(self) -> Observation:
        """Grey images and the measured state."""
        images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in self.embodiment.cameras}
        return Observation(images=images, proprio_P=self.proprio_P(), instruction=self.instruction)

    def proprio_P(self) -> NDArray[np.float32]:
        """Measured now."""
        return np.array(self._ask({"do": "state"})["state"], np.float32)

    def tag(self, tag: CommandTag) -> None:
        """Where the next command comes from."""
        self._chunk_id = tag.chunk_id

    def act(self, action_A: NDArray[np.float32]) -> Step:
        """Another velocity. Raises RobotStopped while the gate is shut."""
        told = self._ask({"do": "act", "action": [float(v) for v in action_A], "chunk_id": self._chunk_id})
        if told["stopped"]:
            raise RobotStopped(str(told["stopped"]))
        self._done += 1
        return Step(success=False, done=self._done >= self._steps)

    def stop_state(self) -> str:
        """Whether its gate is shut."""
        return "watchdog" if self._ask({"do": "state"})["stopped"] else ""

    def halt(self, reason: str) -> None:
        """Velocity 0."""
        self._ask({"do": "act", "action": [0.0] * 4, "chunk_id": ""})

    def close(self) -> None:
        """Hang up."""
        self._line.close()

    def _ask(self, words: Mapping[str, object]) -> Mapping[str, object]:
        self._file.write(json.dumps(words).encode() + b"\n")
        self._file.flush()
        told = json.loads(self._file.readline(_LINE_BYTES) or b"{}")
        if "state" not in told:
            raise ActwrightError(f"the drive answered {told!r}")
        return told


def make_robot(task: str, seed: int, *, socket: str, control_hz: float = 20.0, steps: int = 10_000) -> RemoteArm:
    """For `--robot serving.workcell.robot.driver_process:make_robot`."""
    return RemoteArm(socket, task, control_hz=control_hz, steps=steps)


def main(argv: list[str] | None = None) -> int:
    """Drive until SIGTERM; returns the exit code."""
    args = _parser().parse_args(argv)
    is_asked_to_end = end_on_signal()
    gate = StopGate(args.beat)
    args.socket.unlink(missing_ok=True)
    with args.log.open("a") as log, _Door(str(args.socket), _Cell) as door:
        door.drive, door.lock = Drive(gate, log, control_hz=args.control_hz), threading.Lock()
        threading.Thread(target=door.serve_forever, name="door", daemon=True).start()
        try:
            _turn(door, is_asked_to_end)
        finally:
            args.socket.unlink(missing_ok=True)
            gate.close()
    return 0


def _turn(door: _Door, is_over: Callable[[], bool]) -> None:
    """Periods on the clock, whatever the cell does; one that dies leaves the drive as it is."""
    period_s = 1.0 / door.drive.body.control_hz
    next_s = time.monotonic()
    while not is_over():
        with door.lock:
            door.drive.period()
        next_s = max(next_s + period_s, time.monotonic())
        time.sleep(max(next_s - time.monotonic(), 0.0))


class _Door(socketserver.UnixStreamServer):
    """Where a cell connects: one at a time, until it hangs up. lock: a command comes between two periods, never inside one."""

    drive: Drive
    lock: threading.Lock


class _Cell(socketserver.StreamRequestHandler):
    """One cell at the door. A line that is none ends its connection."""

    def handle(self) -> None:
        door = self.server
        assert isinstance(door, _Door)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            while asked := self.rfile.readline(_LINE_BYTES):
                with door.lock:
                    told = door.drive.answer(json.loads(asked))
                self.wfile.write(json.dumps(told).encode() + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.workcell.robot.driver_process",
        description="A simulated drive that keeps its velocity until another one is commanded, or its stop gate is shut.",
        epilog="Example: python -m serving.workcell.robot.driver_process --socket arm.sock --beat /dev/shm/c1.beat --log arm.jsonl",
    )
    parser.add_argument("--socket", type=Path, required=True, help="listen here")
    parser.add_argument("--beat", type=Path, required=True, help="the heartbeat file that its watchdog writes")
    parser.add_argument("--log", type=Path, required=True, help="one JSON line a period")
    parser.add_argument("--control-hz", type=float, default=20.0, help="periods a second (default 20)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
