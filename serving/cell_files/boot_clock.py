"""Time that no clock setting changes: which start of the computer this is, and for how long it has been up, suspend included."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """boot: id of this start of the computer. up_s: seconds since then. wall_s: UTC in seconds since 1970, as the clock is set."""

    boot: str
    up_s: float
    wall_s: float


def moment() -> Moment:
    """Now."""
    return Moment(boot=_boot_id(), up_s=_up_s(), wall_s=time.time())


def age_s(then: Moment, now: Moment) -> float:
    """Seconds from one to the other. After a restart of the computer the set clock alone can tell; one that went back tells nothing, and
    that counts as for ever."""
    if then.boot == now.boot:
        return max(now.up_s - then.up_s, 0.0)
    elapsed = now.wall_s - then.wall_s
    return elapsed if elapsed >= 0 else float("inf")


def _boot_id() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # not Linux: one boot, for all that is known
        return "unknown"


def _up_s() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
