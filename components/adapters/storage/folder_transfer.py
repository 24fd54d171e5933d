"""Whole folders to an object store and back: resumable, every byte checked, and complete only when the list of its files is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.storage.object_store import ObjectStore
from components.artifacts.files import dataset_digest, sha256_file
from components.config.records import Progress
from model_core.spec.errors import StorageError
from model_core.spec.files import writer_name

COMPLETE = "_complete.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What an upload or download did. `skipped` objects were there already."""

    prefix: str
    objects: int
    moved: int
    skipped: int
    bytes: int


def upload_folder(store: ObjectStore, folder: Path, prefix: str, progress: Progress) -> Transfer:
    """Put every file of `folder` under `prefix`, then `_complete.json`. Calling it again sends only what is missing."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if not files:
        raise StorageError(f"{folder.name} holds no file; there is nothing to upload")
    listing: dict[str, dict[str, Any]] = {}
    moved = size = 0
    for number, path in enumerate(files):
        name = path.relative_to(folder).as_posix()
        try:
            moved += store.put(f"{prefix}/{name}", path)
        except StorageError as error:
            raise StorageError(f"upload of {folder.name} stopped after {number} of {len(files)} files: {error}") from error
        listing[name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        size += path.stat().st_size
        progress.update(number + 1, len(files), f"uploading to {store.address}")
    _put_json(store, f"{prefix}/{COMPLETE}", {"files": listing}, folder)
    return Transfer(prefix=prefix, objects=len(files), moved=moved, skipped=len(files) - moved, bytes=size)


def download_folder(store: ObjectStore, prefix: str, folder: Path, progress: Progress) -> Transfer:
    """Fetch a completed upload into `folder`. Files that are there with the right bytes are kept."""
    listing = read_listing(store, prefix, folder)
    moved = size = 0
    for number, (name, known) in enumerate(sorted(listing.items())):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StorageError(f"{prefix} lists the file {name!r} outside of its folder; it is not fetched")
        if not path.is_file() or sha256_file(path) != known["sha256"]:
            store.get(f"{prefix}/{name}", path)
            moved += 1
            if sha256_file(path) != known["sha256"]:
                path.unlink()
                raise StorageError(
                    f"{prefix}/{name} in {store.address} is damaged: its bytes are not those of the upload. Fix: upload it again"
                )
        size += path.stat().st_size
        progress.update(number + 1, len(listing), f"fetching from {store.address}")
    return Transfer(prefix=prefix, objects=len(listing), moved=moved, skipped=len(listing) - moved, bytes=size)


def upload_dataset(store: ObjectStore, dataset: Path, progress: Progress) -> Transfer:
    """Put a LeRobot folder under raw/<digest>: the same data set is stored once, from wherever it is uploaded."""
    return upload_folder(store, dataset, f"raw/{dataset_digest(dataset)[:24]}", progress)


def read_listing(store: ObjectStore, prefix: str, near: Path) -> Mapping[str, Mapping[str, Any]]:
    """The files of a completed upload. Raises `StorageError` when it was never completed."""
    if store.info(f"{prefix}/{COMPLETE}") is None:
        raise StorageError(f"{store.address} has no complete upload under {prefix}; it was never finished. Fix: upload again")
    near.parent.mkdir(parents=True, exist_ok=True)
    beside = near.with_name(f".{near.name}.{writer_name()}.listing")
    try:
        store.get(f"{prefix}/{COMPLETE}", beside)
        return json.loads(beside.read_text(encoding="utf-8"))["files"]
    finally:
        beside.unlink(missing_ok=True)


def _put_json(store: ObjectStore, key: str, document: object, near: Path) -> None:
    beside = near.with_name(f".{near.name}.{writer_name()}.json")
    try:
        beside.write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
        store.put(key, beside)
    finally:
        beside.unlink(missing_ok=True)
