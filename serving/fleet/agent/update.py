"""The steps of one update, each idempotent: what is done already is found done, by what is on the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model_core.spec.fleet.documents import Phase
from model_core.spec.fleet.release import Release, parsed_release
from serving.cell_files.permit import Permit, write_permit
from serving.cell_files.update_lock import UpdateLock
from serving.fleet.agent.agent_state import SLOTS, SlotRecord, StateFile
from serving.fleet.agent.rules import agent_version, check_agent, check_allowed, other_slot, row_of
from serving.fleet.agent.stale_lock import motors_are_off
from serving.fleet.intake.file_store import FileStore
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.policy_service import PolicyService
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.slots import Slots
from serving.fleet.intake.update_metadata import Target, UpdateMetadata

logger = logging.getLogger(__name__)

_SLICE_S = 5.0
_HELD_S, _HELD_LOOK_S = 0.45, 0.004
_MOST_DOCUMENT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a release is made of, as the metadata list it. document, signature: their bytes."""

    digest: str
    number: int
    document: bytes
    signature: bytes
    files: tuple[Target, ...]


@dataclass(slots=True, kw_only=True)
class Update:
    """The parts that take a release in. clock: seconds that only grow. patience_s: for the probes of a service."""

    metadata: UpdateMetadata
    store: FileStore
    slots: Slots
    services: Mapping[str, PolicyService]
    state: StateFile
    cell_files: Path
    files: HttpClient
    clock: Callable[[], float]
    patience_s: float
    _plan: _Plan | None = field(default=None, init=False)
    _began_s: dict[str, float] = field(default_factory=dict[str, float], init=False)

    def service(self, slot: str) -> PolicyService:
        """Of a slot."""
        return self.services[slot]

    def start(self, slot: str, release: str) -> None:
        """Start the service of a release that is in a slot, after every byte was hashed. Raises `UpdateRefused`."""
        self.slots.check_bytes(slot, release)
        if self.service(slot).is_alive():
            self.service(slot).stop()
        self.service(slot).start(release)
        self._began_s[slot] = self.clock()

    def stop_other(self, running: str) -> None:
        """End the service of the slot that does not run, and drop files that no slot is made of."""
        other = other_slot(running)
        if self.service(other).is_alive():
            self.service(other).stop()
        self._plan = None

    def give_up(self, target: str, slot: str) -> None:
        """A release that is refused here needs no service."""
        if self.service(slot).started_for() == target:
            self.service(slot).stop()

    def again(self, target: str, slot: str) -> None:
        """Bytes of a release were found wrong on this disk: fetch and verify it again."""
        record = self.state.now.slot(slot)
        if record.release == target:
            self.give_up(target, slot)
            self.state.slot(slot, SlotRecord(state="partial", release=target, number=record.number))

    def step(self, target: str, slot: str, permit: Permit | None) -> Phase:
        """One step towards `target` in `slot`; returns the phase that is next, "idle" once the swap is done.

        Raises `UpdateRefused`, or OSError, and nothing of what runs has changed then.
        """
        record = self.state.now.slot(slot)
        if record.release != target:
            record = self._take(target, slot)
        is_fallback = permit is not None and self.state.now.slot(permit.slot).state == "refused"
        check_allowed(target, record.number, self.state.now, is_fallback=is_fallback)
        if record.state in ("partial", "empty", "refused"):
            return self._download(target, slot)
        if record.state == "verified":
            return self._probe(target, slot)
        if self.service(slot).started_for() != target or self.service(slot).status().state != "ready":
            return self._probe(target, slot)  # it was probed once; after a restart it is probed again
        return self._swap(target, slot, permit)

    # --- download and verify ----------------------------------------------------------------------------------------------

    def _take(self, target: str, slot: str) -> SlotRecord:
        """Give a slot to a release, once the site is offered it and it may run here."""
        plan = self._planned(target)
        check_allowed(target, plan.number, self.state.now)
        if self.service(slot).is_alive():
            self.service(slot).stop()
        self.state.slot(slot, SlotRecord())
        self.slots.clear(slot)
        self.store.keep_only({*self.slots.used(SLOTS), *(target.sha256 for target in plan.files)})
        self.store.check_room(plan.files)
        record = SlotRecord(state="partial", release=target, number=plan.number)
        self.state.slot(slot, record)
        return record

    def _planned(self, target: str) -> _Plan:
        """What `target` is made of, by metadata that are checked now."""
        if self._plan is not None and self._plan.digest == target:
            return self._plan
        offers = self.metadata.check()
        row = row_of(offers.releases(), target, self.metadata.site)
        check_agent(row.minimum_agent, agent_version())
        document = offers.content(f"releases/{target}.json", _MOST_DOCUMENT_BYTES)
        release = parsed_release(document, f"releases/{target}.json")
        if release.digest != target:
            raise UpdateRefused("DIGEST", f"releases/{target[:16]}.json is release {release.digest[:16]}")
        files = {file.sha256: offers.target(f"files/{file.sha256}") for file in release.all_files.values()}
        self._plan = _Plan(
            digest=target,
            number=row.number,
            document=document,
            signature=offers.content(f"releases/{target}.sig", _MOST_DOCUMENT_BYTES),
            files=tuple(files.values()),
        )
        return self._plan

    def _download(self, target: str, slot: str) -> Phase:
        plan = self._planned(target)
        self.store.check_room(plan.files)
        until_s = self.clock() + _SLICE_S
        for file in plan.files:
            if not self.store.fetch(file, self.files, until_s) or (self.clock() >= until_s and file is not plan.files[-1]):
                return "download"
        release = self._verified(plan, slot)
        record = SlotRecord(state="verified", release=target, number=plan.number)
        self.state.slot(slot, record)
        logger.info("release.verified slot=%s release=%s version=%s", slot, target[:16], release.model_version)
        return "verify"

    def _verified(self, plan: _Plan, slot: str) -> Release:
        self.slots.assemble(slot, plan.document, plan.signature)
        return self.slots.verify(slot, plan.digest)

    # --- probe and swap -----------------------------------------------------------------------------------------------------

    def _probe(self, target: str, slot: str) -> Phase:
        """Let the release answer its golden probes on this computer: its service becomes ready by nothing else."""
        service = self.service(slot)
        if service.started_for() != target:
            self.start(slot, target)
            return "probe"
        began_s = self._began_s.setdefault(slot, self.clock())  # an agent before this one may have started it
        status = service.status()
        if status.state == "failed":
            code = "PROBES" if "probe" in status.reason else "START"
            raise UpdateRefused(code, f"the service of release {target[:16]} does not become ready here: {status.reason}")
        if status.state == "starting":
            if self.clock() > began_s + self.patience_s:
                raise UpdateRefused("START", f"the service of release {target[:16]} is not ready after {self.patience_s:g} s")
            return "probe"
        self._check_served(target, slot)
        record = self.state.now.slot(slot)
        self.state.slot(slot, SlotRecord(state="probed", release=target, number=record.number))
        return "ready"

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
