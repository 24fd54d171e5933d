"""The candidate that answers in shadow of the running release: taken in as any release, named to the running service, reported.

The running service starts it, in a process of the lowest priority that has no way to a robot (`serving.gateway.shadow`), and compares.
Nothing here touches the permit, the two slots, or the service that runs: what goes wrong with a candidate is told, and no more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from model_core.spec.errors import ActwrightError
from model_core.spec.fleet.candidate import Candidate, written_candidate
from model_core.spec.fleet.documents import ShadowComparison, UpdateError
from model_core.spec.fleet.rollout_plan import MEASURED, REFUSED
from serving.cell_files.boot_clock import Moment
from serving.cell_files.permit import Permit
from serving.fleet.agent.agent_state import SHADOW, StateFile, refused_too
from serving.fleet.agent.rules import shadow_of
from serving.fleet.agent.taking import Taking
from serving.fleet.intake.problems import FINAL, UpdateRefused, problem_of, wait_s
from serving.fleet.intake.shared_service import SlotService
from serving.fleet.intake.slots import Slots

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _MOST_WAIT_S = 1.0, 300.0
_MOST = 64  # tasks, and measures of each, that a report carries
_LONGEST_TASK = 200


@dataclass(slots=True, kw_only=True)
class Shadowing:
    """services: of the two slots. The candidate has none of its own. cell: whose decisions are compared, "" for all of the service."""

    taking: Taking
    slots: Slots
    services: Mapping[str, SlotService]
    state: StateFile
    clock: Callable[[], Moment]
    cell: str = ""
    is_busy: bool = field(default=False, init=False)
    _told: tuple[ShadowComparison, ...] = field(default=(), init=False)
    _try_at_s: float = field(default=0.0, init=False)
    _wait_s: float = field(default=_FIRST_WAIT_S, init=False)
    _revision: int = field(default=-1, init=False)

    def turn(self, permit: Permit | None, *, is_idle: bool) -> None:
        """One bounded step. is_idle: no update wants the disk and the network."""
        self.is_busy = False
        wanted = shadow_of(self.state.now, permit.release if permit else "")
        if self.state.now.revision != self._revision:
            self._revision, self._try_at_s = self.state.now.revision, 0.0
        try:
            self._name(permit, wanted)
            if not wanted:
                self._let_go(is_idle=is_idle)
            elif is_idle and self.clock().up_s >= self._try_at_s:
                self._take_in(wanted)
        except (ActwrightError, OSError) as error:
            self._stopped(problem_of(error), wanted)

    def comparisons(self, permit: Permit | None) -> tuple[ShadowComparison, ...]:
        """What the running service found of the candidate, for a report: as it was told last where the service does not answer now."""
        wanted = shadow_of(self.state.now, permit.release if permit else "")
        if permit is None or not wanted or not self._is_named(permit):
            self._told = ()
            return ()
        try:
            document = self.services[permit.slot].compared()
            self._check(document, wanted, permit)
            self._told = comparisons_of(document, wanted)
        except UpdateRefused as error:
            if error.code in FINAL:
                self._stopped(error, wanted)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("shadow.unreadable reason=%s", error)
        return self._told

    # --- one step -------------------------------------------------------------------------------------------------------

    def _take_in(self, wanted: str) -> None:
        record = self.state.now.slot(SHADOW)
        if record.release != wanted:
            self.taking.forget()
            self.taking.check(wanted)
            record = self.taking.begin(wanted, SHADOW)
        if record.state != "verified":
            self.is_busy = True
            self.taking.go_on(wanted, SHADOW)
        self._wait_s = _FIRST_WAIT_S
        if self.state.now.shadow_error is not None:
            self.state.change(shadow_error=None)

    def _name(self, permit: Permit | None, wanted: str) -> None:
        """Let the running service know who answers in its shadow, and no other service know of anybody."""
        record = self.state.now.slot(SHADOW)
        is_ready = bool(wanted) and record.release == wanted and record.state == "verified"
        for slot, service in self.services.items():
            if permit is not None and slot == permit.slot and is_ready:
                content = written_candidate(Candidate(release=wanted, bundle=str(self.slots.bundle(SHADOW)), cell=self.cell))
                if service.candidate() != content:
                    self.slots.check_bytes(SHADOW, wanted)  # a disk may have changed what was verified
                    service.name_candidate(content)
                    logger.info("shadow.named release=%s slot=%s", wanted[:16], slot)
            else:
                service.name_candidate("")

    def _let_go(self, *, is_idle: bool) -> None:
        """No release answers in shadow. The files stay until an update is done: it may be of the same release."""
        if self.state.now.shadow_error is not None and not self._is_refused():
            self.state.change(shadow_error=None)
        if is_idle and self.state.now.slot(SHADOW).release:
            self.taking.empty(SHADOW)
            self.taking.forget()

    def _is_refused(self) -> bool:
        """The release that is wanted in shadow was refused here for good: that stays told until the controller proposes something else."""
        desired = self.state.now.desired
        return desired is not None and bool(desired.shadow) and self.state.now.refused.get(desired.shadow) == desired.revision

    def _is_named(self, permit: Permit) -> bool:
        return bool(self.services[permit.slot].candidate())

    def _check(self, document: Mapping[str, Any], wanted: str, permit: Permit) -> None:
        """Raises `UpdateRefused` where the running service does not compare the candidate, and will not."""
        state = str(document.get("state", "none"))
        if state == "none":
            where = f"the service on port {self.services[permit.slot].port}"
            raise UpdateRefused("START", f"{where} compares no candidate. Fix: add --candidate {{candidate}} to its command")
        if state.startswith("failed") and document.get("release") in (wanted, ""):
            code = "PROBES" if "probe" in state else "START"
            raise UpdateRefused(code, f"release {wanted[:16]} does not answer in shadow here: {state}")

    def _stopped(self, error: UpdateRefused, wanted: str) -> None:
        """The candidate is not compared: told, and tried again later or, where that is of no use, when the controller proposes again."""
        now = self.clock()
        self._try_at_s, self._wait_s = now.up_s + wait_s(error, self._wait_s), min(2 * self._wait_s, _MOST_WAIT_S)
        before = self.state.now.shadow_error
        if before is None or (before.code, before.release) != (error.code, wanted):
            logger.warning("shadow.stopped code=%s release=%s reason=%s", error.code, wanted[:16], error)
        told = UpdateError(code=error.code, message=str(error)[:2000], release=wanted, since_at_s=now.wall_s)
        try:
            if before is None or replace(before, since_at_s=0.0) != replace(told, since_at_s=0.0):
                self.state.change(shadow_error=told)
            if error.code in FINAL:
                self.state.change(refused=refused_too(self.state.now, wanted))
            elif error.code == "DIGEST":
                self.taking.again(wanted, SHADOW)
        except OSError as unwritten:
            logger.warning("state.unwritten what=shadow reason=%s", unwritten)


def comparisons_of(document: Mapping[str, Any], release: str) -> tuple[ShadowComparison, ...]:
    """The tasks of a service's document about its shadow; none where it is about another release.

    Raises KeyError, TypeError, ValueError or AttributeError for a document of another form.
    """
    if document.get("release") != release:
        return ()
    tasks = list(document["tasks"].items())[:_MOST]
    return tuple(_comparison(release, task, found) for task, found in tasks)


def _comparison(release: str, task: str, found: Mapping[str, Any]) -> ShadowComparison:
    means = {name: float(measure["mean"]) for name, measure in found["measures"].items()}
    asked = int(found["asked"])
    if asked:
        means[REFUSED] = int(found["refused"]["count"]) / asked
    kept = sorted(means, key=lambda name: (name not in MEASURED, name))[:_MOST]
    refused = int(found["refused"]["count"]) - int(found["both_refused"])  # what the running release refuses too is no fault of the other
    return ShadowComparison(
        release=release,
        task=task[:_LONGEST_TASK],
        count=int(found["compared"]),
        asked=asked - int(found["live_refused"]),
        refused=refused,
        distances={name: means[name] for name in kept},
    )
