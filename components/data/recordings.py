"""Recordings of workcells in object storage: cells upload them, and the next ingest fetches them."""

from __future__ import annotations

from pathlib import Path

from components.adapters.storage.folder_transfer import COMPLETE, Transfer, download_folder, upload_folder
from components.adapters.storage.object_store import ObjectStore
from components.artifacts.files import dataset_digest
from components.config.records import Progress

RECORDINGS = "recordings"


def upload_recordings(store: ObjectStore, spool: Path, progress: Progress) -> Transfer:
    """Put a cell's finished recordings under recordings/<digest of the folder>; the same recordings are stored once."""
    return upload_folder(store, spool, f"{RECORDINGS}/{dataset_digest(spool)[:24]}", progress)


def pending_recordings(store: ObjectStore) -> tuple[str, ...]:
    """Prefixes of completed uploads of recordings, in order: what the next data set may be made from."""
    ending = f"/{COMPLETE}"
    return tuple(o.key.removesuffix(ending) for o in store.list(f"{RECORDINGS}/") if o.key.endswith(ending))


def fetch_recordings(store: ObjectStore, folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Fetch every completed upload into `folder`, one subfolder each; those that are there are not fetched again."""
    fetched: list[Path] = []
    for prefix in pending_recordings(store):
        target = folder / prefix.removeprefix(f"{RECORDINGS}/")
        download_folder(store, prefix, target, progress)
        fetched.append(target)
    return tuple(fetched)
