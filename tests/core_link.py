"""The cell's `Link` straight over a `LinkCore`: what the virtual worlds put their own wires under."""

from __future__ import annotations

from collections.abc import Callable

from model_core.spec.protocol.wire import Ready
from serving.workcell.link.connection_state import LinkCore
from serving.workcell.link.link_types import Heard, LinkSettings, LinkTally, Question


class CoreLink:
    """A `Link` without a socket. clock: monotonic seconds."""

    def __init__(self, settings: LinkSettings, clock: Callable[[], float]) -> None:
        self.core, self._clock = LinkCore(settings), clock

    @property
    def tally(self) -> LinkTally:
        return self.core.tally

    @property
    def is_up(self) -> bool:
        return self.core.is_up

    @property
    def is_denied(self) -> bool:
        return self.core.is_denied

    @property
    def ready(self) -> Ready | None:
        return self.core.ready

    @property
    def epoch(self) -> int:
        return self.core.epoch

    @property
    def last_heard_s(self) -> float:
        return self.core.last_heard_s

    @property
    def deadline_s(self) -> float:
        return self.core.settings.deadline_s

    def ask(self, question: Question) -> int:
        return self.core.ask(question, self._clock())

    def give_up(self, seq: int) -> None:
        self.core.give_up(seq)

    def poll(self) -> list[Heard]:
        self.core.tick(self._clock())
        return self.core.poll()

    def pin(self, model_version: str, contract_id: str) -> None:
        self.core.pin(model_version, contract_id)

    def end_episode(self, episode_id: str, stop_reason: str, *, success: bool) -> None:
        self.core.end_episode(episode_id, stop_reason, success=success)

    def renew(self, reason: str) -> None:
        self.core.renew(self._clock(), reason)

    def close(self) -> None:
        pass
