"""Files of releases under their digests: fetched once, used by both slots. A name without ".part" has been hashed and found right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from model_core.adoption.document import digest_of_file
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.problems import UpdateRefused
from serving.fleet.intake.update_metadata import Target

_PART = ".part"


class FileStore:
    """A folder of files. bytes_per_s: limit of downloads, 0 for none. spare_bytes: what stays free on its disk."""

    def __init__(self, folder: Path, *, bytes_per_s: float, spare_bytes: int, clock: Callable[[], float], sleep: Callable[[float], None]):
        self._folder, self._bytes_per_s, self._spare_bytes = folder, bytes_per_s, spare_bytes
        self._clock, self._sleep = clock, sleep

    def path(self, sha256: str) -> Path:
        """Where a file is, or will be."""
        return self._folder / sha256

    def has(self, target: Target) -> bool:
        """The whole file is there; its bytes are looked at when a slot is verified."""
        path = self.path(target.sha256)
        return path.is_file() and path.stat().st_size == target.size

    def check_room(self, targets: Collection[Target]) -> None:
        """Raises `UpdateRefused` NO_SPACE where what is missing of them does not fit."""
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = {target.sha256: target.size - self._got(target) for target in targets if not self.has(target)}
        needed, free = sum(missing.values()), shutil.disk_usage(self._folder).free
        if needed + self._spare_bytes > free:
            raise UpdateRefused(
                "NO_SPACE",
                f"{needed} bytes are missing, and {self._folder} has {free} free, of which {self._spare_bytes} stay free. Fix: make room",
            )

    def fetch(self, target: Target, client: HttpClient, until_s: float) -> bool:
        """Go on with a download; False where `until_s` (of the clock) came before its end. Raises `UpdateRefused`.

        What came stays, and the next call goes on behind it. A whole file of other bytes is thrown away.
        """
        if self.has(target):
            return True
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._part(target)
        with part.open("ab") as file:
            if file.tell() > target.size:
                file.truncate(0)
            if file.tell() < target.size and not self._append(file, target, client, until_s):
                return False
            file.flush()
            os.fsync(file.fileno())
        if digest_of_file(part) != target.sha256:
            part.unlink()
            raise UpdateRefused("DIGEST", f"{target.url} is not what the metadata describe; it is fetched again")
        part.chmod(0o444)
        os.replace(part, self.path(target.sha256))
        return True

    def keep_only(self, wanted: Collection[str]) -> None:
        """Remove every file, whole or not, that is none of these digests."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.removesuffix(_PART) not in wanted:
                    path.unlink(missing_ok=True)

    def discard(self, sha256: str) -> None:
        """A file that was found wrong after all, on this disk: it is fetched again."""
        self.path(sha256).unlink(missing_ok=True)

    def _append(self, file: BinaryIO, target: Target, client: HttpClient, until_s: float) -> bool:
        start = file.tell()
        began = self._clock()
        for chunk in client.rest(target.url, start, target.size):
            file.write(chunk)
            got = file.tell() - start
            if self._bytes_per_s:
                self._sleep(max(began + got / self._bytes_per_s - self._clock(), 0.0))
            if self._clock() >= until_s and file.tell() < target.size:
                return False
        if file.tell() < target.size:
            raise UpdateRefused("UNREACHABLE", f"{target.url} ended after {file.tell()} of {target.size} bytes; it is gone on with")
        return True

    def _got(self, target: Target) -> int:
        part = self._part(target)
        return part.stat().st_size if part.is_file() else 0

    def _part(self, target: Target) -> Path:
        return self._folder / f"{target.sha256}{_PART}"
