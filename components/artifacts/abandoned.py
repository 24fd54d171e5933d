"""Files and folders that a killed process left unfinished beside their targets: hidden, named with its process id, removed by the next."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_WRITE = re.compile(r"\..+\.(?P<process>\d+)\.\d+\.tmp")  # as `model_core.spec.files.atomic_target` names what it writes to


def remove_abandoned_writes(folder: Path) -> None:
    """Remove what processes that are gone had begun to write into `folder`, so that no version of the folder ever holds it.

    What carries the id of this process is another thread's, and stays.
    """
    for path in folder.glob(".*.tmp"):
        match = _WRITE.fullmatch(path.name)
        if match is not None and not _is_alive(int(match["process"])):
            path.unlink(missing_ok=True)


def remove_abandoned_folders(target: Path) -> None:
    """Remove what processes that are gone had begun to make of the folder `target`; our own id was then an earlier process's."""
    for path in target.parent.glob(f".{target.name}.*.partial"):
        process = path.name.removesuffix(".partial").rpartition(".")[2]
        if process.isdigit() and (int(process) == os.getpid() or not _is_alive(int(process))):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
