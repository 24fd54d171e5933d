"""The request that is on its way: what it carries, and what the audit gets when its answer comes, or does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.execution.chunking import offsets_A
from model_core.spec.execution.holding import measured_by
from model_core.spec.types import Observation, RefusalCode
from serving.workcell.control.cell_context import CellContext
from serving.workcell.control.events import Asked, RequestOutcome, Resolution
from serving.workcell.control.results import EpisodeNotes
from serving.workcell.link.link_types import LinkEvent, ObserveRequest
from serving.workcell.motion.chunk_curve import SessionKey
from serving.workcell.motion.limits import Limits
from serving.workcell.motion.scheduler import Scheduler
from serving.workcell.robot.interface import AgedSenses


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sighting:
    """An observation that was taken just now. age_ms: how old each of its readings was then."""

    observation: Observation
    taken_at_s: float
    age_ms: Mapping[str, float]


class RequestTracker:
    """Asks for one cell; one request counts at a time. session: in which."""

    def __init__(self, context: CellContext, session: SessionKey) -> None:
        self.session = session
        self._body, self._robot, self._link = context.body, context.body.robot, context.link
        self._wishes, self._tell = context.wishes, context.tell
        self._level, self._clock = context.settings.level, context.clock
        self._open: dict[int, Asked] = {}
        self._not_before_s = float("-inf")
        self._places = measured_by(self._robot.embodiment)

    @property
    def open_seqs(self) -> list[int]:
        """Numbers of the requests that are on their way."""
        return list(self._open)

    def take(self, seq: int) -> Asked | None:
        """An answer or a refusal came for this request; None when the request is no longer open."""
        return self._open.pop(seq, None)

    def wait_until(self, at_s: float) -> None:
        """The service does not want to be asked earlier."""
        self._not_before_s = max(self._not_before_s, at_s)

    def begin(self, now_s: float) -> None:
        """A new episode: a wait that the service asked for in the last one is over."""
        self._not_before_s = now_s

    def is_due(self, now_s: float, scheduler: Scheduler) -> bool:
        """Time to look and ask."""
        ref = scheduler.current
        lifetime = float("inf") if ref is None else (ref.expires_at_s - now_s) * self._robot.embodiment.control_hz
        return self._link.is_up and now_s >= self._not_before_s and scheduler.wants_chunk(lifetime)

    def ages_ms(self, limits: Limits) -> tuple[Mapping[str, float], str]:
        """How old the readings of the last look are, and in words which of them are too old to act on."""
        ages = dict(self._robot.ages_ms()) if isinstance(self._robot, AgedSenses) else {}
        too_old = [f"{name} is {age:.0f} ms old" for name, age in ages.items() if age > limits.max_age_ms.get(name, float("inf"))]
        return ages, ", ".join(too_old)

    def ask(self, scheduler: Scheduler, episode: EpisodeNotes, sighting: Sighting, now_s: float) -> None:
        """Ask with an observation that was taken just now; an older request counts no more."""
        observation, last_A = sighting.observation, self._body.last_A
        body, wishes = self._robot.embodiment, self._wishes
        if wishes.instruction != observation.instruction:
            observation = replace(observation, instruction=wishes.instruction)
        offset_A = offsets_A(body, observation.proprio_P)
        ask = scheduler.draft(self._pose_A(observation.proprio_P, last_A))
        question = ObserveRequest(
            episode_id=episode.episode_id,
            step=episode.steps,
            observation=observation,
            taken_at_s=sighting.taken_at_s,
            age_ms=sighting.age_ms,
            level=self._level,
            previous_chunk_id=ask.previous_chunk_id,
            consumed=ask.previous_consumed,
            committed_DA=(ask.committed_DA - offset_A).astype(np.float32) if len(ask.committed_DA) else None,
            steering=wishes.steering(now_s, self._body.gripper_2),
            edit=wishes.edit,
        )
        seq = self._link.ask(question)
        if seq:
            wishes.edit = None
            scheduler.sent(seq, ask)
            self.forget("replaced by a newer question")
            self._open = {seq: Asked(question=question, ask=ask)}
            episode.decisions += 1

    def forget(self, why: str) -> None:
        """Whatever is still to come for them counts no more: the service may stop, and the audit says so."""
        asked, self._open = self._open, {}
        for seq, one in asked.items():
            self._link.give_up(seq)
            given_up = LinkEvent(kind="late", t_s=self._clock(), seq=seq)
            cancelled = Resolution(outcome=RequestOutcome.DROPPED, code=RefusalCode.CANCELLED.value, reason=why)
            self.report(given_up, one, cancelled)

    def report(self, heard: LinkEvent, asked: Asked, came_of_it: Resolution) -> None:
        """Tell the audit what came of a request."""
        self._tell.decision(heard, asked, self.session, came_of_it, self._link.deadline_s)

    def _pose_A(self, proprio_P: NDArray[np.float32], last_A: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Where pose dimensions are: measured, else as last commanded."""
        told_A = np.zeros(len(self._places), np.float32) if last_A is None else last_A
        return np.array([told_A[i] if place is None else proprio_P[place] for i, place in enumerate(self._places)], np.float32)
