"""RUN -> STRETCH -> HOLD -> SAFE_STOP: how a robot behaves while answers come, come late, and stop coming. No clock, no IO.

RUN        rows are executed at their own rate
STRETCH    few rows are left and no answer is there: each control step uses up less than a row
HOLD       nothing may be executed: the robot stays where it is
SAFE_STOP  held for too long, too many rejected commands, a driver that stopped, a kill: only a person ends this
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from model_core.spec.errors import SpecError, require


class MotionState(enum.StrEnum):
    """What the robot is doing."""

    RUN = "RUN"
    STRETCH = "STRETCH"
    HOLD = "HOLD"
    SAFE_STOP = "SAFE_STOP"


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionSettings:
    """stretch_rows: slow down when no more rows are left (0: never). min_scale: the slowest, in rows per control step.

    speed_up: by how much a slowed robot gains per control step. safe_stop_after_s: held so long without a demand to hold.
    max_rejects: chunks in a row that the envelope refused.
    """

    stretch_rows: float = 2.0
    min_scale: float = 0.25
    speed_up: float = 0.25
    safe_stop_after_s: float = 10.0
    max_rejects: int = 3

    def __post_init__(self) -> None:
        require(self.stretch_rows >= 0, "stretch_rows must be 0 or more", got=self.stretch_rows)
        require(0 < self.min_scale <= 1 and 0 < self.speed_up <= 1, "min_scale and speed_up must be above 0 and at most 1")
        require(self.safe_stop_after_s > 0 and self.max_rejects >= 1, "safe_stop_after_s and max_rejects must be positive")


class StateMachine:
    """The mode of one robot and the speed of its rows."""

    def __init__(self, settings: MotionSettings | None = None) -> None:
        self.settings = settings or MotionSettings()
        self.mode = MotionState.HOLD
        self.scale = 1.0
        self.reason = "nothing to execute yet"
        self.since_s = 0.0
        self.rejects = 0
        self._holders: set[str] = set()

    def begin(self, now_s: float) -> None:
        """A new episode: held until the first chunk. A SAFE_STOP stays, and so does a hold that was demanded."""
        if self.mode is not MotionState.SAFE_STOP:
            self.mode, self.reason, self.since_s = MotionState.HOLD, "nothing to execute yet", now_s
        self.scale, self.rejects = 1.0, 0

    def tick(self, now_s: float, rows_left: float, *, may_stretch: bool = True, why: str = "nothing to execute") -> MotionState:
        """The mode of this control step. why: the reason that is noted if the robot has to be held now."""
        if self.mode is MotionState.SAFE_STOP:
            return self.mode
        if rows_left <= 0 or self._holders:
            if self.mode is MotionState.HOLD and not self._holders and now_s - self.since_s >= self.settings.safe_stop_after_s:
                self.stop(now_s, f"held for {now_s - self.since_s:.1f} s: {self.reason}")
            else:
                self._become(now_s, MotionState.HOLD, why)
                self.scale = 1.0  # a robot that starts from rest starts at the chunk's own pace
        elif may_stretch and rows_left <= self.settings.stretch_rows:
            self._become(now_s, MotionState.STRETCH, f"{rows_left:g} rows left and no answer yet")
            wanted = max(rows_left / (self.settings.stretch_rows + 1), self.settings.min_scale)
            self.scale = min(self.scale, wanted)
        else:
            self._become(now_s, MotionState.RUN, "rows to execute")
            self.scale = min(self.scale + self.settings.speed_up, 1.0)
        return self.mode

    def hold(self, now_s: float, reason: str, *, by: str = "service") -> None:
        """A hold is demanded. It stays until the same `release`s it: the service does not end a person's hold."""
        self._holders.add(by)
        if self.mode is not MotionState.SAFE_STOP:
            self._become(now_s, MotionState.HOLD, reason)

    def release(self, *, by: str = "service") -> None:
        """The demanded hold is over; rows are still needed before anything moves."""
        self._holders.discard(by)

    def rejected(self, now_s: float, reason: str) -> None:
        """The envelope refused a chunk."""
        self.rejects += 1
        if self.rejects >= self.settings.max_rejects:
            self.stop(now_s, f"{self.rejects} chunks in a row were refused: {reason}")

    def accepted(self) -> None:
        """A command of a new chunk went to the driver."""
        self.rejects = 0

    def stop(self, now_s: float, reason: str) -> None:
        """SAFE_STOP: stays until a person resumes."""
        self._become(now_s, MotionState.SAFE_STOP, reason)

    def resume(self, now_s: float, operator: str) -> None:
        """A person, by name, ends a SAFE_STOP: the robot is held, and moves only on a new answer."""
        if not operator.strip():
            raise SpecError("a SAFE_STOP is ended by a person: give a name, got ''")
        if self.mode is MotionState.SAFE_STOP:
            self.rejects = 0
            self._holders.clear()
            self._become(now_s, MotionState.HOLD, f"resumed by {operator}")

    def _become(self, now_s: float, mode: MotionState, reason: str) -> None:
        if mode is not self.mode:
            self.mode, self.reason, self.since_s = mode, reason, now_s
