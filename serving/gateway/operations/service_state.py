"""Where a gateway is in its life, and who has stopped it."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field

_LATELY_S = 600.0


class State(enum.StrEnum):
    """Where the gateway is in its life."""

    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True)
class Standing:
    """State with its reason. draining: why no new episode is begun, "" while they are. killed: cell, or "" for all -> why.

    Set by the loading thread and by the event loop; a gateway that was stopped stays so.
    """

    max_restarts: int
    state: State = State.LOADING
    reason: str = "the model is being loaded"
    restarts: int = 0
    lately: list[float] = field(default_factory=list)
    draining: str = ""
    killed: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def to(self, state: State, reason: str) -> bool:
        """Change; False for a gateway that was stopped."""
        with self._lock:
            if self.state is State.STOPPED:
                return False
            self.state, self.reason = state, reason
            return True

    def ready(self) -> bool:
        """The model answers as packed."""
        return self.to(State.READY, "")

    def fail(self, reason: str) -> None:
        """The model will not answer."""
        self.to(State.FAILED, reason)

    def lost(self, reason: str, now: float) -> bool:
        """The engine is lost at `now` (monotonic seconds); True when another may be started: a few within ten minutes."""
        self.lately = [at for at in self.lately if at > now - _LATELY_S]
        if len(self.lately) >= self.max_restarts:
            self.fail(f"{reason}; {len(self.lately)} engines were replaced lately")
            return False
        self.lately.append(now)
        self.restarts += 1
        return self.to(State.RECOVERING, f"{reason}; the model is being loaded again")
