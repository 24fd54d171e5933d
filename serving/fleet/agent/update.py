"""The steps of one update, each idempotent: what is done already is found done, by what is on the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model_core.spec.fleet.documents import Phase
from serving.cell_files.permit import Permit, write_permit
from serving.cell_files.update_lock import UpdateLock
from serving.fleet.agent.agent_state import SlotRecord, StateFile
from serving.fleet.agent.rules import check_allowed, other_slot, release_before, slot_for
from serving.fleet.agent.stale_lock import motors_are_off
from serving.fleet.agent.taking import Taking
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.shared_service import SlotService
from serving.fleet.intake.slots import Slots

logger = logging.getLogger(__name__)

_HELD_S, _HELD_LOOK_S = 0.45, 0.004
_MOST_STARTS = 4  # of a service whose process ends before it is ready, before its release is refused


@dataclass(slots=True, kw_only=True)
class Update:
    """The parts of an update. clock: seconds that only grow. patience_s: for the probes of a service."""

    taking: Taking
    slots: Slots
    services: Mapping[str, SlotService]
    state: StateFile
    cell_files: Path
    clock: Callable[[], float]
    patience_s: float
    _began_s: dict[str, float] = field(default_factory=dict[str, float], init=False)
    _starts: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]], init=False)  # slot -> release, count

    def service(self, slot: str) -> SlotService:
        """Of a slot."""
        return self.services[slot]

    def start(self, slot: str, release: str) -> None:
        """Start the service of a release that is in a slot, after every byte was hashed. Raises `UpdateRefused`."""
        self.service(slot).check_room(release)  # before gigabytes are hashed
        self.slots.check_bytes(slot, release)
        self.service(slot).start(release)
        self._began_s[slot] = self.clock()

    def stop_other(self, running: str) -> None:
        """End the service of the slot that does not run."""
        other = other_slot(running)
        if self.service(other).is_alive():
            self.service(other).stop()
        self.taking.forget()

    def give_up(self, target: str, slot: str) -> None:
        """A release that is refused here needs no service."""
        if self.service(slot).started_for() == target:
            self.service(slot).stop()

    def again(self, target: str, slot: str) -> None:
        """Bytes of a release were found wrong on this disk: fetch and verify it again."""
        if self.state.now.slot(slot).release == target:
            self.give_up(target, slot)
        self.taking.again(target, slot)

    def first_to(self, target: str, running: str) -> str:
        """`target`, or the release that the cell has to run before it, so that there is a policy service for `target`."""
        service = self.service(slot_for(self.state.now, target, running))
        try:
            service.check_room(target)
        except UpdateRefused:
            return release_before(self.state.now, running, service.shared()) or target
        return target

    def step(self, target: str, slot: str, permit: Permit | None) -> Phase:
        """One step towards `target` in `slot`; returns the phase that is next, "idle" once the swap is done.

        Raises `UpdateRefused`, or OSError, and nothing of what runs has changed then.
        """
        record = self.state.now.slot(slot)
        if record.release != target:
            self.taking.check(target)
            self.service(slot).check_room(target)  # until there is some, the slot keeps what the cell may have to go back to
            if self.service(slot).is_alive():
                self.service(slot).stop()
            record = self.taking.begin(target, slot)
        is_fallback = permit is not None and self.state.now.slot(permit.slot).state == "refused"
        check_allowed(target, record.number, self.state.now, is_fallback=is_fallback)
        if record.state in ("partial", "empty", "refused"):
            return self.taking.go_on(target, slot)
        if record.state == "verified":
            return self._probe(target, slot)
        if self.service(slot).started_for() != target or self.service(slot).status().state != "ready":
            return self._probe(target, slot)  # it was probed once; after a restart it is probed again
        return self._swap(target, slot, permit)

    # --- probe and swap -----------------------------------------------------------------------------------------------------

    def _probe(self, target: str, slot: str) -> Phase:
        """Let the release answer its golden probes on this computer: its service becomes ready by nothing else."""
        service = self.service(slot)
        if service.started_for() != target:
            self._start_to_probe(target, slot)
            return "probe"
        began_s = self._began_s.setdefault(slot, self.clock())  # an agent before this one may have started it
        status = service.status()
        if status.state == "failed" and service.started_for() != target:
            return "probe"  # its process ended since: the next step starts it again
        if status.state == "failed":
            code = "PROBES" if "probe" in status.reason else "START"
            raise UpdateRefused(code, f"the service of release {target[:16]} does not become ready here: {status.reason}")
        if status.state == "starting":
            if self.clock() > began_s + self.patience_s:
                raise UpdateRefused("START", f"the service of release {target[:16]} is not ready after {self.patience_s:g} s")
            return "probe"
        self._check_served(target, slot)
        self._starts.pop(slot, None)
        record = self.state.now.slot(slot)
        self.state.slot(slot, SlotRecord(state="probed", release=target, number=record.number))
        return "ready"

    def _start_to_probe(self, target: str, slot: str) -> None:
        """Start its service; again where the process ended before it was ready, for that may have been a kill or a lack of memory.

        Raises `UpdateRefused` START where it ended each time.
        """
        release, count = self._starts.get(slot, ("", 0))
        count = count if release == target else 0
        if count >= _MOST_STARTS:
            self._starts.pop(slot)
            told = f"{count} times the process of its service ended before it was ready: {self.service(slot).last_line()}"
            raise UpdateRefused("START", f"release {target[:16]}: {told}")
        self.start(slot, target)
        self._starts[slot] = (target, count + 1)

    def _check_served(self, target: str, slot: str) -> None:
        manifest = self.slots.manifest(slot)
        told = self.service(slot).served()
        if told != (manifest.digest, manifest.contract_id):
            where = f"the service on port {self.service(slot).port}"
            raise UpdateRefused("START", f"{where} serves bundle {told[0][:16]}, expected {manifest.digest[:16]} of release {target[:16]}")

    def _swap(self, target: str, slot: str, permit: Permit | None) -> Phase:
        """Change the permit, while no episode runs; as long as one does, nothing happens here.

        The time between two episodes may be a few milliseconds, so the lock is looked for often, for as long as a turn may take.
        """
        lock = UpdateLock(self.cell_files)
        with lock.taken(_HELD_S, lambda _: time.sleep(_HELD_LOOK_S)) as is_mine:
            if not is_mine:
                return "ready"
            left = lock.left_behind()
            if left is not None:
                if not motors_are_off(left):
                    return "ready"
                lock.clear()
                logger.warning("lock.recovered cell=%s pid=%d: its watchdog has stopped the drive", left.cell, left.pid)
            release = self.slots.release(slot)
            manifest = self.slots.manifest(slot)
            new = Permit(
                url=self.service(slot).session_url,
                slot=slot,
                release=target,
                number=self.state.now.slot(slot).number,
                bundle_digest=manifest.digest,
                contract_id=manifest.contract_id,
                offline=release.offline,
                override=release.override,
            )
            write_permit(self.cell_files, new)
        logger.info("swapped release=%s number=%d slot=%s", target[:16], new.number, slot)
        return "idle"
