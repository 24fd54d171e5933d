"""What `dvc add FOLDER` leaves behind, written without starting DVC: a version of a folder in milliseconds.

    <root>/<name>.dvc                        the version, as text: MD5 of the listing, size, number of files
    <root>/.dvc/cache/files/md5/ab/cdef..     each file's bytes under their MD5, and the listing of the folder (".dir")
    <root>/.dvc/tmp/actwright/<name>.json     what is known of each file (size, time, inode), so that only new files are read again

DVC takes these files for its own: `dvc status`, `dvc push` and `dvc pull` are run on them by a test. Files without write permission are
never changed in place, so the cache shares their bytes; of others it gets a copy, as DVC does it by default.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.spec.errors import DatasetError, StorageError
from model_core.spec.files import atomic_target, atomic_write

OBJECTS = "files/md5"  # of a cache or a remote: where the objects are
_HASHERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderVersion:
    """A version of a folder. md5: of its listing, with ".dir", as DVC names it. new_bytes: what the cache did not hold before."""

    md5: str
    size: int
    files: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A file as it was when its MD5 was taken: the three numbers by which DVC too tells that a file is unchanged."""

    size: int
    mtime_ns: int
    inode: int
    md5: str


def add_folder(root: Path, folder: Path) -> FolderVersion:
    """Make the present content of `folder` a version of the DVC repository at `root`, which holds it.

    Calling it again reads only files that are new or changed. Raises `DatasetError` where there is no repository, no file, or a link in
    the folder; nothing names the new version until all of its bytes are in the cache.
    """
    cache = root / ".dvc" / "cache" / "files" / "md5"
    if not (root / ".dvc").is_dir():
        raise DatasetError(f"{root} is no DVC repository. Fix: run 'dvc init' (or 'dvc init --no-scm') there")
    if root.resolve() not in folder.resolve().parents:
        raise DatasetError(f"{folder} is not below {root}. Fix: name a folder of this repository")
    name = folder.resolve().relative_to(root.resolve()).as_posix()
    index = root / ".dvc" / "tmp" / "actwright" / f"{name.replace('/', '_')}.json"
    before = _read_index(index)
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if not found:
        raise DatasetError(f"{folder} holds no file; nothing can be made a version")
    with ThreadPoolExecutor(_HASHERS) as pool:  # hashing leaves the interpreter to the other threads
        taken = pool.map(lambda item: _take(item[1], before.get(item[0]), cache), found.items())
        results = dict(zip(found, taken, strict=True))
    known = {relative: one for relative, (one, _) in results.items()}
    listing = json.dumps([{"md5": known[relative].md5, "relpath": relative} for relative in sorted(known)], sort_keys=True).encode()
    md5 = f"{_md5(listing)}.dir"
    listed = cache / object_place(md5)
    new_bytes = sum(new for _, new in results.values())
    if not listed.is_file():
        atomic_write(listed, listing)
        listed.chmod(0o444)
        new_bytes += len(listing)
    size = sum(one.size for one in known.values())
    outs = f"outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {len(known)}\n  hash: md5\n  path: {folder.name}\n"
    atomic_write(folder.parent / f"{folder.name}.dvc", outs)
    _write_index(index, known)
    return FolderVersion(md5=md5, size=size, files=len(known), new_bytes=new_bytes)


def _take(path: Path, before: _Known | None, cache: Path) -> tuple[_Known, int]:
    """What is known of a file now, and how many bytes the cache got of it."""
    stat = path.stat()
    if before is not None and (before.size, before.mtime_ns, before.inode) == (stat.st_size, stat.st_mtime_ns, stat.st_ino):
        place = cache / object_place(before.md5)
        if place.is_file() and place.stat().st_size == stat.st_size:
            return before, 0
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, _new_md5).hexdigest()
    known = _Known(stat.st_size, stat.st_mtime_ns, stat.st_ino, md5)
    place = cache / object_place(md5)
    if place.is_file() and place.stat().st_size == stat.st_size:
        return known, 0
    with atomic_target(place, durable=False) as beside:
        if stat.st_mode & 0o222:
            shutil.copyfile(path, beside)
        else:
            _link(path, beside)
    place.chmod(0o444)
    return known, stat.st_size


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, target)


def _files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.is_symlink():
            raise DatasetError(f"{entry.path} is a link; a version holds bytes. Fix: put the file itself there")
        if entry.is_dir():
            yield from _files(Path(entry.path))
        elif not entry.name.endswith(".tmp"):
            yield Path(entry.path)


def object_place(md5: str) -> str:
    """Where DVC keeps an object, below `OBJECTS`."""
    return f"{md5[:2]}/{md5[2:]}"


def files_listed(content: bytes, md5: str, where: str) -> dict[str, str]:
    """Name -> MD5 of the files that the object of a folder lists. where: of the object, for people.

    Raises `StorageError` where its bytes are not those of its name.
    """
    if _md5(content) != md5.removesuffix(".dir"):
        raise StorageError(f"{where} is damaged: its bytes are not those of its name. Fix: delete this object and push again")
    return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(content)}


def _new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_index(path: Path) -> Mapping[str, _Known]:
    try:
        return {name: _Known(*values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError):  # it only saves work
        return {}


def _write_index(path: Path, known: Mapping[str, _Known]) -> None:
    document = {name: [one.size, one.mtime_ns, one.inode, one.md5] for name, one in known.items()}
    atomic_write(path, json.dumps(document), durable=False)
