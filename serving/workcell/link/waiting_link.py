"""A link for a simulated world: its clock stands still while an answer is waited for, so the answer costs the robot no time.

    real time        ask -- tick -- tick -- tick (answer) --        the robot holds, or executes old rows, meanwhile
    simulated time   ask (world stands still, answer) -- tick --    the same loop, the same rules, no held step

What was waited for in vain can not go better later, for no time passes: it counts against the episode.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from serving.workcell.link.interface import Link
from serving.workcell.link.link_types import LinkEvent, ObserveRequest

_LOOK_S = 0.05
_VAIN = ("refused", "late")
_ANSWERS = ("chunk", *_VAIN)


class SimulatedClock:
    """The seconds of a simulated world. They pass only in `sleep`, which takes no time."""

    def __init__(self) -> None:
        self._now_s = time.monotonic()

    def __call__(self) -> float:
        """The world's time."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let the world's time pass."""
        self._now_s += seconds


class WaitingLink(Link):
    """A `Link` whose `poll` waits for the open answer, or for a connection that was lost, for at most the deadline.

    world: the simulated clock, in which all times are given. wall, sleep: of the machine, in which the service answers.
    """

    def __init__(
        self,
        link: Link,
        world: Callable[[], float],
        *,
        wall: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(link.core)
        self._link, self._world, self._wall, self._sleep = link, world, wall, sleep
        self._open, self._is_held = 0, False
        self._asked_at_s = float("-inf")
        self._trouble = LinkEvent(kind="down", t_s=0.0, reason="the link is down")

    @property
    def last_heard_s(self) -> float:
        """When the service was last heard, in the world's time."""
        return self._world() - (self._wall() - super().last_heard_s)

    @property
    def world_waits(self) -> bool:
        """Always."""
        return True

    def on_machine_clock(self, at_s: float) -> float:
        """When that is on this machine's clock, which the world may be ahead of or behind."""
        return at_s - self._world() + self._wall()

    def ask(self, question: ObserveRequest) -> int:
        """Ask; the request's number, or 0 while the link is down. `poll` waits for the answer."""
        if self.ready is not None:
            self._sleep(max(self._asked_at_s + self.ready.min_interval_ms / 1e3 - self._wall(), 0.0))
        self._asked_at_s = self._wall()
        self._open = self._link.ask(replace(question, taken_at_s=question.taken_at_s - self._world() + self._asked_at_s))
        return self._open

    def give_up(self, seq: int) -> None:
        """Not wanted any more."""
        self._link.give_up(seq)
        self._open = 0 if seq == self._open else self._open

    def poll(self) -> list[LinkEvent]:
        """What happened since the last call, and what comes while the world stands still."""
        began, heard = self._wall(), self._take()
        while not _is_told_to_stop(heard) and self._is_worth_waiting(self._wall() - began):
            self._link.wait(_LOOK_S)
            heard += self._take()
        is_refused = any(one.kind in _VAIN for one in heard)
        if not (self.is_up or is_refused):
            heard = [one for one in heard if one is not self._trouble] + [replace(self._trouble, is_retryable=False)]
        return [self._told(one, self._wall() - began) for one in heard]

    def put_back(self, events: list[LinkEvent]) -> None:
        """The next `poll` gives these first; their times are of the machine's clock."""
        self._link.put_back(events)

    def wait(self, timeout_s: float) -> None:
        """Return when something has come, or after `timeout_s` of the machine's time."""
        self._link.wait(timeout_s)

    def pin(self, model_version: str, contract_id: str) -> None:
        """Only this model from now on."""
        self._link.pin(model_version, contract_id)

    def end_episode(self, episode_id: str, stop_reason: str, *, success: bool) -> None:
        """Tell the service; any model will do again."""
        self._open = 0
        self._link.end_episode(episode_id, stop_reason, success=success)

    def renew(self, reason: str) -> None:
        """A new session and epoch."""
        self._open = 0
        self._link.renew(reason)

    def close(self) -> None:
        """End."""
        self._link.close()

    def _is_worth_waiting(self, waited_s: float) -> bool:
        if self._open:
            return True  # the link itself gives it up at the deadline
        return waited_s < self.deadline_s and (self._is_held or not (self.is_up or self.is_denied))

    def _take(self) -> list[LinkEvent]:
        found = self._link.poll()
        for one in found:
            if one.kind == "down" or (one.kind in _ANSWERS and one.seq == self._open):
                self._open = 0
            if one.kind == "denied" or (one.kind == "down" and not self.is_denied):
                self._trouble = one
            if one.kind in ("up", "told"):
                self._is_held = one.code == "HOLD" or (self._is_held and one.code == "DRAIN")
        return found

    def _told(self, heard: LinkEvent, stood_still_s: float) -> LinkEvent:
        """The same in the world's time. A time to come back is waited for here, and what was asked in vain will not go better later."""
        is_refused = heard.kind == "refused"
        if is_refused:
            self._sleep(min(heard.value, self.deadline_s))
        now_s = self._world()
        return replace(
            heard,
            t_s=now_s,
            expires_at_s=heard.expires_at_s - heard.t_s + now_s,
            stood_still_s=stood_still_s,
            value=0.0 if is_refused else heard.value,
            is_retryable=heard.is_retryable and (self._is_held or heard.kind not in _VAIN),
        )


def _is_told_to_stop(heard: list[LinkEvent]) -> bool:
    return any(one.kind == "told" and one.code in ("HOLD", "KILL") for one in heard)
