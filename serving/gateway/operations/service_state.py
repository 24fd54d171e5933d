"""The phase of a gateway's life, and an operator's drain and kill orders."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field

from serving.gateway.operations.kill_switch import KillSwitch

_RESTART_WINDOW_S = 600.0


class State(enum.StrEnum):
    """The phase of the gateway's life."""

    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True)
class ServiceState:
    """State with its reason. draining: why no new episode may begin, "" while one may. kills: what is stopped.

    Set by the loading thread and by the event loop; a stopped gateway stays stopped.
    """

    max_restarts: int
    state: State = State.LOADING
    reason: str = "the model is being loaded"
    restarts: int = 0
    recent_losses: list[float] = field(default_factory=list)
    draining: str = ""
    kills: KillSwitch = field(default_factory=KillSwitch)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def to(self, state: State, reason: str) -> bool:
        """Change the state; False for a gateway that was stopped."""
        with self._lock:
            if self.state is State.STOPPED:
                return False
            self.state, self.reason = state, reason
            return True

    def ready(self) -> bool:
        """The model answers as it did when it was packed."""
        return self.to(State.READY, "")

    def fail(self, reason: str) -> None:
        """The model will not answer."""
        self.to(State.FAILED, reason)

    def lost(self, reason: str, now: float) -> bool:
        """The engine is lost at `now` (monotonic seconds); True when another may be started: a few within ten minutes."""
        self.recent_losses = [at for at in self.recent_losses if at > now - _RESTART_WINDOW_S]
        if len(self.recent_losses) >= self.max_restarts:
            self.fail(f"{reason}; {len(self.recent_losses)} engines were replaced within ten minutes")
            return False
        self.recent_losses.append(now)
        self.restarts += 1
        return self.to(State.RECOVERING, f"{reason}; the model is being loaded again")
