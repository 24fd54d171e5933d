"""What a finished step is known by: the key it is looked up with, the manifest of what it made, and the digest over that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.files import sha256_file
from model_core.adoption.document import is_adopted, read_adoption
from model_core.spec.contract import digest_of
from model_core.spec.documents import from_document, identity_document, to_document
from model_core.spec.errors import DatasetError, require

MANIFEST = "step.json"
SCRATCH = "scratch"
UNDIGESTED = "undigested"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a finished step was made from and made.

    inputs: name -> digest. outputs: path inside the step -> SHA-256. digest: over outputs and record (without ``undigested``).
    stat: path -> [bytes, mtime in ns] at commit, to notice later changes cheaply.
    """

    stage: str
    key: str
    inputs: Mapping[str, str]
    config_digest: str
    outputs: Mapping[str, str]
    record: Mapping[str, Any]
    digest: str
    code_version: str = ""
    stat: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A finished step: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """What later steps know this one by."""
        return self.manifest.digest

    @property
    def record(self) -> Mapping[str, Any]:
        """What the stage reported about its result."""
        return self.manifest.record


def input_digests(inputs: Mapping[str, Step | str]) -> dict[str, str]:
    """Name -> digest of what a step is made from: finished steps, or bare digests."""
    return {name: value.digest if isinstance(value, Step) else value for name, value in inputs.items()}


def step_key(stage: str, config: object, inputs: Mapping[str, str], code_version: str) -> str:
    """24 hex digits: equal exactly when stage, config (without neutral fields), inputs and code are."""
    document = {"stage": stage, "config": identity_document(config), "inputs": dict(inputs), "code": code_version, "format": FORMAT}
    return digest_of(document)[:24]


def outputs_digest(outputs: Mapping[str, str], record: Mapping[str, Any]) -> str:
    """The digest of a step: over its files' digests and its record, without what is `undigested`."""
    return digest_of({"outputs": dict(outputs), "record": {k: v for k, v in to_document(record).items() if k != UNDIGESTED}})


def folder_digests(folder: Path) -> dict[str, str]:
    """Path inside `folder` -> SHA-256, of everything that counts as output."""
    return {name: sha256_file(path) for name, path in output_files(folder)}


def output_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path inside the folder, file) of everything that counts as output."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and inside.parts[0] not in (SCRATCH, UNDIGESTED) and inside.as_posix() != MANIFEST:
            require(not path.is_symlink(), "a step holds a symbolic link; write the file itself", got=inside, error=DatasetError)
            yield inside.as_posix(), path


def read_manifest(path: Path) -> Manifest:
    """The manifest of a finished step; raises `DatasetError` for one that cannot be read."""
    try:
        return from_document(Manifest, json.loads(path.read_text(encoding="utf-8")), where=f"{path.parent.name}/{path.name}")
    except (ValueError, OSError) as error:
        raise DatasetError(f"manifest {path} cannot be read ({error}); remove its folder and run again") from error


def damage(step: Step, *, thorough: bool) -> str | None:
    """Why the step's files are not what was committed, or None."""
    for name, expected in step.manifest.outputs.items():
        path = step.path / name
        if not path.is_file():
            return f"{name} is missing"
        unchanged = tuple(step.manifest.stat.get(name, ())) == size_and_time(path)
        if (thorough or not unchanged) and sha256_file(path) != expected:
            return f"{name} has other bytes than when it was made"
    return None


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes and time of the last change in ns: equal while the file was not written."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def checkpoint_digest(checkpoint: Path) -> str:
    """Names a checkpoint folder by its files' bytes."""
    return digest_of(checkpoint_files(checkpoint))


def checkpoint_files(checkpoint: Path) -> dict[str, str]:
    """Path inside the folder -> SHA-256 of what belongs to a checkpoint: all of our own, what serving reads of an adopted one."""
    if not is_adopted(checkpoint):
        return folder_digests(checkpoint)
    return {name: sha256_file(checkpoint / name) for name in read_adoption(checkpoint).names}
