"""What a control loop needs of its link, whatever moves the bytes."""

from __future__ import annotations

import abc

from model_core.spec.protocol.wire import Ready
from serving.workcell.link.connection_state import LinkCore
from serving.workcell.link.link_types import LinkEvent, LinkTally, ObserveRequest


class Link(abc.ABC):
    """A connection that is described by `core`. No call waits, except `wait`, and `poll` where the world is simulated."""

    def __init__(self, core: LinkCore) -> None:
        self.core = core

    @property
    def tally(self) -> LinkTally:
        """Counts."""
        return self.core.tally

    @property
    def is_up(self) -> bool:
        """Requests can be asked."""
        return self.core.is_up

    @property
    def is_denied(self) -> bool:
        """The service refused the handshake for good; `renew` tries again."""
        return self.core.is_denied

    @property
    def ready(self) -> Ready | None:
        """The newest READY."""
        return self.core.ready

    @property
    def epoch(self) -> int:
        """The number of this connection."""
        return self.core.epoch

    @property
    def last_heard_s(self) -> float:
        """When the service was last heard, monotonic."""
        return self.core.last_heard_s

    @property
    def deadline_s(self) -> float:
        """How long an answer is waited for."""
        return self.core.settings.deadline_s

    @property
    def world_waits(self) -> bool:
        """The world is simulated and stands still while an answer is waited for."""
        return False

    def on_machine_clock(self, at_s: float) -> float:
        """When that is on this machine's clock, the only one that a driver has; the same, unless the world is simulated."""
        return at_s

    @abc.abstractmethod
    def ask(self, question: ObserveRequest) -> int:
        """Ask; the request's number, or 0 while the link is down."""

    @abc.abstractmethod
    def give_up(self, seq: int) -> None:
        """Not wanted any more: CANCEL goes out."""

    @abc.abstractmethod
    def poll(self) -> list[LinkEvent]:
        """What happened since the last call."""

    def put_back(self, events: list[LinkEvent]) -> None:
        """The next `poll` gives these first: whoever polled them was not the one whom they concern."""
        self.core.put_back(events)

    @abc.abstractmethod
    def wait(self, timeout_s: float) -> None:
        """Return when `poll` has something to tell, or after `timeout_s`."""

    @abc.abstractmethod
    def pin(self, model_version: str, contract_id: str) -> None:
        """Only this model from now on."""

    @abc.abstractmethod
    def end_episode(self, episode_id: str, stop_reason: str, *, success: bool) -> None:
        """Tell the service; any model will do again."""

    @abc.abstractmethod
    def renew(self, reason: str) -> None:
        """A new session and epoch."""

    def tell_held(self) -> None:
        """The robot was commanded to hold because of KILL; the service measures how long that took. Goes out within a turn of the link."""
        self.core.say("HOLD")

    @abc.abstractmethod
    def close(self) -> None:
        """End."""
