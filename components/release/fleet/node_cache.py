"""Releases in an object store, and a machine's cache of them: weights reach a node by digest, and no image is built for them.

    STORE  releases/DIGEST/release.json, release.sig, bundle/...      each carried file under its path
    CACHE  files/SHA256                                               each file once, whatever releases hold it
           releases/DIGEST/...                                        hard links; there when the release is whole

A file is fetched beside its place, compared with the digest that the release names, and then given its name: what is in the cache is
right, a fetch that was killed continues with the files that are there, and two pods of one node may fetch at once.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from components.adapters.signing.folder_signature import Trust, verify_folder
from components.adapters.storage.object_store import ObjectStore
from components.artifacts.files import sha256_file
from components.release.fleet.verify import check_content
from model_core.spec.errors import CheckpointError, require
from model_core.spec.fleet.release import DOCUMENT, SIGNATURE, Release, ReleaseFile, read_release


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """folder: the whole release. fetched_bytes: over the wire; the rest was in the cache. seconds: until it is whole."""

    release: Release
    folder: Path
    fetched_bytes: int
    seconds: float


def upload_release(store: ObjectStore, folder: Path, trust: Trust) -> int:
    """Put a verified release into the store; returns the bytes that were sent. The document is sent last: with it the release is there."""
    release = read_release(folder)
    verify_folder(folder, folder / SIGNATURE, trust)
    check_content(folder, release)
    sent = 0
    for name in (*sorted(release.files), SIGNATURE, DOCUMENT):
        sent += (folder / name).stat().st_size if store.put(f"releases/{release.digest}/{name}", folder / name) else 0
    return sent


def fetch_release(store: ObjectStore, digest: str, cache: Path, trust: Trust) -> Fetched:
    """Bring a release into the cache, with the files of its base, and verify it: its digest, its signature and every file.

    Raises CheckpointError for one that is not what it is called or was changed, StorageError where the store has not all of it.
    """
    began = perf_counter()
    target = cache / "releases" / digest
    if target.is_dir():
        return Fetched(release=_checked(target, digest), folder=target, fetched_bytes=0, seconds=perf_counter() - began)
    waiting = cache / "releases" / f".{digest[:16]}.{uuid.uuid4().hex[:8]}"
    waiting.mkdir(parents=True)
    try:
        for name in (DOCUMENT, SIGNATURE):
            store.get(f"releases/{digest}/{name}", waiting / name)
        release = _checked(waiting, digest)
        fetched = 0
        for path, file in sorted(release.all_files.items()):
            owner = digest if path in release.files else release.base.digest if release.base else digest
            fetched += _cached(store, f"releases/{owner}/{path}", file, cache / "files" / file.sha256)
            (waiting / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(cache / "files" / file.sha256, waiting / path)
        _verify(waiting, release, trust)
        _name(waiting, target)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return Fetched(release=release, folder=target, fetched_bytes=fetched, seconds=perf_counter() - began)


def _checked(folder: Path, digest: str) -> Release:
    release = read_release(folder)
    require(release.digest == digest, f"{folder}: this is release {release.digest[:16]}, not {digest[:16]}", error=CheckpointError)
    return release


def _cached(store: ObjectStore, key: str, file: ReleaseFile, target: Path) -> int:
    """Have one file in the cache; returns the bytes that were fetched. Raises CheckpointError for other bytes than were signed."""
    if target.is_file() and target.stat().st_size == file.size:
        return 0
    beside = target.with_name(f".{target.name[:16]}.{uuid.uuid4().hex[:8]}")
    beside.parent.mkdir(parents=True, exist_ok=True)
    try:
        store.get(key, beside)
        found = sha256_file(beside)
        require(
            found == file.sha256, f"{key} in {store.address} has the digest {found[:16]}, not {file.sha256[:16]}", error=CheckpointError
        )
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return file.size


def _verify(folder: Path, release: Release, trust: Trust) -> None:
    """The signature is of the carried files alone: those of the base were compared with the digests that the signed document names."""
    if release.base is None:
        verify_folder(folder, folder / SIGNATURE, trust)
        return
    carried = folder.with_name(f"{folder.name}.carried")
    try:
        for name in (*release.files, DOCUMENT, SIGNATURE):
            (carried / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / name, carried / name)
        verify_folder(carried, carried / SIGNATURE, trust)
    finally:
        shutil.rmtree(carried, ignore_errors=True)


def _name(waiting: Path, target: Path) -> None:
    try:
        waiting.rename(target)
    except OSError:
        if not target.is_dir():  # else another pod of this node was faster, with the same bytes
            raise
