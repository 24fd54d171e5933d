"""Where episodes are: a data set, an edit of one, a folder of recordings or a folder of audits; and how one tells that it has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from components.data.editing.edit import is_edit, read_edit
from components.data.recordings import SUFFIXES, is_dataset
from components.data.sources.open import is_raw
from model_core.spec.audit.format import SUFFIX
from model_core.spec.errors import DatasetError

Kind = Literal["set", "edit", "recordings", "audit"]
_INNER = "dataset"  # of a finished stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place of episodes. path: absolute. name: for people; an edit's own, else that of the folder."""

    path: Path
    kind: Kind
    name: str

    @property
    def key(self) -> str:
        """12 hex digits that name the place in addresses; another path has another key."""
        return _key_of(str(self.path))

    @property
    def holds_files(self) -> bool:
        """Whether each episode is a file of its own, which is read once and never changed."""
        return self.kind in ("recordings", "audit")

    def files(self) -> Iterator[Path]:
        """The files that are an episode each, sorted; none of a set."""
        suffixes = SUFFIXES if self.kind == "recordings" else (SUFFIX,) if self.kind == "audit" else ()
        return (path for path in sorted(self.path.rglob("*")) if path.suffix in suffixes and not path.name.startswith("."))


@lru_cache(maxsize=1024)  # a table asks for it in each of its rows
def _key_of(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:12]


def place_at(path: Path, name: str = "") -> Place:
    """What is at a path. Raises `DatasetError` where no episodes are."""
    path = path.expanduser().resolve()
    if is_edit(path):
        return Place(path=path, kind="edit", name=name or path.stem)
    if path.is_dir() and (is_raw(path) or is_raw(path / _INNER)):
        return Place(path=path, kind="set", name=name or path.name)
    kinds: tuple[Kind, ...] = ("recordings", "audit")
    for kind in kinds if path.is_dir() else ():
        found = Place(path=path, kind=kind, name=name or path.name)
        if next(iter(found.files()), None) is not None:
            return found
    raise DatasetError(
        f"there are no episodes at {path}: expected a LeRobot data set, the file of an edit, a folder of recordings (*{SUFFIXES[0]}) or of "
        f"audits (*{SUFFIX}). Fix: name one of them; `actwright data list` shows those that have a name here"
    )


def state_of(place: Place) -> str:
    """A digest that changes when a file of a set does: of names, sizes and times, so nothing is read. An edit has its parents'."""
    if place.kind == "edit":
        edit = read_edit(place.path)
        parents = [place.path.parent / parent.path for parent in edit.parents]
        inner = [state_of(place_at(parent)) for parent in parents if parent.exists()]
        return hashlib.sha256(json.dumps([edit.digest, inner]).encode()).hexdigest()
    root = place.path / _INNER if is_dataset(place.path / _INNER) else place.path
    return hashlib.sha256(json.dumps(sorted(_stats(root))).encode()).hexdigest()


def file_state(path: Path) -> str:
    """The same of one file."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


def _stats(root: Path) -> Iterator[tuple[str, int, int]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            found = os.stat(path)
            yield os.path.relpath(path, root), found.st_size, found.st_mtime_ns
