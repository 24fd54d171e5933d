"""Whether a DVC remote really holds a version: `dvc push` compares names of folders, and calls one complete whose files were lost.

DVC keeps an object under files/md5/<first two characters>/<rest of its MD5>; the object of a folder ends with ".dir" and lists the MD5 of
every file in it. Where that list is on the remote, `dvc push` takes all of its files for sent; where a file is missing here, it leaves the
list out and ends with code 0.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.adapters.dvc import DvcVersion
from components.adapters.dvc_files import OBJECTS, files_listed, object_place
from components.adapters.storage.object_store import ObjectStore
from model_core.spec.errors import DatasetError

logger = logging.getLogger(__name__)


def restore_lost_objects(store: ObjectStore, prefix: str, version: DvcVersion, cache: Path) -> tuple[str, ...]:
    """Send the objects of a pushed version that the remote under `prefix` lacks, or holds at another size; returns their keys.

    cache: the objects of this machine (.dvc/cache/files/md5). Raises `DatasetError` for an object that is on neither side, `StorageError`
    for a list of files that is damaged on the remote.
    """
    held = {found.key: found.size for found in store.list(f"{prefix}/{OBJECTS}/")}
    sent: list[str] = []
    for stage, digest in sorted(version.outputs.items()):
        key = _key(prefix, digest)
        if key not in held:
            raise DatasetError(
                f"dvc push ended without an error and left out {stage}: {store.address} has no {key}, because a file of it is missing in "
                f"{cache}. Fix: run the data stages again, which write the files, then push again"
            )
        for name, md5 in sorted(_files_of(store, key, digest).items()):
            lost = _key(prefix, md5)
            here = cache / object_place(md5)
            if lost in held and (not here.is_file() or here.stat().st_size == held[lost]):
                continue
            if not here.is_file():
                raise DatasetError(
                    f"{stage}/{name} is lost: neither {store.address} nor the cache here has {lost}. Fix: run the data stages again, or "
                    "push from a machine that has this version"
                )
            store.put(lost, here)
            held[lost] = here.stat().st_size
            sent.append(lost)
            logger.warning("dvc.restored stage=%s file=%s key=%s: the remote had lost it", stage, name, lost)
    return tuple(sent)


def _key(prefix: str, digest: str) -> str:
    return f"{prefix}/{OBJECTS}/{object_place(digest)}"


def _files_of(store: ObjectStore, key: str, digest: str) -> Mapping[str, str]:
    """Name -> MD5 of the files that a folder's object lists; none for the object of a single file."""
    if not digest.endswith(".dir"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "listing")
        store.get(key, path)
        return files_listed(path.read_bytes(), digest, f"{key} in {store.address}")
