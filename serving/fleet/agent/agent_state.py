"""What an agent remembers over restarts (agent.json): its slots, the last proposal, and numbers that only grow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from model_core.spec.files import atomic_write
from model_core.spec.fleet.documents import Count, DesiredState, Digest, Document, SlotState, UpdateError, canonical

SLOTS = ("a", "b")
SHADOW = "s"  # a third place, for a release that answers in shadow: neither what runs nor what it may come back to makes room for it
PLACES = (*SLOTS, SHADOW)
_BLOCK = 1000  # numbers of reports are set aside in blocks, so that a report costs no write


class SlotRecord(Document, frozen=True, kw_only=True):
    """One slot. state: "refused" where its bytes, or its service, were found wrong here. number: of its release in the site's list."""

    state: SlotState = "empty"
    release: Digest = ""
    number: Count = 0


class AgentState(Document, frozen=True, kw_only=True):
    """sequence: no report has had a higher number. highest: number of the newest release that ever ran here. slots: of the two slots, and
    of the place for a release in shadow. desired: the last proposal that verified. refused: release -> revision of the proposal at which
    it was refused for good. error: why the update does not go on; shadow_error: why the candidate is not compared.
    """

    sequence: Count = 0
    highest: Count = 0
    slots: Annotated[dict[str, SlotRecord], Meta(max_length=3)] = msgspec.field(default_factory=dict[str, SlotRecord])
    desired: DesiredState | None = None
    refused: Annotated[dict[Digest, Count], Meta(max_length=8)] = msgspec.field(default_factory=dict[str, int])
    error: UpdateError | None = None
    shadow_error: UpdateError | None = None

    @property
    def revision(self) -> int:
        """Of the last proposal."""
        return self.desired.revision if self.desired else 0

    def slot(self, name: str) -> SlotRecord:
        """What is in a slot."""
        return self.slots.get(name, SlotRecord())

    def holding(self, release: str) -> str:
        """The slot that holds a release; "" for none."""
        return next((name for name in SLOTS if release and self.slot(name).release == release), "")


def refused_too(state: AgentState, release: str) -> dict[str, int]:
    """What is refused for good, and this release by the present proposal; the oldest refusals are forgotten."""
    return dict(list(state.refused.items())[-7:]) | {release: state.revision}


class StateFile:
    """The state on the disk, and in memory what is newer. A file that cannot be read is set aside: slots are then filled again, and what
    a cell is permitted stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.now = self._read()
        self._sequence = self.now.sequence

    def next_sequence(self) -> int:
        """A number for a report that none before had, over restarts too."""
        self._sequence += 1
        if self._sequence > self.now.sequence:
            self.change(sequence=self._sequence + _BLOCK)
        return self._sequence

    def change(self, **fields: object) -> None:
        """Other values from now on, on the disk before this returns. Raises OSError where the disk does not take them; memory has them."""
        changed = msgspec.structs.replace(self.now, **fields)
        if changed != self.now:
            self.now = changed
            atomic_write(self._path, canonical(self.now))

    def slot(self, name: str, record: SlotRecord) -> None:
        """Another record of a slot."""
        self.change(slots={**self.now.slots, name: record})

    def _read(self) -> AgentState:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=AgentState, strict=True)
        except FileNotFoundError:
            return AgentState()
        except msgspec.DecodeError:
            self._path.replace(self._path.with_suffix(".unreadable"))
            return AgentState()
