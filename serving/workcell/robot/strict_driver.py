"""A simulated arm with a strict driver: every command is checked against the invariants, logged, and refused by an exception.

    I1  a command that moves names its chunk, and its epoch, seq and contract are those of the newest answer
    I2  nothing is executed after its expiry: a row that comes late is rejected, as the cell's process may be stopped at any place
    I3  every value is finite and inside the limits: range, jump from the measured pose, velocity, acceleration, jerk
    I5  contract and model never change inside an episode
    and a command that names no chunk must not move the robot

The checks are written down again here and share no code with the envelope. The log is JSONL, one line a command:
t, chunk_id, session_id, epoch, seq, contract_id, model_version, row, mode, expires_at, action, state (measured before), and
lines with "event" for resets, stops and breaches. Any robot can be driven: the arm's physics is that it reaches every commanded pose.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.errors import ActwrightError
from model_core.spec.types import Observation
from serving.contract_file import read_contract
from serving.workcell.motion.limits import Limits, widest_limits
from serving.workcell.robot.interface import CommandRejected, CommandTag, RobotStopped

_SLACK = 1e-4  # relative: float32 commands against decimal limits


class InvariantBroken(ActwrightError, AssertionError):  # noqa: N818
    """A command that must never have reached a driver."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one control step."""

    success: bool
    done: bool


class StrictDriver:
    """A `Robot` that fails on any broken invariant. late_s: by how much the latest of the rows that it rejected had expired, in s.

    limits: what it enforces (None: the widest that the robot allows). steps: horizon of an episode. goal: control steps that
    must move the robot for success (0: never). log: JSONL file, appended to. reject_at, protective_at, emergency_at: command
    numbers (from 0, over all episodes) at which it rejects one command, or goes into a stop that `release` ends.
    """

    def __init__(
        self,
        embodiment: EmbodimentSpec,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        task: str = "button",
        instruction: str = "push the button",
        steps: int = 200,
        goal: int = 0,
        log: Path | None = None,
        reject_at: int = -1,
        protective_at: int = -1,
        emergency_at: int = -1,
        gain: float = 0.02,
    ) -> None:
        self.embodiment, self.task, self.instruction = embodiment, task, instruction
        self.limits = limits or widest_limits(embodiment)
        self.executed: list[NDArray[np.float32]] = []
        self.tags: list[CommandTag] = []
        self.breaches: list[str] = []
        self.ages: dict[str, float] = {}
        self._clock, self._steps, self._goal, self._gain = clock, steps, goal, gain
        self._faults = {reject_at: "reject", protective_at: "protective", emergency_at: "emergency"}
        self._stop, self.late_s = "", 0.0
        self._number = self._done = self._moved = 0
        self._state_P = self._home_P()
        self._tag: CommandTag | None = None
        self._newest = (0, 0)
        self._pinned: tuple[str, str] | None = None
        self._last_A: NDArray[np.float64] | None = None
        self._rates_2A = np.zeros((2, len(embodiment.action)))  # velocity and acceleration of the last step
        self._log: IO[str] | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = log.open("a", buffering=1)

    # --- the Robot port -------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Back home; a new episode may bring another contract. A stop stays until it is released."""
        if self._stop:
            raise RobotStopped(f"{self._stop} stop is active: release it first")
        rng = np.random.default_rng(seed)
        self._state_P = self._home_P() + (0.01 * rng.standard_normal(len(self.embodiment.proprio))).astype(np.float32)
        self._done = self._moved = 0
        self._pinned = None
        self._rest()
        self._write({"event": "reset", "seed": seed})

    def observe(self) -> Observation:
        """Grey images whose brightness counts commands, and the measured state."""
        images = {c.name: np.full((c.height, c.width, 3), (17 + self._number) % 256, np.uint8) for c in self.embodiment.cameras}
        return Observation(images=images, proprio_P=self._state_P.copy(), instruction=self.instruction)

    def proprio_P(self) -> NDArray[np.float32]:
        """Measured now."""
        return self._state_P.copy()

    def ages_ms(self) -> Mapping[str, float]:
        """As a test has set them in `ages`."""
        return dict(self.ages)

    def tag(self, tag: CommandTag) -> None:
        """Where the next command comes from."""
        self._tag = tag

    def act(self, action_A: NDArray[np.float32]) -> Step:
        """Check, log, move. Raises InvariantBroken, CommandRejected or RobotStopped; then nothing moved."""
        tag, self._tag = self._tag or CommandTag(mode="HOLD"), None
        fault = self._faults.get(self._number, "")
        self._number += 1
        if fault in ("protective", "emergency"):
            self._stop = fault
            self._write({"event": "stop", "kind": fault})
        if self._stop:
            raise RobotStopped(f"{self._stop} stop is active")
        late_s = self._clock() - tag.expires_at_s if tag.chunk_id else 0.0
        if fault == "reject" or late_s > 1e-9:
            self._rest()
            self._write({"event": "rejected", "late_s": max(0.0, late_s)})
            self.late_s = max(self.late_s, late_s)
            raise CommandRejected("the driver did not take the command" if fault else f"the row expired {late_s:.4f} s ago")
        found = [*self._check_values(action_A), *self._check_source(tag, action_A)]
        self._write(_line(tag, action_A, self._state_P))
        if found:
            self.breaches += found
            self._write({"event": "breach", "found": found})
            raise InvariantBroken("; ".join(found))
        self._move(tag, action_A)
        success = self._goal > 0 and self._moved >= self._goal
        return Step(success=success, done=success or self._done >= self._steps)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def stop_state(self) -> str:
        """Which stop is active."""
        return self._stop

    def halt(self, reason: str) -> None:
        """Stop now."""
        self._stop = self._stop or "halted"
        self._write({"event": "halt", "reason": reason})

    def release(self) -> None:
        """A person releases the stop. The robot stands where it is."""
        self._stop = ""
        self._rest()
        self._write({"event": "released"})

    # --- physics ----------------------------------------------------------------------------------------------------

    def _home_P(self) -> NDArray[np.float32]:
        spec = self.embodiment.proprio
        return ((spec.low + spec.high) / 2).astype(np.float32)

    def _rest(self) -> None:
        self._last_A = None
        self._rates_2A[:] = 0.0

    def _place(self, index: int) -> int | None:
        names = [d.name for d in self.embodiment.proprio.dims]
        limit = self.limits.dims[index]
        for name in (limit.measured_by, limit.name, limit.name.removeprefix("d")):
            if name and name in names:
                return names.index(name)
        return None

    def _move(self, tag: CommandTag, action_A: NDArray[np.float32]) -> None:
        modes, hz = self.embodiment.action.modes, self.embodiment.control_hz
        for index, mode in enumerate(modes):
            place = self._place(index)
            if place is None:
                continue
            gain = self.limits.dims[index].gain if self.limits.dims[index].measured_by else self._gain
            if mode in ("absolute", "relative"):
                self._state_P[place] = action_A[index]
            else:
                self._state_P[place] += gain * action_A[index] / (hz if mode == "velocity" else 1.0)
        self._state_P = np.clip(self._state_P, self.embodiment.proprio.low, self.embodiment.proprio.high).astype(np.float32)
        self.executed.append(np.array(action_A, np.float32))
        self.tags.append(tag)
        self._done += 1
        self._moved += bool(tag.chunk_id)
        self._rates_2A = np.stack(self._rates(action_A)[:2])
        self._last_A = action_A.astype(np.float64)
        if not tag.chunk_id:
            self._rates_2A[:] = 0.0

    # --- the checks ---------------------------------------------------------------------------------------------------

    def _rates(self, action_A: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        hz = self.embodiment.control_hz
        velocity_A = np.zeros(len(action_A))
        for index, mode in enumerate(self.embodiment.action.modes):
            if mode == "velocity":
                velocity_A[index] = action_A[index]
            elif mode == "delta":
                velocity_A[index] = action_A[index] * hz
            else:
                before = self._measured(index) if self._last_A is None else float(self._last_A[index])
                velocity_A[index] = 0.0 if before is None else (action_A[index] - before) * hz
        acceleration_A = (velocity_A - self._rates_2A[0]) * hz
        return velocity_A, acceleration_A, (acceleration_A - self._rates_2A[1]) * hz

    def _measured(self, index: int) -> float | None:
        place = self._place(index)
        return None if place is None else float(self._state_P[place])

    def _check_values(self, action_A: NDArray[np.float32]) -> list[str]:
        if action_A.shape != (len(self.embodiment.action),) or not np.isfinite(action_A).all():
            return [f"I3 a command must be {len(self.embodiment.action)} finite numbers, got {action_A}"]
        found = []
        is_hold = self._is_still(action_A)
        velocity_A, acceleration_A, jerk_A = self._rates(action_A)
        for index, (limit, mode) in enumerate(zip(self.limits.dims, self.embodiment.action.modes, strict=True)):
            value, slack = float(action_A[index]), _SLACK * (limit.high - limit.low)
            if not limit.low - slack <= value <= limit.high + slack:
                found.append(f"I3 {limit.name} = {value:.5g} is outside {limit.low:g}..{limit.high:g}")
            jump = self._jump(index, mode, value)
            numbers = (
                {"max_jump": jump}
                if is_hold
                else {
                    "max_jump": jump,
                    "max_velocity": velocity_A[index],
                    "max_acceleration": acceleration_A[index],
                    "max_jerk": jerk_A[index],
                }
            )
            for name, number in numbers.items():
                top = getattr(limit, name)
                if top is not None and abs(number) > top * (1 + _SLACK) + 1e-9:
                    found.append(f"I3 {limit.name}: {name} is {top:.5g}, got {abs(number):.5g}")
        return found

    def _jump(self, index: int, mode: str, value: float) -> float:
        if mode == "delta":
            return value
        if mode == "velocity":
            return value / self.embodiment.control_hz
        measured = self._measured(index)
        return 0.0 if measured is None else value - measured

    def _is_still(self, action_A: NDArray[np.float32]) -> bool:
        body = self.embodiment
        for index, (dim, mode) in enumerate(zip(body.action.dims, body.action.modes, strict=True)):
            if dim.name == body.gripper_dim:
                continue
            value = float(action_A[index])
            if mode in ("delta", "velocity"):
                if value != (body.hold[index] or 0.0):
                    return False
            else:
                near = [body.hold[index], self._measured(index), None if self._last_A is None else float(self._last_A[index])]
                slack = 1e-3 * (dim.high - dim.low)
                if not any(place is not None and math.isclose(value, place, abs_tol=slack) for place in near):
                    return False
        return True

    def _check_source(self, tag: CommandTag, action_A: NDArray[np.float32]) -> list[str]:
        if not tag.chunk_id:
            return [] if self._is_still(action_A) else [f"I1 a command without a chunk moves the body: {action_A.tolist()}"]
        found = []
        if not (tag.session_id and tag.epoch > 0 and tag.seq > 0 and tag.contract_id and tag.row >= 0):
            found.append(f"I1 the command does not say where it comes from: {tag}")
        if (tag.epoch, tag.seq) < self._newest:
            found.append(f"I1 a row of epoch {tag.epoch}, seq {tag.seq} after one of {self._newest}")
        promise = (tag.contract_id, tag.model_version)
        if self._pinned not in (None, promise):
            found.append(f"I5 {promise} inside an episode of {self._pinned}")
        self._pinned = self._pinned or promise
        self._newest = max(self._newest, (tag.epoch, tag.seq))
        return found

    def _write(self, line: Mapping[str, object]) -> None:
        if self._log is not None:
            self._log.write(json.dumps({"t": self._clock(), **line}) + "\n")


def _line(tag: CommandTag, action_A: NDArray[np.float32], state_P: NDArray[np.float32]) -> dict[str, object]:
    return {
        "chunk_id": tag.chunk_id,
        "session_id": tag.session_id,
        "epoch": tag.epoch,
        "seq": tag.seq,
        "contract_id": tag.contract_id,
        "model_version": tag.model_version,
        "row": tag.row,
        "mode": tag.mode,
        "expires_at": tag.expires_at_s,
        "action": [float(v) for v in action_A],
        "state": [float(v) for v in state_P],
    }


def simple_body(*, mode: str = "delta", control_hz: float = 20.0, size: int = 16) -> EmbodimentSpec:
    """A hand with a gripper: one camera, x y z and the opening. mode: of the three hand dimensions."""
    spread: dict[str, Any] = {"low": -1.0, "high": 1.0}
    is_place = mode in ("absolute", "relative")
    names = ("x", "y", "z") if is_place else ("dx", "dy", "dz")
    moving = tuple(DimSpec(name=n, unit="m" if is_place else "1", **spread) for n in names)
    return EmbodimentSpec(
        name=f"strict-{mode}",
        cameras=(CameraSpec(name="front", width=size, height=size),),
        proprio=VectorSpec(dims=tuple(DimSpec(name=n, unit="m", low=-2.0, high=2.0) for n in ("x", "y", "z", "opening"))),
        action=VectorSpec(dims=(*moving, DimSpec(name="gripper", unit="1", mode="absolute" if is_place else "", **spread)), mode=mode),
        control_hz=control_hz,
        gripper_dim="gripper",
        gripper_open=-1.0,
        hold=(None,) * 4 if is_place else (0.0, 0.0, 0.0, None),
    )


def make_robot(
    task: str,
    seed: int,
    *,
    contract: str = "",
    mode: str = "delta",
    control_hz: float = 20.0,
    log: str = "",
    instruction: str = "",
    steps: int = 200,
    goal: int = 0,
    reject_at: int = -1,
    protective_at: int = -1,
    emergency_at: int = -1,
) -> StrictDriver:
    """For `--robot strict`. contract: of the file, whose embodiment it takes ("": `simple_body`). instruction: "" asks for the task."""
    return StrictDriver(
        read_contract(Path(contract)).embodiment if contract else simple_body(mode=mode, control_hz=control_hz),
        task=task,
        instruction=instruction or task,
        steps=steps,
        goal=goal,
        log=Path(log) if log else None,
        reject_at=reject_at,
        protective_at=protective_at,
        emergency_at=emergency_at,
    )
