"""The cell's side of the talk with the service: when it asks, and what becomes of everything that comes back.

    chunk -> pace -> contract -> schedule -> envelope, whole -> rows to execute
    refused, late, down, CONTROL HOLD, RESET, DRAIN, KILL -> rows dropped or kept, the robot held, released or stopped

The rows to execute are the `scheduler`'s; the control step takes them from it one by one.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from model_core.spec.errors import NotReady
from model_core.spec.execution.chunking import targets_KA
from model_core.spec.execution.guard import guard_rows
from model_core.spec.protocol.wire import Ready
from model_core.spec.types import RefusalCode
from serving.workcell.control.cell_context import CellContext
from serving.workcell.control.events import Asked, RequestOutcome, Resolution
from serving.workcell.control.requests import RequestTracker, Sighting
from serving.workcell.link.link_types import LinkEvent, session_key
from serving.workcell.motion.chunk_curve import ChunkRef, SessionKey
from serving.workcell.motion.scheduler import Scheduler, ScheduleSettings

logger = logging.getLogger(__name__)

_LATE_CODES = {RefusalCode.DEADLINE.value, RefusalCode.OVERLOAD.value}  # the current chunk is still valid, up to its end


class Exchange:
    """One cell's requests and answers. Not thread-safe, never waits.

    ready: the session's READY. Raises NotReady while the link has never been up: without a contract nothing can be scheduled.
    """

    def __init__(self, context: CellContext) -> None:
        link = context.link
        if link.ready is None:
            raise NotReady("the link has to be up once before a cell is made: without a contract nothing can be scheduled")
        self.ready: Ready = link.ready
        self._body, self._link, self._stops, self._journal = context.body, link, context.stops, context.journal
        self._tell, self._clock = context.tell, context.clock
        self._strategy, self._execute_horizon = context.settings.strategy, context.settings.execute_horizon
        self.scheduler = Scheduler(self._body.spec, ScheduleSettings.of(self.ready.contract, self._strategy, self._execute_horizon))
        self._asker = RequestTracker(context, session_key(self.ready, link.epoch))
        self._down_since_s: float | None = None
        self._draining_session = self._holding_session = ""  # who said so; another session has not

    @property
    def session(self) -> SessionKey:
        """What a row has to belong to."""
        return self._asker.session

    @property
    def open_seqs(self) -> list[int]:
        """Numbers of the requests that are on their way."""
        return self._asker.open_seqs

    @property
    def is_up(self) -> bool:
        """The service can be asked."""
        return self._link.is_up

    def silence_s(self, now: float) -> float:
        """Since the service was last heard."""
        return now - self._link.last_heard_s

    def is_draining(self, ready: Ready) -> bool:
        """The service of this session takes no new episodes."""
        return ready.session_id == self._draining_session

    def down_s(self, now: float) -> float | None:
        """For how long the link has been known to be down; None while it is up."""
        return None if self._down_since_s is None else now - self._down_since_s

    def begin(self, ready: Ready, now: float) -> None:
        """Work under this contract from now on; between episodes the service may have changed its model."""
        self.ready, self._asker.session = ready, session_key(ready, self._link.epoch)
        settings = ScheduleSettings.of(ready.contract, self._strategy, self._execute_horizon)
        if settings != self.scheduler.settings:
            self.scheduler = Scheduler(self._body.spec, settings)
        self.forget("a new episode")
        self._release(ready)
        self._asker.begin(now)
        self._down_since_s = None
        if self._strategy == "prefix" and settings.max_prefix_rows == 0:
            self._tell.event("prefix", text="the model promises no committed rows: its answers are joined by bending")

    def forget(self, why: str) -> None:
        """No row and no request is kept: the gripper's too, and whatever is still to come."""
        self.scheduler.flush()
        self._asker.forget(why)

    def renew(self, reason: str) -> None:
        """No row and no request is kept, and what comes next is of a new epoch."""
        self.forget(reason)
        self._link.renew(reason)

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask_if_due(self, now: float) -> bool:
        """Look and ask, when it is time and what is seen is new enough to act on. True: a request was asked."""
        if self._stops.is_stopped or not self._asker.is_due(now, self.scheduler):
            return False
        episode = self._journal.running
        taken_at_s = self._clock()
        observation = self._body.look()
        age_ms, too_old = self._asker.ages_ms(self._body.limits)
        if too_old:
            episode.code, episode.detail = RefusalCode.STALE_OBS.value, f"STALE_OBS: {too_old}"
            self._tell.event("stale", reason=too_old)
            return False
        sighting = Sighting(observation=observation, taken_at_s=taken_at_s, age_ms=age_ms)
        self._asker.ask(self.scheduler, episode, sighting, now)
        if not self._link.world_waits:  # else the link has waited for it while the world stood still
            self._asker.wait_until(now + self.ready.min_interval_ms / 1e3)
        return True

    def drop_expired(self, now: float) -> None:
        """Rows that are too old, or that were left over by a link that is down for too long, are never executed."""
        ref = self.scheduler.current
        if ref is None:
            return
        down_s = self.down_s(now) or 0.0
        # From here to the driver time passes, and the last row of a chunk is due at the very moment at which it expires.
        if now + 0.25 / self._body.spec.control_hz > ref.expires_at_s:
            self.scheduler.drop_rows()
            self._tell.event("expired", chunk_id=ref.chunk_id)
        elif 1e3 * down_s > self._body.limits.hold_within_ms:
            self.scheduler.drop_rows()
            self._tell.event("cut", chunk_id=ref.chunk_id, down_s=down_s)

    # --- answers ------------------------------------------------------------------------------------------------------

    def listen(self, now: float) -> None:
        """Everything that came since the last call."""
        for heard in self._link.poll():
            match heard.kind:
                case "chunk":
                    self._take(heard)
                case "refused" | "late":
                    self._refused(heard)
                case "up":
                    self._came_up(heard)
                case "down":
                    self._went_down(heard)
                case "denied" | "lease":
                    self._tell.event(heard.kind, code=heard.code, reason=heard.reason)
                    self._journal.refused(heard.code or "LEASE", heard.reason, counts=not heard.is_retryable)
                    self.scheduler.drop_rows()
                case "told":
                    self._obey(heard, now)
                case "part" if heard.part is not None:  # nothing is done with it: the audit knows how far an answer came
                    self._tell.event("part", seq=heard.seq, field=heard.part.field)
                case _:
                    pass

    def _take(self, heard: LinkEvent) -> None:
        chunk, asked = heard.chunk, self._asker.take(heard.seq)
        if chunk is None or asked is None:
            return
        self._journal.measured(chunk.novelty)
        body, hz = self._body.spec, self.ready.contract.embodiment.control_hz
        if abs(chunk.control_hz - hz) > 1e-6 * hz:  # rows of another pace are another motion
            self._refuse_answer(
                heard, asked, RefusalCode.CONTRACT, "contract", f"rows at {chunk.control_hz:g} Hz, the contract says {hz:g}"
            )
            return
        rows = guard_rows(chunk.actions_KA, body, self.ready.contract.chunk_length)
        if rows.refusal is not None:
            self._refuse_answer(heard, asked, rows.refusal.code, "contract", rows.refusal.reason)
            return
        offsets_KA, verdict = self._body.envelope.check_offsets(rows.rows_KA, chunk.committed)
        if verdict.is_refused:
            self._refuse_answer(heard, asked, RefusalCode.UNSAFE, verdict.stage, verdict.reason)
            return
        ref = ChunkRef.of(chunk, heard.expires_at_s, asked.ask.revision)
        targets = targets_KA(offsets_KA, body, asked.question.observation.proprio_P)
        installed = self.scheduler.install(
            heard.seq, targets, ref, raw_KA=chunk.actions_KA, committed=chunk.committed, is_warm_up=heard.is_first
        )
        if installed.reason:
            self._asker.report(heard, asked, Resolution(outcome=RequestOutcome.DROPPED, reason=installed.reason, installed=installed))
            return
        self._body.measure()
        assert installed.rows_KA is not None
        verdict = self._body.envelope.check_rows(installed.rows_KA, self._body.state_P, int(installed.first))
        if verdict.is_refused:
            self._refuse_answer(heard, asked, RefusalCode.UNSAFE, verdict.stage, verdict.reason)
            return
        self._journal.answered()
        self._asker.report(heard, asked, Resolution(outcome=RequestOutcome.INSTALLED, installed=installed))

    def _refuse_answer(self, heard: LinkEvent, asked: Asked, code: RefusalCode, stage: str, reason: str) -> None:
        text = f"{stage}: {reason}" if code is RefusalCode.UNSAFE else reason
        self.scheduler.lost(heard.seq)
        self._asker.report(heard, asked, Resolution(outcome=RequestOutcome.REFUSED, code=code.value, reason=text))
        self._journal.refused(code.value, text, counts=True)
        self.refuse_chunk(heard.t_s, stage, reason)

    def refuse_chunk(self, now: float, stage: str, reason: str) -> None:
        """The envelope refuses the rows that are being executed."""
        self.scheduler.drop_rows()
        self._stops.machine.rejected(now, f"{stage}: {reason}")
        self._tell.event("reject", stage=stage, reason=reason)
        logger.warning("chunk.refused cell=%s stage=%s reason=%s", self._tell.cell, stage, reason)

    def _refused(self, heard: LinkEvent) -> None:
        self.scheduler.lost(heard.seq)
        asked = self._asker.take(heard.seq)
        if asked is not None:
            outcome = RequestOutcome.LATE if heard.kind == "late" else RequestOutcome.REFUSED
            self._asker.report(heard, asked, Resolution(outcome=outcome, code=heard.code, reason=heard.reason))
            if heard.code == RefusalCode.CONTRACT.value and asked.question.committed_DA is not None:
                self.scheduler.commit_no_more()  # a model that cannot be held to rows: its answers are joined by bending
                self._tell.event("prefix", text=f"the service takes no committed rows: {heard.reason}")
        if heard.code not in _LATE_CODES:
            self.scheduler.drop_rows()  # as evaluation does: what is left of the old chunk belongs to a plan that was just refused
        self._asker.wait_until(heard.t_s + heard.value)
        self._journal.refused(heard.code, heard.reason, counts=not heard.is_retryable)

    def _came_up(self, heard: LinkEvent) -> None:
        ready = heard.ready
        assert ready is not None
        self._down_since_s = None
        self.forget("a new session")  # rows of the old epoch are not rows of this one
        self.ready, self._asker.session = ready, session_key(ready, ready.epoch)
        self._release(ready)
        self._tell.event("epoch", epoch=ready.epoch, session_id=ready.session_id, model_version=ready.model_version)

    def _went_down(self, heard: LinkEvent) -> None:
        if self._down_since_s is None:
            self._down_since_s = heard.t_s
        for seq in self._asker.open_seqs:
            asked = self._asker.take(seq)
            assert asked is not None
            self.scheduler.lost(seq)
            lost = Resolution(outcome=RequestOutcome.LATE, code="down", reason=heard.reason)
            self._asker.report(replace(heard, seq=seq), asked, lost)
        self._tell.event("lost", reason=heard.reason)
        self._journal.refused("down", heard.reason, counts=not heard.is_retryable)

    def _obey(self, heard: LinkEvent, now: float) -> None:
        self._tell.event("told", code=heard.code, reason=heard.reason)
        machine = self._stops.machine
        if heard.code == "KILL":
            self._stops.kill(now, heard.reason)
        elif heard.code == "HOLD":
            self.forget("the service says HOLD")
            self._holding_session = self._asker.session.session_id
            machine.hold(now, f"the service says HOLD: {heard.reason}")
        elif heard.code == "RESET":
            self._holding_session = self._draining_session = ""
            machine.release()
            self.scheduler.bump()
        elif heard.code == "DRAIN":
            self._draining_session = self._asker.session.session_id

    def _release(self, ready: Ready) -> None:
        """A HOLD was said in a session and ends with it: a new handshake ends it. Rows are still needed to move."""
        if self._holding_session and ready.session_id != self._holding_session:
            self._holding_session = ""
            self._stops.machine.release()
