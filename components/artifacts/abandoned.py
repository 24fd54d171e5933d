"""Files and folders that a killed process left unfinished beside their targets: hidden, named with its writer, removed by the next.

Whether a process of this machine and container is alive, its id tells. Of another one that sees the same path (a network file system, a
volume of two pods) an id tells nothing: what it writes is abandoned when nothing of it changed for a day of the file system's own clock.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from model_core.spec.files import machine_name

_WRITER = r"(?:(?P<machine>[0-9a-f]{12})-)?(?P<process>\d+)"  # `writer_name`; earlier versions wrote the process's id alone
_WRITE = re.compile(rf"\..+\.{_WRITER}\.\d+\.tmp")  # as `model_core.spec.files.atomic_target` names what it writes to
_FOLDER = re.compile(rf"\..+\.{_WRITER}\.partial")
_IDLE_S = 24 * 3600.0


def remove_abandoned_writes(folder: Path) -> None:
    """Remove what processes that are gone had begun to write into `folder`, so that no version of the folder ever holds it.

    What carries the id of this process is another thread's, and stays.
    """
    for path in folder.glob(".*.tmp"):
        match = _WRITE.fullmatch(path.name)
        if match is not None and _is_abandoned(path, match, is_own=False):
            path.unlink(missing_ok=True)


def remove_abandoned_folders(target: Path) -> None:
    """Remove what processes that are gone had begun to make of the folder `target`; our own id was then an earlier process's."""
    for path in target.parent.glob(f".{target.name}.*.partial"):
        match = _FOLDER.fullmatch(path.name)
        if match is not None and _is_abandoned(path, match, is_own=True):
            shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path, writer: re.Match[str], *, is_own: bool) -> bool:
    """is_own: whether what carries the id of this process counts."""
    process = int(writer["process"])
    if writer["machine"] != machine_name():
        return _idle_s(path) > _IDLE_S
    return is_own if process == os.getpid() else not _is_alive(process)


def _idle_s(path: Path) -> float:
    """Since when nothing in `path` changed, by the clock that stamps the files there."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as beside:
            beside.write(b"now")
            beside.flush()
            now_s = os.fstat(beside.fileno()).st_mtime
    except OSError:  # a full or read-only disk: nothing is known
        return 0.0
    return now_s - max(_changes(path), default=now_s)


def _changes(path: Path) -> Iterator[float]:
    for one in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            yield one.lstat().st_mtime


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
