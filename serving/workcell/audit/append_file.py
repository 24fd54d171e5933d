"""What an audit needs of a disk, and one open file that survives a full one: what was not taken is kept and offered again."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from model_core.spec.files import lacks_inodes

_TELLING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the folder is read-only",
    errno.EACCES: "the folder may not be written to",
    errno.EPERM: "the folder may not be written to",
}


def in_words(error: OSError, folder: Path) -> str:
    """An error of the disk of `folder` for an operator."""
    if error.errno == errno.ENOSPC and lacks_inodes(folder):
        return "the disk has no inode for another file (df -i); delete folders of many small files on it"
    return _TELLING.get(error.errno or 0, error.strerror or type(error).__name__)


class Disk:
    """The calls that may fail or hang, in one place."""

    def open_new(self, path: Path) -> int:
        """Make a file that was not there; returns its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write a part; returns how many bytes were taken."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Return when the bytes are on the disk."""
        os.fsync(descriptor)

    def free_bytes(self, folder: Path) -> int:
        """Room that we may use."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def probe(self, folder: Path) -> None:
        """Raise OSError unless a file can be made, filled, flushed and removed here."""
        path = folder / ".probe"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        descriptor = self.open_new(path)
        try:
            if self.write(descriptor, memoryview(b"\0" * 4096)) != 4096:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.sync(descriptor)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()


class AppendedFile:
    """An output stream for the MCAP writer that never raises: `write` keeps, `push` hands over to the disk."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self._descriptor = disk.open_new(path)
        self._waiting = bytearray()
        self._taken = 0
        self._unsynced = False

    def write(self, data: bytes) -> int:
        """Keep `data` for the next `push`."""
        self._waiting += data
        return len(data)

    def tell(self) -> int:
        """Where the next byte will stand."""
        return self._taken + len(self._waiting)

    def flush(self) -> None:
        """Nothing: `push` does it."""

    def push(self, *, sync: bool = False) -> None:
        """Hand over what waits. Raises OSError; what was taken until then is not offered again."""
        while self._waiting:
            with memoryview(self._waiting) as view:  # released even when the disk raises: the buffer must stay growable
                count = self._disk.write(self._descriptor, view)
            del self._waiting[:count]
            self._taken += count
            self._unsynced = True
        if sync and self._unsynced:
            self._disk.sync(self._descriptor)
            self._unsynced = False

    def close(self) -> None:
        """Close the file; what was not written is lost."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
