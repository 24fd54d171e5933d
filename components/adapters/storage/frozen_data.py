"""Frozen data sets in an object store, and a machine's cache of them: what the processes of a training read, without a shared file system.

STORE  frozen/DIGEST/...         under their names, complete when the list of the files is there
CACHE  data/DIGEST/...           there when it is whole and has this digest
"""

from __future__ import annotations

import shutil
from pathlib import Path

from components.adapters.storage.folder_transfer import COMPLETE, download_folder, upload_folder
from components.adapters.storage.object_store import ObjectStore
from components.artifacts.files import dataset_digest
from components.artifacts.locks import locked
from components.config.launch.stored_data import data_folder
from components.config.records import Progress
from model_core.spec.errors import StorageError


def send_frozen(store: ObjectStore, folder: Path, progress: Progress) -> str:
    """Put a frozen data set into the store, unless it is there; returns its digest. A send that was cut continues."""
    digest = dataset_digest(folder)
    if store.info(f"{_prefix(digest)}/{COMPLETE}") is None:
        upload_folder(store, folder, _prefix(digest), progress)
    return digest


def fetch_frozen(store: ObjectStore, digest: str, cache: Path, progress: Progress) -> Path:
    """Have the data set of `digest` in the cache; returns its folder. One process of a machine fetches, others wait for it.

    Every file is compared with the list of the upload, the list with the digest. A fetch that was killed continues with the files that are
    there. Raises `StorageError` where the store has no such data set, or other bytes.
    """
    target = Path(data_folder(str(cache), digest))
    waiting = target.with_name(f".{digest[:16]}")
    with locked(target.with_name(f".{digest[:16]}.lock")):
        if target.is_dir():
            return target
        download_folder(store, _prefix(digest), waiting, progress)
        found = dataset_digest(waiting)
        if found != digest:
            shutil.rmtree(waiting)
            raise StorageError(
                f"{_prefix(digest)[:23]} in {store.address} is another data set: expected digest {digest[:16]}, got {found[:16]}. "
                "Fix: remove it there, then submit the training again"
            )
        waiting.rename(target)
    return target


def _prefix(digest: str) -> str:
    return f"frozen/{digest}"
