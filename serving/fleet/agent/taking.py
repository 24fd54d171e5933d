"""Taking a release into a place: what it is made of by checked metadata, its bytes, its signature. Each step is bounded and idempotent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from model_core.spec.fleet.documents import Phase
from model_core.spec.fleet.release import parsed_release
from serving.fleet.agent.agent_state import PLACES, SHADOW, SlotRecord, StateFile
from serving.fleet.agent.rules import agent_version, check_agent, check_allowed, row_of
from serving.fleet.intake.file_store import FileStore
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.slots import Slots
from serving.fleet.intake.update_metadata import Target, UpdateMetadata

logger = logging.getLogger(__name__)

_SLICE_S = 5.0
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
class Taking:
    """Where releases come from and go to. clock: seconds that only grow."""

    metadata: UpdateMetadata
    store: FileStore
    slots: Slots
    state: StateFile
    files: HttpClient
    clock: Callable[[], float]
    _plan: _Plan | None = field(default=None, init=False)

    def check(self, target: str) -> None:
        """Raises `UpdateRefused` for a release that the site is not offered, or that may not run here."""
        check_allowed(target, self._planned(target).number, self.state.now)

    def begin(self, target: str, place: str) -> SlotRecord:
        """Give a place to a release that was checked. Nothing may be served from the place."""
        plan = self._planned(target)
        self.state.slot(place, SlotRecord())
        self.slots.clear(place)
        self._make_room(plan, place)
        record = SlotRecord(state="partial", release=target, number=plan.number)
        self.state.slot(place, record)
        return record

    def go_on(self, target: str, place: str) -> Phase:
        """Download for as long as a turn may take, then verify; "verify" once every byte and the signature were found right.

        Raises `UpdateRefused`, or OSError; what came stays.
        """
        plan = self._planned(target)
        self.store.check_room(plan.files)
        until_s = self.clock() + _SLICE_S
        for file in plan.files:
            if not self.store.fetch(file, self.files, until_s) or (self.clock() >= until_s and file is not plan.files[-1]):
                return "download"
        self.slots.assemble(place, plan.document, plan.signature)
        release = self.slots.verify(place, plan.digest)
        self.state.slot(place, SlotRecord(state="verified", release=target, number=plan.number))
        logger.info("release.verified place=%s release=%s version=%s", place, target[:16], release.model_version)
        return "verify"

    def again(self, target: str, place: str) -> None:
        """Bytes of a release were found wrong on this disk: fetch and verify it again."""
        record = self.state.now.slot(place)
        if record.release == target:
            self.state.slot(place, SlotRecord(state="partial", release=target, number=record.number))

    def empty(self, place: str) -> None:
        """Let go of what is in a place, and of the files that no other place is made of or waits for."""
        self.state.slot(place, SlotRecord())
        self.slots.clear(place)
        if all(self.state.now.slot(other).state != "partial" for other in PLACES):
            self._keep()

    def forget(self) -> None:
        """Look at the metadata again before the next release is taken."""
        self._plan = None

    def _make_room(self, plan: _Plan, place: str) -> None:
        """Drop files that no place is made of; where the disk is too full for an update, a candidate in shadow has to go."""
        self._keep(plan.files)
        try:
            self.store.check_room(plan.files)
        except UpdateRefused as error:
            if error.code != "NO_SPACE" or place == SHADOW or not self.state.now.slot(SHADOW).release:
                raise
            logger.warning("shadow.dropped release=%s: an update needs its room", self.state.now.slot(SHADOW).release[:16])
            self.state.slot(SHADOW, SlotRecord())
            self.slots.clear(SHADOW)
            self._keep(plan.files)
            self.store.check_room(plan.files)

    def _keep(self, files: Iterable[Target] = ()) -> None:
        self.store.keep_only({*self.slots.used(PLACES), *(target.sha256 for target in files)})

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
