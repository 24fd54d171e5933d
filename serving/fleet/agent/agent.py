"""The agent of one cell, turn by turn. Each turn looks at what is on the disk, does one bounded step, and may be killed anywhere.

    keep what runs alive -> report and hear the proposal -> one step of the update: download, verify, probe, ready, swap
                                                         -> or, where there is none, of the candidate that answers in shadow

The permit of the cell says which slot runs; it alone is the truth, and changes only under the update lock. Every other step writes
into the slot that does not run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from model_core.spec.errors import ActwrightError, NotReady
from model_core.spec.fleet.documents import Phase, UpdateError
from serving.cell_files.boot_clock import Moment
from serving.cell_files.finished_episodes import FinishedEpisodes
from serving.cell_files.permit import Contact, Permit, read_permit, write_contact
from serving.cell_files.update_lock import UpdateLock
from serving.fleet.agent.agent_state import StateFile, refused_too
from serving.fleet.agent.controller_link import ControllerLink
from serving.fleet.agent.report import Now, Reporter, report_of
from serving.fleet.agent.rules import fallback_of, slot_for, target_of
from serving.fleet.agent.settings import AgentSettings
from serving.fleet.agent.shadowing import Shadowing
from serving.fleet.agent.update import Update
from serving.fleet.intake.problems import FINAL, UpdateRefused, problem_of, wait_s

logger = logging.getLogger(__name__)

_MOST_WAIT_S = 300.0
_RESTART_S = 5.0
_MOST_FAILURES = 3  # of the running service in a row, before the other slot takes over
_POLL_S = 0.1
_HELD_POLL_S = 0.05  # the step itself has looked for the lock meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """moment: now. sleep: wait so many seconds."""

    moment: Callable[[], Moment]
    sleep: Callable[[float], None]

    def up_s(self) -> float:
        """Seconds since the computer started."""
        return self.moment().up_s


class Agent:
    """Call `turn` again and again, waiting as long as it says."""

    def __init__(
        self, settings: AgentSettings, state: StateFile, link: ControllerLink, update: Update, clock: Clock, shadowing: Shadowing
    ) -> None:
        self.settings, self.state, self.update, self.shadowing = settings, state, update, shadowing
        self._link, self._clock, self._reporter = link, clock, Reporter(settings=settings, state=state, update=update)
        self._lock, self._episodes = UpdateLock(settings.cell_files), FinishedEpisodes(settings.cell_files)
        self._report_at_s = self._try_at_s = self._restart_at_s = 0.0
        self._every_s, self._wait_s, self._failures = settings.report_every_s, 1.0, 0
        self.phase: Phase = "idle"
        self.clock_offset_s: float | None = None

    def turn(self) -> float:
        """One turn; returns how long to wait before the next, in seconds."""
        permit = self._permit()
        if permit is not None:
            self._keep_alive(permit)
        if self._clock.up_s() >= self._report_at_s:
            self._report(permit)
        target = target_of(self.state.now, permit.slot if permit else "")
        if not target:
            self._idle(permit)
        elif self._clock.up_s() >= self._try_at_s:
            self._advance(target, permit)
        self.shadowing.turn(permit, is_idle=not target)
        return self._next_in()

    def _permit(self) -> Permit | None:
        try:
            permit = read_permit(self.settings.cell_files)
        except NotReady as error:
            logger.warning("permit.unreadable reason=%s", error)
            return None
        if permit is not None and permit.number > self.state.now.highest:
            self._try("permit", lambda: self.state.change(highest=permit.number))
        return permit

    # --- what runs ------------------------------------------------------------------------------------------------------

    def _keep_alive(self, permit: Permit) -> None:
        """Start the permitted release again where its service ended or failed, after every byte was hashed again."""
        if self._clock.up_s() < self._restart_at_s or self.state.now.slot(permit.slot).state == "refused":
            return
        service = self.update.service(permit.slot)
        if service.started_for() == permit.release:
            state = service.status().state
            self._failures = 0 if state == "ready" else self._failures
            if state != "failed":
                return
        self._restart_at_s = self._clock.up_s() + _RESTART_S
        if self._failures >= _MOST_FAILURES and fallback_of(self.state.now, permit.slot):
            self._broken(UpdateRefused("START", f"its service failed {self._failures} times: {service.last_line()}"), permit)
            return
        self._failures += 1
        try:
            self.update.start(permit.slot, permit.release)
            logger.info("service.started slot=%s release=%s", permit.slot, permit.release[:16])
        except UpdateRefused as error:
            self._broken(error, permit)

    def _broken(self, error: UpdateRefused, permit: Permit) -> None:
        """The running release does not work here any more: the other slot takes over where it can, else this one is tried again."""
        self._note(error, permit.release)
        if error.code == "DIGEST" or fallback_of(self.state.now, permit.slot):
            self._refuse(permit.release, permit.slot)
            self._failures = 0

    # --- the controller -------------------------------------------------------------------------------------------------

    def _report(self, permit: Permit | None) -> None:
        self._report_at_s = self._clock.up_s() + self._every_s
        asked = self._clock.moment()
        try:
            shadow = self.shadowing.comparisons(permit)
            report = report_of(self._reporter, permit, Now(moment=asked, phase=self.phase, clock_offset_s=self.clock_offset_s), shadow)
            desired = self._link.ask(report, self.state.now.revision)
            heard = self._clock.moment()
            self.clock_offset_s = desired.sent_at_s - (asked.wall_s + heard.wall_s) / 2
            if desired.revision != self.state.now.revision:
                logger.info("proposal revision=%d release=%s stage=%s", desired.revision, desired.release[:16], desired.stage)
                self._try_at_s = 0.0
            write_contact(self.settings.cell_files, Contact(at=heard, begun=self._lock.begun, blocked=desired.blocked))
            self.state.change(desired=replace(desired, sent_at_s=0.0, acknowledged_sequence=0, acknowledged=()))  # written where it differs
            self._episodes.drop(frozenset(desired.acknowledged))
            self._every_s = min(desired.report_every_s, 3600.0)
            if report.episodes and report.waiting and desired.acknowledged:
                self._report_at_s = self._clock.up_s()  # there is more to tell
        except (UpdateRefused, OSError, NotReady) as error:
            logger.warning("report.failed reason=%s", error)
            self._every_s = min(max(self._every_s, self.settings.report_every_s), 60.0)

    # --- the update -----------------------------------------------------------------------------------------------------

    def _advance(self, target: str, permit: Permit | None) -> None:
        running = permit.slot if permit else ""
        target = self.update.first_to(target, running)
        slot = slot_for(self.state.now, target, running)
        try:
            before, self.phase = self.phase, self.update.step(target, slot, permit)
            self._wait_s = 1.0
            if self.phase != before and self.state.now.error is not None:
                self._try("error", lambda: self.state.change(error=None))  # it goes on
            if self.phase == "idle":
                self._idle(read_permit(self.settings.cell_files))
        except (ActwrightError, OSError) as error:
            refused = problem_of(error)
            self._note(refused, target)
            if refused.code in FINAL:
                self.update.give_up(target, slot)
                self._refuse(target, slot)
            elif refused.code == "DIGEST" and slot != running:
                self._try("partial", lambda: self.update.again(target, slot))
            self._try_at_s = self._clock.up_s() + wait_s(refused, self._wait_s)
            self._wait_s = min(2 * self._wait_s, _MOST_WAIT_S)

    def _idle(self, permit: Permit | None) -> None:
        """Nothing is to be changed: the service of the other slot is not needed, and an error of an earlier target is history."""
        self.phase = "idle"
        desired = self.state.now.desired
        is_reached = permit is not None and desired is not None and desired.release in ("", permit.release)
        if is_reached and self.state.now.error is not None:
            self._try("error", lambda: self.state.change(error=None))
        if permit is not None:
            self._try("other", lambda: self.update.stop_other(permit.slot))

    def _refuse(self, release: str, slot: str) -> None:
        """Not again by this proposal; and where a slot holds it, that slot is not to be used."""
        self._try("refused", lambda: self.state.change(refused=refused_too(self.state.now, release)))
        record = self.state.now.slot(slot)
        if record.release == release:
            self._try("slot", lambda: self.state.slot(slot, replace(record, state="refused")))

    def _note(self, error: UpdateRefused, release: str) -> None:
        before = self.state.now.error
        if before is not None and (before.code, before.release) == (error.code, release):
            return
        logger.warning("update.stopped code=%s release=%s reason=%s", error.code, release[:16], error)
        told = UpdateError(code=error.code, message=str(error)[:2000], release=release, since_at_s=self._clock.moment().wall_s)
        self._try("note", lambda: self.state.change(error=told))

    def _try(self, what: str, change: Callable[[], None]) -> None:
        """A write that may fail on a full disk without anything depending on it; memory has the new value."""
        try:
            change()
        except (OSError, UpdateRefused) as error:
            logger.warning("state.unwritten what=%s reason=%s", what, error)

    def _next_in(self) -> float:
        until_report_s = max(self._report_at_s - self._clock.up_s(), 0.0)
        if self.phase in ("download", "verify", "swap") and self._clock.up_s() >= self._try_at_s:
            return 0.0
        if self.shadowing.is_busy:
            return 0.0
        polls = {"probe": _POLL_S, "ready": _HELD_POLL_S}
        return min(until_report_s, polls.get(self.phase, 1.0))
