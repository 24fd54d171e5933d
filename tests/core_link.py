"""The cell's `Link` straight over a `LinkCore`: what the virtual worlds put their own wires under."""

from __future__ import annotations

from collections.abc import Callable

from serving.workcell.link.connection_state import LinkCore
from serving.workcell.link.interface import Link
from serving.workcell.link.link_types import LinkEvent, LinkSettings, ObserveRequest


class CoreLink(Link):
    """A `Link` without a socket. clock: monotonic seconds."""

    def __init__(self, settings: LinkSettings, clock: Callable[[], float]) -> None:
        super().__init__(LinkCore(settings))
        self._clock = clock

    def ask(self, question: ObserveRequest) -> int:
        return self.core.ask(question, self._clock())

    def give_up(self, seq: int) -> None:
        self.core.give_up(seq)

    def poll(self) -> list[LinkEvent]:
        self.core.tick(self._clock())
        return self.core.poll()

    def wait(self, timeout_s: float) -> None:
        raise NotImplementedError("nothing comes by itself: its owner moves the clock")

    def pin(self, model_version: str, contract_id: str) -> None:
        self.core.pin(model_version, contract_id)

    def end_episode(self, episode_id: str, stop_reason: str, *, success: bool) -> None:
        self.core.end_episode(episode_id, stop_reason, success=success)

    def renew(self, reason: str) -> None:
        self.core.renew(self._clock(), reason)

    def close(self) -> None:
        pass
