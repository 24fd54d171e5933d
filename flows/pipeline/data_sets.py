"""Data sets by name: where edits are kept on this machine, how one is made, recorded with DVC, and listed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.locks import locked
from components.config.records import Progress
from components.data.editing.edit import Edit, Parent, now
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError

if TYPE_CHECKING:
    from components.adapters.dvc import DvcStore
    from components.data.editing.catalogue import Catalogue, OpenSet
    from components.data.editing.parameters import Repair

EDITS = "edits"


def catalogue(settings: Settings) -> Catalogue:
    """The edits of this machine, in data/edits."""
    from components.data.editing.catalogue import Catalogue

    return Catalogue(settings.data.resolve() / EDITS, seen=settings.home.resolve() / "cache" / "contents")


def keep_edit(platform: Platform, path: Path, edit: Edit) -> dict[str, Any]:
    """Write an edit and let DVC record the folder of edits; gives what is told of it. The same edit is written once."""
    from components.data.editing.edit import write_edit

    opened = catalogue(platform.settings).open_edit(path, edit)
    try:
        rows = opened.source.rows  # what does not fit its parents is refused here, before there is a file
    finally:
        opened.source.close()
    is_new = write_edit(path, edit)
    told: dict[str, Any] = {"digest": opened.digest, "path": str(path), "is_new": is_new, "episodes": len(rows)}
    return told | {"frames": sum(row.length for row in rows), "version": record(platform, path.parent)}


def keep_repair(
    platform: Platform, folders: tuple[Path, Path], name: str, signed: tuple[str, str], progress: Progress
) -> tuple[Repair, dict[str, Any]]:
    """Rebuild a folder into a new one, (old, new), and keep that as an edit. signed: who, why. Gives what was done, and what is told.

    A new folder that an earlier attempt finished, which was stopped before the edit was kept, is taken as it is.
    """
    from components.data.editing.repair.rebuild import repair_again
    from components.data.lerobot.reader import dataset_digest

    old, new = folders
    known = catalogue(platform.settings)
    path = known.path_of(name)
    if path.exists():
        raise DatasetError(f"{path} is there already; an edit is never changed. Fix: choose another name with --as")
    done = repair_again(old, new, progress)
    at = path.resolve().parent
    parent = Parent(name=old.name, path=os.path.relpath(old.resolve(), at), digest=dataset_digest(old))
    parameters = replace(done, path=os.path.relpath(new.resolve(), at))
    edit = Edit(operation="repair", parents=(parent,), parameters=to_document(parameters), who=signed[0], when=now(), why=signed[1])
    record(platform, new)
    return done, keep_edit(platform, path, edit)


def record(platform: Platform, folder: Path) -> str:
    """DVC's MD5 of a folder below data/, which it keeps from now on; "" for a folder elsewhere, which is not recorded."""
    from components.adapters.dvc import DvcStore

    data = platform.settings.data.resolve()
    if not folder.resolve().is_relative_to(data) or folder.resolve() == data:
        return ""
    with locked(platform.settings.home.resolve() / "locks" / "data.lock"):
        dvc = DvcStore(data.parent)
        dvc.prepare()
        return dvc.track(folder)


def listed(platform: Platform) -> list[dict[str, Any]]:
    """Every set that has a name here: edits, data stages and folders that DVC keeps, and raw sets that were taken in."""
    from components.adapters.dvc import DvcStore

    data = platform.settings.data.resolve()
    dvc: DvcStore = DvcStore(data.parent)
    versions = dvc.tracked()
    found: list[dict[str, Any]] = []
    for path, edit in catalogue(platform.settings).edits():
        found.append(_line(path.stem, edit.operation, edit.digest, _parents(edit)) | {"who": edit.who, "when": edit.when, "why": edit.why})
    for place, version in sorted(versions.items()):
        folder = data.parent / place
        if folder != data / EDITS:
            found.append(_line(place, "folder" if folder.exists() else "not fetched", "", []) | {"version": version})
    for step in _raw_steps(platform):
        found.append(_line(step["stage"], "raw", step["digest"], []) | {"episodes": step["episodes"], "path": step["path"]})
    return found


def open_sets(platform: Platform, names: Sequence[str]) -> list[OpenSet]:
    """The sets that a person named."""
    known = catalogue(platform.settings)
    return [known.open(name) for name in names]


def _line(name: str, kind: str, digest: str, parents: list[str]) -> dict[str, Any]:
    return {"name": name, "kind": kind, "digest": digest, "parents": parents}


def _parents(edit: Edit) -> list[str]:
    return [f"{parent.name} ({parent.digest[:12]})" for parent in edit.parents]


def _raw_steps(platform: Platform) -> list[dict[str, Any]]:
    """Finished steps that hold raw episodes."""
    found: list[dict[str, Any]] = []
    for path in sorted(platform.settings.store_root.glob("*/*/step.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if (path.parent / "dataset" / "meta" / "info.json").is_file():
            record_of = document.get("record", {})
            found.append(
                {
                    "stage": document["stage"],
                    "digest": document["digest"],
                    "episodes": record_of.get("episodes"),
                    "path": str(path.parent / "dataset"),
                }
            )
    return found
