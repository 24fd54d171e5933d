"""Parts of objects: some bytes of an object by HTTP, or of a file, without the rest of it; `S3Store` gives them of a bucket.

Safe to use from several threads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from model_core.spec.errors import StorageError

_TRIES = 3
_TIMEOUT_S = 30.0


class RangeStore(Protocol):
    """Objects whose parts can be read. Raises `StorageError` for an object that is not there, or a store that does not answer."""

    def size(self, key: str) -> int:
        """Bytes of an object."""
        ...

    def read(self, key: str, first: int, count: int) -> bytes:
        """`count` bytes from byte `first` on; fewer is an error."""
        ...


class FolderRanges:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, key: str) -> int:
        """Bytes of a file."""
        try:
            return (self.root / key).stat().st_size
        except OSError as error:
            raise StorageError(f"{self.root} has no {key}: {error}. Fix: `dvc push` it from where it is") from error

    def read(self, key: str, first: int, count: int) -> bytes:
        """Bytes of a file."""
        try:
            with (self.root / key).open("rb") as file:
                content = os.pread(file.fileno(), count, first)
        except OSError as error:
            raise StorageError(f"{self.root} has no {key}: {error}. Fix: `dvc push` it from where it is") from error
        return whole(content, count, f"{self.root}/{key}")


class HttpRanges:
    """Objects of an HTTP server that answers range requests. connections: how many are kept open for reuse."""

    def __init__(self, url: str, *, connections: int = 32) -> None:
        import urllib3

        self.url = url.rstrip("/")
        retries = urllib3.Retry(total=_TRIES, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504))
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=_TIMEOUT_S, retries=retries)

    def size(self, key: str) -> int:
        """By HEAD."""
        answer = self._ask("HEAD", key, {}, (200,))
        return int(answer.headers["Content-Length"])

    def read(self, key: str, first: int, count: int) -> bytes:
        """By one GET with a range."""
        if not count:
            return b""
        answer = self._ask("GET", key, {"Range": f"bytes={first}-{first + count - 1}"}, (206,))
        return whole(answer.data, count, f"{self.url}/{key}")

    def _ask(self, method: str, key: str, headers: dict[str, str], expected: tuple[int, ...]) -> Any:
        import urllib3

        try:
            answer = self._pool.request(method, f"{self.url}/{key}", headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise StorageError(f"{self.url} does not answer: {error}. Fix: start the store, or check the address") from error
        if answer.status not in expected:
            raise StorageError(
                f"{self.url}/{key}: expected status {expected[0]}, got {answer.status}. Fix: push the object, or use a server that answers "
                "range requests"
            )
        return answer


def whole(content: bytes, count: int, where: str) -> bytes:
    """`content`, where it has as many bytes as were asked for."""
    if len(content) != count:
        raise StorageError(f"{where}: expected {count} bytes, got {len(content)}; the object is cut off. Fix: push it again")
    return content
