"""The revisions of each place in a file of their own, appended and chained: `data/revisions/<name>-<key>.jsonl`."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.artifacts.chained_lines import ChainedLines, Entry
from components.data.episodes.place import Place
from components.data.revisions.change import Change, Revision, Undone, entry_of, revision_of
from components.data.revisions.state import RevisedEpisode, check, revised
from model_core.spec.errors import SpecError

_ROOT = "revisions of episodes, format 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who states something, and with which tool."""

    name: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The episode that a revision is of. frames: how many it has; 0 if not known."""

    episode: str
    frames: int = 0


class RevisionBook:
    """The revisions of one place. Safe for several threads and processes that write at once: each change is whole, in one order."""

    def __init__(self, folder: Path, place: Place) -> None:
        word = re.sub(r"[^\w.+-]+", "-", place.name).strip("-.") or "place"
        self.path = folder / f"{word}-{place.key}.jsonl"
        self._lines = ChainedLines(self.path, _ROOT)
        self._guard = threading.RLock()
        self._read: tuple[Revision, ...] = ()
        self._revised: dict[str, RevisedEpisode] = {}

    @property
    def head(self) -> str:
        """The last hash of the chain: who knows it notices that later lines were taken out."""
        return self._lines.head

    def holds(self, head: str) -> bool:
        """Whether a hash that was noted before, or its first digits, is still of the chain."""
        return self._lines.holds(head)

    @property
    def revisions(self) -> Sequence[Revision]:
        """All, oldest first. Raises `DatasetError` where the file was changed, `SpecError` for a line of another version."""
        with self._guard:
            entries, known = self._lines.entries, len(self._read)
            if len(entries) != known:
                known = known if len(entries) > known else 0  # fewer: another file, restored from a copy
                self._read = (*self._read[:known], *(revision_of(n, entry) for n, entry in enumerate(entries[known:], start=known)))
                self._revised = revised(self._read)
            return self._read

    @property
    def revised(self) -> dict[str, RevisedEpisode]:
        """Episode id -> what counts now."""
        _ = self.revisions
        return self._revised

    def add(self, subjects: Sequence[Subject], changes: Sequence[Change], author: Author) -> list[Revision]:
        """State the same changes of several episodes, all or none. Raises `SpecError` for one that does not fit its episode."""
        if not subjects or not changes:
            raise SpecError("a revision names at least one episode and one change. Fix: choose them")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        made: list[Revision] = []

        def entries(_: Sequence[Entry]) -> list[Entry]:
            earlier = list(self.revisions)
            for subject in subjects:
                for change in changes:
                    one = Revision(
                        number=len(earlier),
                        episode=subject.episode,
                        change=change,
                        author=author.name,
                        at=at,
                        tool=author.tool,
                        frames=subject.frames,
                    )
                    check(one, earlier)
                    earlier.append(one)
                    made.append(one)
            return [entry_of(one) for one in made]

        with self._guard:  # before the guard of the lines, as readers take them: in the other order two threads wait for each other
            self._lines.append(entries)
        return made

    def undo(self, number: int, author: Author) -> Revision:
        """Let a revision count no more; an undone undo lets it count again. Raises `SpecError` where there is none, or it is undone."""
        named = next((one for one in self.revisions if one.number == number), None)
        if named is None:
            raise SpecError(f"there is no revision {number}; there are {len(self.revisions)}, from 0. Fix: list them and name one")
        return self.add([Subject(episode=named.episode, frames=named.frames)], [Undone(revision=number)], author)[0]
