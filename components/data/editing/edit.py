"""One edit as a document of a few lines: what is done to which contents, and who did it, when and why.

    format: 1
    operation: trim
    parents:
    - {name: pick, path: ../sets/pick, digest: 3f9a81...}
    parameters: {head: 5, tail: 0, keep: {}}
    who: ana
    when: '2026-05-04T09:30:00+00:00'
    why: the operator starts late

The digest names what the edit makes: parents by contents, operation and parameters. Who, when, why, names and paths do not enter it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.artifacts.abandoned import remove_abandoned_writes
from model_core.spec.contract import digest_of
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import DatasetError, SpecError
from model_core.spec.files import atomic_write

FORMAT = 1
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What an edit begins with. digest: of its contents, which decides. path: where it was, from the folder of the edit; only a hint."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An operation (`components.data.editing.operations`) on its parents. when: ISO 8601, in UTC."""

    operation: str
    parents: tuple[Parent, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    who: str = ""
    when: str = ""
    why: str = ""
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 (hex, 64) of what the edit makes, equal for equal edits of equal contents."""
        parents = [parent.digest for parent in self.parents]
        return digest_of(
            {"operation": self.operation, "parents": parents, "parameters": to_document(self.parameters), "format": self.format}
        )


def now() -> str:
    """The time of an edit that is made now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_edit(path: Path) -> bool:
    """Whether a path names the file of an edit."""
    return path.suffix in SUFFIXES and path.is_file()


def read_edit(path: Path) -> Edit:
    """The edit in a file. Raises `DatasetError` naming the file and the field that is wrong."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        edit = from_document(Edit, document, where=path.name)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, SpecError) as error:
        raise DatasetError(
            f"{path} is no edit of a data set: {error}. Fix: name a file that `actwright data select` or a like command made"
        ) from error
    if edit.format != FORMAT:
        raise DatasetError(f"{path} has format {edit.format}, expected {FORMAT}. Fix: read it with the version of Actwright that wrote it")
    if not edit.parents:
        raise DatasetError(f"{path} names no parents, expected at least one. Fix: make the edit again")
    return edit


def write_edit(path: Path, edit: Edit) -> bool:
    """Write the file of an edit; False where the same edit is there already. Raises `DatasetError` where another one has that name."""
    if path.exists():
        if read_edit(path).digest == edit.digest:
            return False
        raise DatasetError(f"{path} holds another edit already; an edit is never changed. Fix: choose another name with --as")
    document = to_document(edit)
    remove_abandoned_writes(path.parent)
    atomic_write(path, _as_yaml(document) if path.suffix != ".json" else json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return True


def _as_yaml(document: Mapping[str, Any]) -> str:
    import yaml

    ordered = {"format": document["format"], **document}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120)
