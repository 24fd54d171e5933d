"""A new version of a data set out of what people stated of its episodes: edits, as every other command makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.pipeline.data_sets import keep_edit
from flows.pipeline.episodes.library import episode_library
from flows.platform.wiring import Platform
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from components.data.episodes.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What is made. name: of the last edit. why: for people who read the lineage. only_included: keep only what a person chose."""

    name: str
    why: str
    who: str = ""
    only_included: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeVersion:
    """What came of it. edits: their files, in order; the last one is the set. corrections: the file for `annotate.corrections`, or None."""

    edits: tuple[Path, ...]
    corrections: Path | None
    left_out: int
    told: dict[str, Any] = field(default_factory=dict[str, Any])


def make_version(platform: Platform, place: Place, wanted: NewVersion) -> MadeVersion:
    """Write the edits that the revisions of a place come to. The same revisions again give the same edits, which are written once.

    Raises `DatasetError` for a place that is no data set, for revisions that do not fit it, and where a name holds another edit already.
    """
    from components.data.revisions.state import authors
    from components.data.revisions.to_edits import planned_edits

    library = episode_library(platform.settings)
    if place.holds_files:
        raise DatasetError(
            f"{place.name} is a folder of {place.kind}, and a version is made of a data set. Fix: take it in with `actwright ingest`, and "
            "revise the set that it becomes; what was stated here stays as it is"
        )
    opened, stated = library.edits.open(str(place.path)), library.book(place).revised
    try:
        plan = planned_edits(opened.source.rows, stated, only_included=wanted.only_included)
    finally:
        opened.source.close()
    who = wanted.who or ", ".join(authors(stated.values()))
    corrections = None
    if plan.corrections:
        corrections = library.edits.folder / f"{wanted.name}.corrections.jsonl"
        _write_once(corrections, "\n".join(plan.corrections) + "\n")
    edits: list[Path] = []
    told: dict[str, Any] = {"digest": opened.digest, "episodes": len(opened.source.rows)}
    for number, (operation, parameters) in enumerate(plan.steps, start=1):
        path = library.edits.path_of(wanted.name if number == len(plan.steps) else f"{wanted.name}.{number}-{operation}")
        edit = library.edits.new_edit(operation, [opened], parameters, at=path, who=who, why=wanted.why)
        told = keep_edit(platform, path, edit)
        opened = library.edits.open(str(path))
        opened.source.close()
        edits.append(path)
    return MadeVersion(edits=tuple(edits), corrections=corrections, left_out=plan.left_out, told=told)


def _write_once(path: Path, content: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") != content:
        raise DatasetError(f"{path} holds other corrections already. Fix: choose another name with --as")
    atomic_write(path, content)
