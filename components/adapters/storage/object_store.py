"""Objects under keys: the interface of every store, and the store that is a plain folder.

store.put(key, path)       idempotent: an object that is there with the same bytes is not sent again
store.get(key, path)       `path` appears only when it is whole
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.artifacts.files import sha256_file
from model_core.spec.errors import StorageError
from model_core.spec.files import atomic_target


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What the store knows of an object. sha256 is "" where another program stored it."""

    key: str
    size: int
    sha256: str = ""


class ObjectStore(Protocol):
    """Keys are relative paths with "/". Every method raises `StorageError` when the store fails."""

    @property
    def address(self) -> str:
        """Where it is, for people; contains no secret."""
        ...

    def put(self, key: str, path: Path) -> bool:
        """Send a file and check what arrived. False: it was there already with the same bytes."""
        ...

    def get(self, key: str, path: Path) -> None:
        """Fetch an object into `path`, which appears only when it is whole."""
        ...

    def info(self, key: str) -> ObjectInfo | None:
        """What is known of an object; None where there is none."""
        ...

    def list(self, prefix: str) -> tuple[ObjectInfo, ...]:
        """Every object whose key begins with `prefix`, by key."""
        ...


class FolderStore:
    """A plain folder with the same promises."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def address(self) -> str:
        """The folder."""
        return f"folder:{self.root}"

    def put(self, key: str, path: Path) -> bool:
        """Copy a file in, unless it is there."""
        digest, there = sha256_file(path), self.info(key)
        if there is not None and there.sha256 == digest:
            return False
        target = self._path(key)
        try:
            with atomic_target(target) as beside:
                shutil.copyfile(path, beside)
        except OSError as error:
            raise StorageError(
                f"cannot write {key} into {self.address}: {error.strerror or error}. Fix: free space or fix its permissions, then run again"
            ) from error
        if sha256_file(target) != digest:
            raise StorageError(f"{key} in {self.address} is not what was written; the disk is faulty")
        return True

    def get(self, key: str, path: Path) -> None:
        """Copy a file out."""
        source = self._path(key)
        if not source.is_file():
            raise StorageError(f"{self.address} has no object {key}")
        with atomic_target(path, durable=False) as beside:
            shutil.copyfile(source, beside)

    def info(self, key: str) -> ObjectInfo | None:
        """Size and digest of the file."""
        path = self._path(key)
        if (size := _size(path)) is None:
            return None
        try:
            return ObjectInfo(key=key, size=size, sha256=sha256_file(path))
        except OSError as error:
            raise StorageError(f"cannot read {key} in {self.address}: {error.strerror or error}. Fix: run again") from error

    def list(self, prefix: str) -> tuple[ObjectInfo, ...]:
        """Files by key, without those that another program, such as a push of DVC, moves or removes meanwhile."""
        paths = sorted(Path(folder, name) for folder, _, names in os.walk(self.root) for name in names if not name.startswith("."))
        found = [(path.relative_to(self.root).as_posix(), _size(path)) for path in paths]
        return tuple(ObjectInfo(key=key, size=size) for key, size in found if size is not None and key.startswith(prefix))

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise StorageError(f"the key {key!r} points out of {self.address}")
        return path


def _size(path: Path) -> int | None:
    """Of a file in bytes; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
