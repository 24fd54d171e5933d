"""Objects in a bucket or in a plain folder: sent whole, checked after sending, resumable.

    store.put(key, path)       idempotent: an object that is there with the same bytes is not sent again
    upload_folder(...)         a folder under a prefix; `_complete.json` is written last and lists every file's SHA-256
    download_folder(...)       the way back; every byte is checked against that list

A prefix without `_complete.json` is an upload that did not finish. The only file that knows minio.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.artifacts.files import dataset_digest, sha256_file
from components.config.records import Progress
from model_core.spec.errors import StorageError

COMPLETE = "_complete.json"
PART_BYTES = 64 * 2**20
SHA_KEY = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What the store knows of an object. sha256 is "" where it was put by somebody else."""

    key: str
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What an upload or download did. `skipped` objects were there already."""

    prefix: str
    objects: int
    moved: int
    skipped: int
    bytes: int


class ObjectStore(Protocol):
    """Keys are relative paths with "/". Every method raises `StorageError` when the store does not do its part."""

    @property
    def address(self) -> str:
        """Where it is, for people; holds no secret."""
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
            _replace(target, lambda beside: shutil.copyfile(path, beside))
        except OSError as error:
            raise StorageError(
                f"cannot write {key} into {self.address}: {error.strerror or error}. Do: free space or fix its permissions, then run again"
            ) from error
        if sha256_file(target) != digest:
            raise StorageError(f"{key} in {self.address} is not what was written; the disk is faulty")
        return True

    def get(self, key: str, path: Path) -> None:
        """Copy a file out."""
        source = self._path(key)
        if not source.is_file():
            raise StorageError(f"{self.address} has no object {key}")
        _replace(path, lambda beside: shutil.copyfile(source, beside))

    def info(self, key: str) -> ObjectInfo | None:
        """Size and digest of the file."""
        path = self._path(key)
        return ObjectInfo(key=key, size=path.stat().st_size, sha256=sha256_file(path)) if path.is_file() else None

    def list(self, prefix: str) -> tuple[ObjectInfo, ...]:
        """Files by key."""
        found = sorted(p for p in self.root.rglob("*") if p.is_file() and not p.name.startswith(".")) if self.root.exists() else []
        keys = [(p.relative_to(self.root).as_posix(), p.stat().st_size) for p in found]
        return tuple(ObjectInfo(key=key, size=size) for key, size in keys if key.startswith(prefix))

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise StorageError(f"the key {key!r} points out of {self.address}")
        return path


class S3Store:
    """Any S3 endpoint, through the minio client. Makes its bucket on first use.

    no_room: asked when it does not answer; says that its disk is full and what to do, "" where that is not so or not known.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        *,
        access_key: str,
        secret_key: str,
        secure: bool = False,
        region: str = "us-east-1",
        no_room: Callable[[], str] = str,
    ) -> None:
        import minio
        import urllib3

        self.endpoint, self.bucket, self._no_room = endpoint, bucket, no_room
        patience = urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=3, read=60), retries=patience, maxsize=4)
        self._client = minio.Minio(endpoint, access_key=access_key, secret_key=secret_key, secure=secure, region=region, http_client=pool)
        self._bucket_seen = False

    @property
    def address(self) -> str:
        """Endpoint and bucket."""
        return f"s3://{self.endpoint}/{self.bucket}"

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""

        def ensure() -> None:
            if not self._client.bucket_exists(self.bucket):
                self._client.make_bucket(self.bucket)

        if not self._bucket_seen:
            self._ask("look for the bucket", ensure)
            self._bucket_seen = True

    def put(self, key: str, path: Path) -> bool:
        """Send a file with its SHA-256 and compare size and ETag of what arrived."""
        self.ensure_bucket()
        digest, there = sha256_file(path), self.info(key)
        if there is not None and there.sha256 == digest and there.size == path.stat().st_size:
            return False
        meta: Any = {SHA_KEY: digest}
        self._ask(f"send {key}", lambda: self._client.fput_object(self.bucket, key, str(path), part_size=PART_BYTES, metadata=meta))
        stat = self._ask(f"check {key}", lambda: self._client.stat_object(self.bucket, key))
        if stat.size != path.stat().st_size or (stat.etag or "").strip('"') != _etag(path):
            raise StorageError(
                f"{key} arrived at {self.address} with other bytes ({stat.size} instead of {path.stat().st_size}). Do: run again"
            )
        return True

    def get(self, key: str, path: Path) -> None:
        """Fetch and compare with the SHA-256 that it was sent with."""
        known = self.info(key)
        if known is None:
            raise StorageError(f"{self.address} has no object {key}")

        def fetch(beside: Path) -> None:
            self._ask(f"fetch {key}", lambda: self._client.fget_object(self.bucket, key, str(beside)))
            if known.sha256 and sha256_file(beside) != known.sha256:
                raise StorageError(
                    f"{key} came from {self.address} with other bytes than were sent. Do: run again; if it stays, upload it again"
                )

        _replace(path, fetch)

    def info(self, key: str) -> ObjectInfo | None:
        """Size and digest from the object's metadata."""
        from minio.error import S3Error

        try:
            stat = self._ask(f"look at {key}", lambda: self._client.stat_object(self.bucket, key))
        except StorageError as error:
            if isinstance(error.__cause__, S3Error) and error.__cause__.code in ("NoSuchKey", "NoSuchBucket", "NoSuchObject"):
                return None
            raise
        meta = {str(k).lower(): str(v) for k, v in (stat.metadata or {}).items()}
        return ObjectInfo(key=key, size=int(stat.size or 0), sha256=meta.get(f"x-amz-meta-{SHA_KEY}", ""))

    def list(self, prefix: str) -> tuple[ObjectInfo, ...]:
        """Objects by key."""
        self.ensure_bucket()
        found = self._ask(f"list {prefix}", lambda: list(self._client.list_objects(self.bucket, prefix=prefix, recursive=True)))
        return tuple(
            sorted((ObjectInfo(key=str(o.object_name), size=int(o.size or 0)) for o in found if not o.is_dir), key=lambda o: o.key)
        )

    def _ask(self, what: str, call: Any) -> Any:
        import urllib3
        from minio.error import MinioException, S3Error

        try:
            return call()
        except S3Error as error:
            raise StorageError(
                f"{self.address} refused to {what}: {error.code} ({error.message}). Do: check the keys and the bucket's rights"
            ) from error
        except (urllib3.exceptions.HTTPError, MinioException, ConnectionError) as error:
            if full := self._no_room():
                raise StorageError(f"the object store {self.address} could not {what}: {full}") from error
            raise StorageError(
                f"the object store {self.address} does not answer: could not {what}. Do: start it again (or look at the network), "
                "then run again; what was sent is kept and not sent twice"
            ) from error


def upload_folder(store: ObjectStore, folder: Path, prefix: str, progress: Progress) -> Transfer:
    """Put every file of `folder` under `prefix`, then `_complete.json`. Calling it again sends only what is missing."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if not files:
        raise StorageError(f"{folder.name} holds no file; there is nothing to upload")
    listing: dict[str, dict[str, Any]] = {}
    moved = size = 0
    for number, path in enumerate(files):
        name = path.relative_to(folder).as_posix()
        try:
            moved += store.put(f"{prefix}/{name}", path)
        except StorageError as error:
            raise StorageError(f"upload of {folder.name} stopped after {number} of {len(files)} files: {error}") from error
        listing[name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        size += path.stat().st_size
        progress.update(number + 1, len(files), f"uploading to {store.address}")
    _put_json(store, f"{prefix}/{COMPLETE}", {"files": listing}, folder)
    return Transfer(prefix=prefix, objects=len(files), moved=moved, skipped=len(files) - moved, bytes=size)


def download_folder(store: ObjectStore, prefix: str, folder: Path, progress: Progress) -> Transfer:
    """Fetch a completed upload into `folder`. Files that are there with the right bytes are kept."""
    listing = read_listing(store, prefix, folder)
    moved = size = 0
    for number, (name, known) in enumerate(sorted(listing.items())):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StorageError(f"{prefix} lists the file {name!r} outside of its folder; it is not fetched")
        if not path.is_file() or sha256_file(path) != known["sha256"]:
            store.get(f"{prefix}/{name}", path)
            moved += 1
            if sha256_file(path) != known["sha256"]:
                path.unlink()
                raise StorageError(
                    f"{prefix}/{name} in {store.address} is damaged: its bytes are not those of the upload. Do: upload it again"
                )
        size += path.stat().st_size
        progress.update(number + 1, len(listing), f"fetching from {store.address}")
    return Transfer(prefix=prefix, objects=len(listing), moved=moved, skipped=len(listing) - moved, bytes=size)


def upload_dataset(store: ObjectStore, dataset: Path, progress: Progress) -> Transfer:
    """Put a LeRobot folder under raw/<digest>: the same data set is stored once, whoever uploads it."""
    return upload_folder(store, dataset, f"raw/{dataset_digest(dataset)[:24]}", progress)


def read_listing(store: ObjectStore, prefix: str, near: Path) -> Mapping[str, Mapping[str, Any]]:
    """The files of a completed upload. Raises `StorageError` when it was never completed."""
    if store.info(f"{prefix}/{COMPLETE}") is None:
        raise StorageError(f"{store.address} has no complete upload under {prefix}; it was never finished. Do: upload again")
    near.parent.mkdir(parents=True, exist_ok=True)
    beside = near.with_name(f".{near.name}.listing")
    try:
        store.get(f"{prefix}/{COMPLETE}", beside)
        return json.loads(beside.read_text(encoding="utf-8"))["files"]
    finally:
        beside.unlink(missing_ok=True)


def _put_json(store: ObjectStore, key: str, document: object, near: Path) -> None:
    beside = near.with_name(f".{near.name}.{os.getpid()}.json")
    try:
        beside.write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
        store.put(key, beside)
    finally:
        beside.unlink(missing_ok=True)


def _replace(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _etag(path: Path) -> str:
    """What S3 answers for this file: the MD5, or the MD5 of the parts' MD5s and their number."""
    parts: list[bytes] = []
    with path.open("rb") as stream:
        while chunk := stream.read(PART_BYTES):
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    if path.stat().st_size <= PART_BYTES:
        return (parts[0] if parts else hashlib.md5(usedforsecurity=False).digest()).hex()
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
