"""Recordings of workcells in object storage: cells upload them, and the next ingest fetches them."""

from __future__ import annotations

from pathlib import Path

from components.adapters.storage.folder_transfer import COMPLETE, Transfer, download_folder, upload_folder
from components.adapters.storage.object_store import ObjectStore
from components.artifacts.files import dataset_digest
from components.config.records import Progress
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from model_core.spec.errors import DatasetError

RECORDINGS = "recordings"

SUFFIXES = (".episode", ".msgpack")


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


def is_dataset(source: Path) -> bool:
    """Whether the folder is a LeRobot data set."""
    return (source / layout.INFO).exists()


def recordings_in(source: Path) -> list[Path]:
    """The recordings of cells below a folder, sorted."""
    return sorted(p for p in source.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith("."))


def count_of(source: Path) -> int:
    """How many episodes a source has; raises `DatasetError` for none."""
    if not source.is_dir():
        raise DatasetError(f"{source} is not a folder. Fix: name a LeRobot data set or a folder of recordings")
    # the rows, not their number: a set whose parts contradict each other is refused before anything is done
    count = len(DatasetReader(source).rows) if is_dataset(source) else len(recordings_in(source))
    if count == 0:
        raise DatasetError(f"{source.name} holds no recordings ({', '.join('*' + s for s in SUFFIXES)}) and is not a LeRobot data set")
    return count
