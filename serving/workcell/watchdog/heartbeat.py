"""A few words of memory that an agent, its watchdog and its driver share: heartbeats, the newest command, the stop.

    offset  0   mark "ACTWBEAT", version        24  agent: pid, armed, beat        48  agent: newest command
           56   watchdog: pid, beat             72  stop: level, code, time

Times are nanoseconds of the system's monotonic clock, one for all processes of a machine. A STOP is latched: no process
takes it back by being restarted, only a person does (`clear`). Each word is written by one process and is 8 bytes long.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from model_core.spec.errors import SpecError

MARK = b"ACTWBEAT"
VERSION = 1
SIZE = 128
_AGENT_PID, _ARMED, _AGENT_BEAT, _COMMAND, _DOG_PID, _DOG_BEAT, _LEVEL, _CODE, _STOP_AT = range(24, 24 + 9 * 8, 8)


class StopLevel(enum.IntEnum):
    """What a driver has to honour."""

    NONE = 0
    HOLD = 1  # hold until fresh commands come
    STOP = 2  # stop; only a person takes it back


class StopCode(enum.IntEnum):
    """Why."""

    NONE = 0
    NO_COMMAND = 1
    AGENT_SILENT = 2
    AGENT_DEAD = 3
    OPERATOR = 4

    def explain(self) -> str:
        """A sentence for a person."""
        return _SENTENCES[self]


_SENTENCES = {
    StopCode.NONE: "no stop",
    StopCode.NO_COMMAND: "no fresh command",
    StopCode.AGENT_SILENT: "the agent's heartbeat stopped",
    StopCode.AGENT_DEAD: "the agent's process is gone",
    StopCode.OPERATOR: "an operator stopped it",
}


class SharedBeat:
    """The shared words, in a file (best on a memory file system). Opening creates the file; what it says stays."""

    def __init__(self, path: Path, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.path, self._clock_ns = path, clock_ns
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < SIZE:
                os.ftruncate(descriptor, SIZE)
            self._memory = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        if self._memory[:8] == bytes(8):
            self._memory[:8] = MARK
            self._put(8, VERSION)
        if self._memory[:8] != MARK or self._get(8) != VERSION:
            raise SpecError(f"{path} is not a heartbeat file of version {VERSION}; name another file")

    def close(self) -> None:
        """Unmap the memory; the file stays."""
        self._memory.close()

    # --- the agent ------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        """The agent begins to command: from now on silence counts."""
        now = self._clock_ns()
        self._put(_AGENT_PID, os.getpid())
        self._put(_AGENT_BEAT, now)
        self._put(_COMMAND, now)
        self._put(_ARMED, 1)

    def disarm(self) -> None:
        """The agent has stopped commanding on purpose."""
        self._put(_ARMED, 0)

    def beat(self) -> None:
        """The agent's control loop turns."""
        self._put(_AGENT_BEAT, self._clock_ns())

    def commanded(self) -> None:
        """A command, a hold included, went to the driver."""
        self._put(_COMMAND, self._clock_ns())

    # --- the watchdog -------------------------------------------------------------------------------------------------

    def dog_beat(self) -> None:
        """The watchdog lives."""
        self._put(_DOG_PID, os.getpid())
        self._put(_DOG_BEAT, self._clock_ns())

    def stop(self, level: StopLevel, code: StopCode) -> None:
        """Demand a hold or a stop. A STOP is never lowered here."""
        if self.level is StopLevel.STOP or self.level is level:
            return
        self._put(_CODE, int(code))
        self._put(_STOP_AT, self._clock_ns())
        self._put(_LEVEL, int(level))

    def end_hold(self) -> None:
        """Fresh commands came: a HOLD ends, a STOP does not."""
        if self.level is StopLevel.HOLD:
            self._put(_LEVEL, int(StopLevel.NONE))

    def clear(self, operator: str) -> None:
        """A person, by name, takes a stop back."""
        if not operator.strip():
            raise SpecError("a stop is taken back by a person: give a name, got ''")
        self._put(_ARMED, 0)
        self._put(_LEVEL, int(StopLevel.NONE))
        self._put(_CODE, int(StopCode.NONE))

    # --- all processes -------------------------------------------------------------------------------------------------

    @property
    def level(self) -> StopLevel:
        """What a driver has to honour now."""
        return StopLevel(min(self._get(_LEVEL), int(StopLevel.STOP)))

    @property
    def code(self) -> StopCode:
        """Why."""
        return StopCode(self._get(_CODE))

    @property
    def stopped_at_ns(self) -> int:
        """When the last hold or stop was demanded."""
        return self._get(_STOP_AT)

    @property
    def is_armed(self) -> bool:
        """An agent commands."""
        return self._get(_ARMED) == 1

    @property
    def agent_pid(self) -> int:
        """Process of the agent."""
        return self._get(_AGENT_PID)

    @property
    def dog_pid(self) -> int:
        """Process of the watchdog; 0 before its first beat."""
        return self._get(_DOG_PID)

    def agent_age_s(self) -> float:
        """Since the agent's last beat."""
        return self._age_s(_AGENT_BEAT)

    def command_age_s(self) -> float:
        """Since the last command."""
        return self._age_s(_COMMAND)

    def dog_age_s(self) -> float:
        """Since the watchdog's last beat."""
        return self._age_s(_DOG_BEAT)

    def _age_s(self, place: int) -> float:
        return max(self._clock_ns() - self._get(place), 0) / 1e9

    def _get(self, place: int) -> int:
        return struct.unpack_from("<q", self._memory, place)[0]

    def _put(self, place: int, value: int) -> None:
        struct.pack_into("<q", self._memory, place, value)
