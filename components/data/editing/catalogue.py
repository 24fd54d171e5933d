"""Where edits are kept and how a set is named: a folder, the file of an edit, an edit's name, or the first digits of its digest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data.editing.edit import SUFFIXES, Edit, Parent, is_edit, now, read_edit
from components.data.editing.edited_source import EditedSource
from components.data.lerobot.reader import DatasetReader
from components.data.sources.interface import EpisodeSource
from components.data.sources.location import contents_digest
from components.data.sources.open import is_raw, open_raw
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError

_DIGITS = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSet:
    """A set that was named. path: its folder, or the file of its edit. edit: None for a folder."""

    source: EpisodeSource
    path: Path
    digest: str
    edit: Edit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageStep:
    """One line of what a set was made from. depth: 0 for the set itself. edit: None for a folder, with which a lineage begins."""

    depth: int
    name: str
    digest: str
    edit: Edit | None


class Catalogue:
    """The edits in one folder, and every set that they name.

    seen: a folder that keeps the digests of folders that were read whole (`contents_digest`); it only spares reading them again.
    """

    def __init__(self, folder: Path, *, seen: Path | None = None) -> None:
        self.folder, self._seen = folder, seen

    def edits(self) -> Iterator[tuple[Path, Edit]]:
        """Every edit in the folder, by name. Raises `DatasetError` for a file that is none."""
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if is_edit(path) and not path.name.startswith("."):
                    yield path, read_edit(path)

    def path_of(self, name: str) -> Path:
        """Where the edit of a new name is kept; a name that ends like a file of an edit is a path."""
        if Path(name).suffix in SUFFIXES:
            return Path(name)
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            raise DatasetError(f"{name!r} is no name of a set, expected letters, digits and . + - _. Fix: choose another name")
        return self.folder / f"{name}.yaml"

    def open(self, reference: str) -> OpenSet:
        """The set that a person named. Raises `DatasetError` where none or several are meant, or where its contents have changed."""
        path = Path(reference)
        if path.is_dir():
            return self._open_folder(path)
        if not is_edit(path):
            path = self._find(reference)
        return self.open_edit(path, read_edit(path))

    def open_edit(self, path: Path, edit: Edit) -> OpenSet:
        """The set that an edit makes, whose file is, or will be, at `path`. Raises `DatasetError` where its parents have changed."""
        if edit.operation == "repair":
            folder = _beside(path, edit.parameters["path"])
            opened = self._open_folder(folder)
            _check_digest(opened.digest, edit.parameters["result"], f"{folder}, which {path.name} made")
            return OpenSet(source=opened.source, path=path, digest=opened.digest, edit=edit)
        parents = [self._open_parent(path, parent).source for parent in edit.parents]
        return OpenSet(source=EditedSource(path.stem, edit, parents), path=path, digest=edit.digest, edit=edit)

    def lineage(self, opened: OpenSet) -> list[LineageStep]:
        """What a set was made from, down to the folders with which it begins."""
        by_result = {edit.parameters["result"]: (path, edit) for path, edit in self.edits() if edit.operation == "repair"}
        return list(self._lineage(opened.path, opened.digest, opened.edit, by_result, 0))

    def new_edit(self, operation: str, parents: list[OpenSet], parameters: object, *, at: Path, who: str, why: str) -> Edit:
        """The edit of these sets, made now. at: where its file will be."""
        if not why.strip():
            raise DatasetError('an edit needs its reason. Fix: say it with --why "..."')
        named = tuple(
            Parent(name=parent.source.name, path=os.path.relpath(parent.path.resolve(), at.resolve().parent), digest=parent.digest)
            for parent in parents
        )
        return Edit(operation=operation, parents=named, parameters=_without_defaults(parameters), who=who, when=now(), why=why.strip())

    def _find(self, reference: str) -> Path:
        known = list(self.edits())
        found = [path for path, _ in known if path.stem == reference]
        if not found and _DIGITS.fullmatch(reference):
            found = [path for path, edit in known if edit.digest.startswith(reference)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(path.stem for path, _ in known) or "none"
        said = "names no set" if not found else f"is the beginning of {len(found)} digests"
        raise DatasetError(
            f"{reference!r} {said}: expected a folder, the file of an edit, or one of the edits in {self.folder} ({names}). "
            "Fix: `actwright data list` shows them"
        )

    def _open_folder(self, path: Path) -> OpenSet:
        inner = path / "dataset"  # of a finished stage
        source = open_raw(inner if is_raw(inner) else path)
        return OpenSet(source=source, path=path, digest=self._digest(source))

    def _open_parent(self, child: Path, parent: Parent) -> OpenSet:
        path = _beside(child, parent.path)
        if path.is_dir():
            opened = self._open_folder(path)
        elif is_edit(path):
            opened = self.open_edit(path, read_edit(path))
        else:
            same = [found for found, edit in self.edits() if edit.digest == parent.digest]
            if not same:
                raise DatasetError(
                    f"{child.name} was made from {parent.name} ({parent.digest[:12]}), which is not at {path} any more. "
                    "Fix: fetch it to that place (`dvc pull`), or correct the path in the file"
                )
            opened = self.open_edit(same[0], read_edit(same[0]))
        _check_digest(opened.digest, parent.digest, f"{parent.name}, from which {child.name} was made,")
        return opened

    def _digest(self, source: EpisodeSource) -> str:
        return contents_digest(source.root, self._seen) if isinstance(source, DatasetReader) else source.digest

    def _lineage(
        self, path: Path, digest: str, edit: Edit | None, repaired: Mapping[str, tuple[Path, Edit]], depth: int
    ) -> Iterator[LineageStep]:
        if edit is None and digest in repaired:
            path, edit = repaired[digest]
        yield LineageStep(depth=depth, name=path.stem if edit else path.name, digest=digest, edit=edit)
        for parent in edit.parents if edit else ():
            place = path.parent / parent.path
            found = read_edit(place) if is_edit(place) else None
            yield from self._lineage(place, parent.digest, found, repaired, depth + 1)


def _beside(file: Path, relative: str) -> Path:
    """A path that is stated from the folder of an edit, which need not be there yet."""
    return Path(os.path.normpath(file.parent.resolve() / relative))


def _check_digest(got: str, expected: str, what: str) -> None:
    if got != expected:
        raise DatasetError(
            f"{what} has changed: its digest was {expected[:12]}, it is {got[:12]}. Fix: bring back the version that was edited "
            "(`dvc checkout`), or edit the new one under another name"
        )


def _without_defaults(parameters: object) -> dict[str, Any]:
    """The parameters as a document, without those that say nothing."""
    return {name: value for name, value in to_document(parameters).items() if value not in ("", 0, False, [], {}, None)}
