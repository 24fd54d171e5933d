"""The one file access of the spec: write a file whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Generator
from pathlib import Path


def atomic_write(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write a file so that a reader, also one after a kill, sees the old content or the new, never a part; text is UTF-8.

    Makes the folder if it is missing. durable: the content is on the disk before the name points to it, so that it survives a
    power cut; False where a lost file is only made again.
    """
    with atomic_target(path, durable=durable) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_target(path: Path, *, durable: bool = True) -> Generator[Path, None, None]:
    """`atomic_write` for what a library writes: a path beside `path` to write to, which becomes `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{writer_name()}.{threading.get_ident()}.tmp")
    try:
        yield beside
        if durable:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def takes_nothing_more(folder: Path) -> bool:
    """Whether the file system of `folder` has less than 1 MiB of room, or no inode for another file."""
    found = os.statvfs(_there(folder))
    return found.f_bavail * found.f_frsize < 2**20 or lacks_inodes(folder)


def lacks_inodes(path: Path) -> bool:
    """Whether the file system of `path` has no inode for another file. Some count none: btrfs, many network file systems."""
    try:
        found = os.statvfs(_there(path))
    except OSError:
        return False
    return found.f_files > 0 and found.f_favail == 0


def why_full(path: Path, where: str = "") -> str:
    """What is full where a write to `path` found no space, and what to do: "the disk under /home is full; free some space".

    where: stands after what is full, such as " while writing FILE".
    """
    folder = _there(path)
    if lacks_inodes(folder):
        return (
            f"the disk under {folder} has no inode for another file{where} (df -i), whatever its free bytes; "
            "delete folders of many small files on it, or use a file system with more inodes"
        )
    return f"the disk under {folder} is full{where}; free some space"


def _there(path: Path) -> Path:
    """The nearest folder that is there."""
    return next((one for one in (path, *path.resolve().parents) if one.is_dir()), Path("/"))


def writer_name() -> str:
    """This process among all that may see the same files, on other machines and in other containers too: "<machine>-<process id>"."""
    return f"{machine_name()}-{os.getpid()}"


@functools.cache
def machine_name() -> str:
    """Where this process's id means this process: a start of a computer, and the container on it. 12 hex digits."""
    import hashlib

    known = [os.uname().nodename]
    with contextlib.suppress(OSError):  # not Linux, or no /proc
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        known.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]
