"""What a cell says to its audit and its log, put together in one place."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass

from model_core.spec.protocol.wire import Ready
from model_core.spec.types import StopReason
from serving.workcell.audit.interface import ActionExecuted, Audit, DecisionMade, EpisodeBegun, EpisodeEnded, refusal_of
from serving.workcell.control.results import EpisodeNotes
from serving.workcell.link.link_types import LinkEvent, ObserveRequest
from serving.workcell.motion.chunk_curve import SessionKey
from serving.workcell.motion.scheduler import Ask, Command, Installed
from serving.workcell.robot.interface import CommandTag, Robot

logger = logging.getLogger(__name__)

_QUIET = ("mode", "stale", "part")  # too many for a log


class RequestOutcome(enum.StrEnum):
    """What became of a request; the audit stores the value."""

    INSTALLED = "installed"
    LATE = "late"
    REFUSED = "refused"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A request and the scheduler's plan for it."""

    question: ObserveRequest
    ask: Ask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resolution:
    """How a request ended, and why."""

    outcome: RequestOutcome
    code: str = ""
    reason: str = ""
    installed: Installed | None = None


class CellEvents:
    """Speaks for one cell."""

    def __init__(self, audit: Audit, cell: str, strategy: str, commissioning_digest: str, clock: Callable[[], float]) -> None:
        self.cell = cell
        self._audit, self._strategy = audit, strategy
        self._commissioning_digest, self._clock = commissioning_digest, clock

    def limited_by(self, commissioning_digest: str) -> None:
        """Other limits are in force from now on."""
        self._commissioning_digest = commissioning_digest

    @property
    def can_begin(self) -> bool:
        """The audit can keep another episode."""
        return self._audit.can_begin

    @property
    def refusal(self) -> str:
        """Why it cannot."""
        return refusal_of(self._audit)

    def begun(self, notes: EpisodeNotes, robot: Robot, instruction: str, ready: Ready, epoch: int) -> None:
        """An episode begins."""
        self._audit.begin_episode(
            EpisodeBegun(
                t_s=self._clock(),
                episode_id=notes.episode_id,
                cell=self.cell,
                task=robot.task,
                instruction=instruction,
                seed=notes.seed,
                strategy=self._strategy,
                model_version=ready.model_version,
                contract=ready.contract,
                contract_id=ready.contract.contract_id,
                bundle_digest=ready.bundle_digest,
                session_id=ready.session_id,
                epoch=epoch,
                commissioning_digest=self._commissioning_digest,
                body=robot.embodiment,
            )
        )

    def ended(self, notes: EpisodeNotes, reason: StopReason, detail: str) -> None:
        """It is over."""
        self._audit.end_episode(
            EpisodeEnded(
                t_s=self._clock(),
                episode_id=notes.episode_id,
                stop_reason=reason.value,
                success=reason is StopReason.SUCCESS,
                steps=notes.steps,
                detail=detail,
            )
        )

    def decision(self, heard: LinkEvent, asked: Asked, session: SessionKey, came_of_it: Resolution, deadline_s: float) -> None:
        """A request was answered, refused or cancelled."""
        question, installed = asked.question, came_of_it.installed
        chunk = heard.chunk
        self._audit.decision(
            DecisionMade(
                t_s=question.taken_at_s,
                answered_s=heard.t_s + heard.stood_still_s,
                episode_id=question.episode_id,
                session_id=session.session_id if chunk is None else chunk.session_id,
                epoch=session.epoch if chunk is None else chunk.epoch,
                seq=heard.seq,
                step=question.step,
                observation=question.observation,
                outcome=came_of_it.outcome.value,
                chunk=chunk,
                code=came_of_it.code,
                reason=came_of_it.reason,
                level=question.level,
                age_ms=question.age_ms,
                deadline_ms=1e3 * deadline_s,
                previous_chunk_id=question.previous_chunk_id,
                committed_DA=question.committed_DA,
                installed_KA=None if installed is None else installed.rows_KA,
                first_row=0 if installed is None else int(installed.first),
                consumed=0 if installed is None else round(installed.consumed),
                revision=asked.ask.revision,
                steering=question.steering,
                edit=question.edit,
            )
        )

    def executed(self, action: ActionExecuted) -> None:
        """A command went to the driver."""
        self._audit.executed(action)

    def event(self, kind: str, **detail: object) -> None:
        """Anything else."""
        self._audit.event(self._clock(), kind, detail)
        if kind not in _QUIET:
            logger.info("cell.%s cell=%s %s", kind, self.cell, " ".join(f"{k}={v}" for k, v in detail.items()))


def tag_of(mode: str, command: Command | None) -> CommandTag:
    """Where a command comes from, for the driver; a hold comes from nowhere."""
    if command is None:
        return CommandTag(mode=mode)
    ref = command.ref
    return CommandTag(
        mode=mode,
        chunk_id=ref.chunk_id,
        session_id=ref.session_id,
        epoch=ref.epoch,
        seq=ref.seq,
        contract_id=ref.contract_id,
        model_version=ref.model_version,
        row=command.row,
        expires_at_s=ref.expires_at_s,
    )
