"""A file that is only ever appended to: JSON lines, each with the SHA-256 of the line before and of itself.

    {"before": "e3b0...", "entry": {...}, "hash": "9a41..."}

The chain begins with a word that names what the file is about. A line that was changed, taken out or put in breaks it at that place. It
holds no key: lines that are missing at the end are only found by someone who knows a later hash. Several processes may append: one at a
time, each line on the disk before the next one begins. A last line without its end was being written when its process was killed; it is
no entry, and the next one replaces it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.artifacts.locks import locked
from model_core.spec.errors import DatasetError

Entry = dict[str, Any]


class ChainedLines:
    """The lines of one file, as far as they were read; for any number of threads. root: what the chain begins with."""

    def __init__(self, path: Path, root: str) -> None:
        self.path, self._root = path, hashlib.sha256(root.encode()).hexdigest()
        self._guard = threading.RLock()
        self._forget()

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries, oldest first; read from where the last call ended. Raises `DatasetError` where the chain is broken."""
        with self._guard:
            self._read()
            return tuple(self._entries)

    @property
    def head(self) -> str:
        """The last hash (hex, 64)."""
        with self._guard:
            self._read()
            return self._head

    def holds(self, head: str) -> bool:
        """Whether a hash, or its first digits, is of one of the lines. Raises `DatasetError` where the chain is broken."""
        with self._guard:
            self._read()
            return any(own.startswith(head.lower()) for own in self._hashes)

    def append(self, make: Callable[[Sequence[Entry]], Sequence[Entry]]) -> Sequence[Entry]:
        """Append what `make` makes of the entries that are there, which no other process changes meanwhile; gives what was appended.

        Raises `DatasetError` where the chain is broken, and whatever `make` raises: then nothing is appended.
        """
        with self._guard, locked(self.path.with_name(f".{self.path.name}.lock")):
            self._read()
            made, lines, hashes, head = list(make(self._entries)), list[bytes](), list[str](), self._head
            for entry in made:
                own = chained_hash(head, entry)
                lines.append(json.dumps({"before": head, "entry": entry, "hash": own}, sort_keys=True, ensure_ascii=False).encode() + b"\n")
                head = own
                hashes.append(own)
            if lines:
                self._write(b"".join(lines))
                self._entries += json.loads(json.dumps(made))
                self._hashes += hashes
                self._head = head
        return made

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            os.truncate(file.fileno(), self._size)  # of a torn last line
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.path.parent)
        self._size += len(data)

    def _forget(self) -> None:
        self._entries: list[Entry] = []
        self._hashes: list[str] = []
        self._head, self._size, self._inode = self._root, 0, 0

    def _read(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._forget()
            return
        if found.st_ino != self._inode or found.st_size < self._size:  # another file: restored from a copy
            self._forget()
            self._inode = found.st_ino
        if found.st_size == self._size:
            return
        with self.path.open("rb") as file:
            file.seek(self._size)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            entry, self._head = self._checked(line)
            self._entries.append(entry)
            self._hashes.append(self._head)
            self._size += len(line)

    def _checked(self, line: bytes) -> tuple[Entry, str]:
        where = f"line {len(self._entries) + 1} of {self.path}"
        try:
            document = json.loads(line)
            before, own, entry = document["before"], document["hash"], document["entry"]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{where}: expected JSON with before, entry and hash, got {error}. {_FIX}") from error
        if before != self._head:
            raise DatasetError(
                f"{where} follows {str(before)[:12]}, what stands before it is {self._head[:12]}: a line was changed. {_FIX}"
            )
        if own != chained_hash(before, entry):
            raise DatasetError(f"{where} was changed after it was written. {_FIX}")
        return entry, own


_FIX = "Fix: restore the file from a copy (git, dvc); lines are only ever added to it"


def chained_hash(before: str, entry: Any) -> str:
    """The hash of a line: of the hash before it, and of what it says as JSON (hex, 64)."""
    return hashlib.sha256(f"{before}\n{json.dumps(entry, sort_keys=True, separators=(',', ':'))}".encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
