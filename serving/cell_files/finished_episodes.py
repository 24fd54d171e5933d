"""Finished episodes of a cell that its controller has not acknowledged yet: one small file each, oldest first by name."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_core.spec.files import atomic_write
from model_core.spec.fleet.documents import EpisodeRecord, canonical

FOLDER = "episodes"
MOST_KEPT = 100_000  # a cell that is cut off for months drops its oldest


class FinishedEpisodes:
    """The files below the folder of one cell's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def add(self, number: int, record: EpisodeRecord) -> None:
        """Keep a record. number: of the episode, which orders it."""
        atomic_write(self._folder / f"{number:012d}-{record.id}.json", canonical(record))

    def oldest(self, most: int) -> tuple[EpisodeRecord, ...]:
        """At most so many records, oldest first; one that cannot be read is set aside."""
        found: list[EpisodeRecord] = []
        for path in self._paths():
            if len(found) == most:
                break
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=EpisodeRecord, strict=True))
            except FileNotFoundError:
                continue
            except msgspec.DecodeError:
                path.rename(path.with_suffix(".unreadable"))
        return tuple(found)

    def __len__(self) -> int:
        return len(self._paths())

    def drop(self, acknowledged: frozenset[str]) -> None:
        """Forget what is on record elsewhere, and the oldest beyond `MOST_KEPT`."""
        paths = self._paths()
        for path in paths:
            if path.stem.partition("-")[2] in acknowledged:
                path.unlink(missing_ok=True)
        for path in paths[: max(len(paths) - MOST_KEPT, 0)]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*-*.json"))
