"""Bring the table of episodes up to date: only what has changed since is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.audit_files import audit_row
from components.config.records import Progress
from components.data.editing.catalogue import Catalogue
from components.data.episodes.index import EpisodeIndex
from components.data.episodes.place import Place, file_state, state_of
from components.data.episodes.row import EpisodeRow, row_of_audit, row_of_recording, rows_of_set
from components.data.lerobot.reader import DatasetReader
from components.data.recordings import read_head
from components.data.sources.interface import EpisodeSource
from components.data.sources.open import is_raw, open_raw
from model_core.spec.errors import ActwrightError

_BATCH = 200  # files that are read before they are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What was done of one place. read: sets or files; a problem is told and kept, and ends nothing."""

    place: Place
    read: int
    problem: str = ""


def refresh(index: EpisodeIndex, places: Sequence[Place], edits: Catalogue, progress: Progress) -> list[Refreshed]:
    """Read what is new or has changed of these places. edits: by which edited sets are opened."""
    done: list[Refreshed] = []
    for number, place in enumerate(places):
        progress.update(number, len(places), place.name)
        done.append(_files(index, place, progress) if place.holds_files else _set(index, place, edits))
    progress.update(len(places), len(places), "")
    return done


def open_place(place: Place, edits: Catalogue) -> EpisodeSource:
    """The set at a place. Raises `DatasetError` for one that cannot be read; the caller closes it."""
    if place.kind == "edit":
        return edits.open(str(place.path)).source
    inner = place.path / "dataset"
    return open_raw(inner if is_raw(inner) else place.path)


def _set(index: EpisodeIndex, place: Place, edits: Catalogue) -> Refreshed:
    try:
        state = state_of(place)
        if index.known_state(place) == state:
            return Refreshed(place=place, read=0)
        source = open_place(place, edits)
        try:
            index.put_set(place, state, rows_of_set(source))
            if isinstance(source, DatasetReader):
                index.put_findings(place, _findings(source.root))
        finally:
            source.close()
    except (ActwrightError, OSError) as error:
        index.put_set(place, "", (), str(error))
        return Refreshed(place=place, read=0, problem=str(error))
    return Refreshed(place=place, read=1)


def _files(index: EpisodeIndex, place: Place, progress: Progress) -> Refreshed:
    known = index.known_files(place)
    there = {path.relative_to(place.path).as_posix(): path for path in place.files()}
    states = {name: file_state(path) for name, path in there.items()}
    new = [name for name, state in states.items() if known.get(name) != state]
    gone = [name for name in known if name not in there]
    for first in range(0, len(new), _BATCH):
        progress.update(first, len(new), place.name)
        batch = new[first : first + _BATCH]
        index.put_files(place, {name: (states[name], *_read(place, there[name], name)) for name in batch}, ())
    if gone or not new:
        index.put_files(place, {}, gone)
    return Refreshed(place=place, read=len(new))


def _read(place: Place, path: Path, name: str) -> tuple[EpisodeRow | None, str]:
    """The row of one file, or why there is none."""
    try:
        if place.kind == "audit":
            return row_of_audit(audit_row(path), name), ""
        head = read_head(path)
        if head.episode is None:
            return None, head.fault
        return row_of_recording(head, head.episode, name, path.stat().st_mtime), ""
    except (ActwrightError, OSError) as error:
        return None, str(error)


def _findings(folder: Path) -> dict[str, list[str]]:
    """Episode id -> defects and risks that the inspection of its rows and times found; no image is looked at."""
    from components.data.inspection.reporting.inspect import inspect_folder

    report = inspect_folder(folder, None, None, pixels=False)
    found: dict[str, list[str]] = {}
    for outcome in ("defect", "risk"):
        for result in report.of(outcome):
            for fault in result.verdict.faults:
                said = f"{outcome} {result.check.id}"
                if said not in found.setdefault(fault.where, []):
                    found[fault.where].append(said)
    return found
