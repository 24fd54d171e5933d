"""Packs of a pushed version, read where DVC put them: the parts that are asked for, without pulling the rest.

A DVC remote holds the listing of a folder under files/md5/<MD5>.dir and each file under its own MD5. Numbers are small and are fetched
once per pack; images are fetched row by row.
"""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray

from components.adapters.dvc_files import OBJECTS, files_listed, object_place
from components.adapters.storage.ranges import RangeStore
from components.data.packing.packs import DEPTH, IMAGES, PackedEpisode, episodes_of
from components.data.packing.tensor_file import TensorFile
from model_core.spec.errors import DatasetError


class RemoteTensors:
    """Tensors of one object by row. Safe to use from several threads."""

    def __init__(self, store: RangeStore, key: str) -> None:
        self._store, self._key = store, key
        self._whole: dict[str, NDArray[Any]] = {}
        self._lock = threading.Lock()
        self.header = TensorFile.read(key, store.size(key), self._fetch)

    def _fetch(self, first: int, count: int) -> bytes:
        return self._store.read(self._key, first, count)

    def rows(self, name: str, first: int, count: int) -> NDArray[Any]:
        """Rows of a tensor; one that is neither images nor depth is fetched whole the first time."""
        place = self.header.places[name]
        if name.startswith((IMAGES, DEPTH)):
            return place.rows(self._fetch, first, count)
        with self._lock:
            if name not in self._whole:
                self._whole[name] = place.rows(self._fetch, 0, place.shape[0])
        return self._whole[name][first : first + count]


def open_version(store: RangeStore, md5: str) -> list[PackedEpisode]:
    """Every episode of a pushed version. md5: of the folder, as `<name>.dvc` states it, with ".dir".

    Raises `StorageError` where the remote lacks the version or its listing is damaged, `DatasetError` where it holds no pack.
    """
    key = _key(md5)
    entries = sorted(files_listed(store.read(key, 0, store.size(key)), md5, f"{key} on the remote").items())
    packs = [object_md5 for name, object_md5 in entries if name.endswith(".safetensors")]
    if not packs:
        raise DatasetError(f"version {md5} holds no pack; it has {', '.join(name for name, _ in entries[:3])}. Fix: name another")
    return [episode for object_md5 in packs for episode in episodes_of(RemoteTensors(store, _key(object_md5)))]


def _key(md5: str) -> str:
    return f"{OBJECTS}/{object_place(md5)}"
