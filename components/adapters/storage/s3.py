"""Objects in a bucket of any S3 endpoint, through the minio client: its only importer but for the embedded store's own probe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.adapters.storage.object_store import ObjectInfo
from components.adapters.storage.ranges import whole
from components.artifacts.files import sha256_file
from model_core.spec.errors import StorageError
from model_core.spec.files import atomic_target

PART_BYTES = 64 * 2**20
SHA_KEY = "sha256"
_BLOCK_BYTES = 2**20
_SILENT_S = 60.0
_OTHER_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidRegion", "PermanentRedirect"}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Address:
    """Where an S3 endpoint answers ("host:port") and with which keys. Never logged. region: of its buckets; "": the endpoint is asked."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    secure: bool = False
    region: str = ""


class S3Store:
    """One bucket of an S3 endpoint, through the minio client. Creates the bucket on first use.

    no_room: called when the endpoint fails; a sentence when its disk is full, with what to do, "" where that is not so or not known.
    """

    def __init__(self, address: S3Address, bucket: str, *, no_room: Callable[[], str] = str) -> None:
        import minio
        import urllib3

        self.endpoint, self.bucket, self._no_room = address.endpoint, bucket, no_room
        retries = urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
        self._client = minio.Minio(
            address.endpoint,
            access_key=address.access_key,
            secret_key=address.secret_key,
            secure=address.secure,
            region=address.region or None,
            http_client=connection_pools(retries),
        )
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
        """Send a file with its SHA-256 and compare what arrived: by its MD5 where that is its ETag, else by reading it back."""
        self.ensure_bucket()
        digest, there = sha256_file(path), self.info(key)
        if there is not None and there.sha256 == digest and there.size == path.stat().st_size:
            return False
        meta: Any = {SHA_KEY: digest}
        self._ask(f"send {key}", lambda: self._client.fput_object(self.bucket, key, str(path), part_size=PART_BYTES, metadata=meta))
        stat = self._ask(f"check {key}", lambda: self._client.stat_object(self.bucket, key))
        if (stat.etag or "").strip('"') == _etag(path):
            return True
        arrived = self._ask(f"read {key} back", lambda: self._digest_of(key))  # an encrypted object's ETag is no MD5
        if arrived != digest:
            self._ask(f"remove {key}", lambda: self._client.remove_object(self.bucket, key))  # its metadata would say that it is whole
            raise StorageError(
                f"{key} arrived at {self.address} with other bytes: expected SHA-256 {digest[:16]} of {path.stat().st_size} bytes, got "
                f"{arrived[:16]} of {stat.size}; it was removed there. Fix: run again; if it stays, check the store's disks"
            )
        return True

    def get(self, key: str, path: Path) -> None:
        """Fetch and compare with the SHA-256 that it was sent with."""
        known = self.info(key)
        if known is None:
            raise StorageError(f"{self.address} has no object {key}")

        with atomic_target(path, durable=False) as beside:
            self._ask(f"fetch {key}", lambda: self._client.fget_object(self.bucket, key, str(beside)))
            if known.sha256 and sha256_file(beside) != known.sha256:
                raise StorageError(
                    f"{key} came from {self.address} with other bytes than were sent. Fix: run again; if it stays, upload it again"
                )

    def size(self, key: str) -> int:
        """Bytes of an object."""
        return int(self._ask(f"look at {key}", lambda: self._client.stat_object(self.bucket, key)).size)

    def read(self, key: str, first: int, count: int) -> bytes:
        """`count` bytes of an object from byte `first` on, by one request."""

        def ask() -> bytes:
            answer = self._client.get_object(self.bucket, key, offset=first, length=count)
            try:
                return answer.read()
            finally:
                answer.close()
                answer.release_conn()

        return whole(self._ask(f"read {count} bytes of {key}", ask), count, f"{self.address}/{key}") if count else b""

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

    def _digest_of(self, key: str) -> str:
        found = hashlib.sha256()
        answer = self._client.get_object(self.bucket, key)
        try:
            for block in answer.stream(_BLOCK_BYTES):
                found.update(block)
        finally:
            answer.close()
            answer.release_conn()
        return found.hexdigest()

    def _ask(self, what: str, call: Any) -> Any:
        import urllib3
        from minio.error import MinioException, S3Error

        try:
            return call()
        except S3Error as error:
            raise StorageError(f"{self.address} refused to {what}: {error.code} ({error.message}). Fix: {_cure(error)}") from error
        except (urllib3.exceptions.HTTPError, MinioException, ConnectionError) as error:
            if full := self._no_room():
                raise StorageError(f"the object store {self.address} could not {what}: {full}") from error
            raise StorageError(
                f"the object store {self.address} does not answer: could not {what}. Fix: start it again (or check the network), "
                "then run again; what was sent is kept and not sent twice"
            ) from error


def connection_pools(retries: Any, connect_s: float = 3.0) -> Any:
    """Connections that are given up after `connect_s` while they are made, and after 60 s while a server reads or writes nothing.

    urllib3 gives the first request of a connection the limit of making it for each send; a busy server reads nothing for longer.
    """
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Patient(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(_SILENT_S)

    class PatientTls(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(_SILENT_S)

    pools = urllib3.PoolManager(timeout=urllib3.Timeout(connect=connect_s, read=_SILENT_S), retries=retries, maxsize=4)
    plain = type("PatientPool", (HTTPConnectionPool,), {"ConnectionCls": Patient})
    pools.pool_classes_by_scheme = {"http": plain, "https": type("PatientTlsPool", (HTTPSConnectionPool,), {"ConnectionCls": PatientTls})}
    return pools


def _cure(error: Any) -> str:
    """What a person does about a refusal of S3. An answer to HEAD has no body, so a wrong region may be seen in its headers only."""
    told = (error.response.headers if error.response is not None else {}).get("x-amz-bucket-region", "")
    if told or error.code in _OTHER_REGION:
        return f"set ACTWRIGHT_S3_REGION to the region of the bucket{f', {told}' if told else ''}"
    return "check the keys, the bucket's rights and its region (ACTWRIGHT_S3_REGION)"


def _etag(path: Path) -> str:
    """What a store that does not encrypt answers for this file: the MD5, or the MD5 of the parts' MD5s and their number."""
    parts: list[bytes] = []
    with path.open("rb") as stream:
        while chunk := stream.read(PART_BYTES):
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    if path.stat().st_size <= PART_BYTES:
        return (parts[0] if parts else hashlib.md5(usedforsecurity=False).digest()).hex()
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
