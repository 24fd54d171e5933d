"""Files by their bytes: digests of files and folders, and files that hold keys."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from model_core.spec.files import atomic_target


def sha256_file(path: Path) -> str:
    """SHA-256 (hex, 64) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_private(path: Path, text: str) -> None:
    """Write a file whole, readable by this user only from its first byte on: for keys."""
    with (
        atomic_target(path) as beside,
        os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file,
    ):
        file.write(text)


def dataset_digest(root: Path) -> str:
    """SHA-256 (hex, 64) over every file's relative path and content: the name of this data set and no other."""
    total = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(root).as_posix()}\0{sha256_file(path)}\n".encode())
    return total.hexdigest()
