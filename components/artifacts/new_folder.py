"""A folder that appears whole or not at all, also when the process that makes it is killed or the disk is full."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from model_core.spec.errors import DatasetError


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` to write into, which becomes `target` by one rename when the block succeeds; else it is removed.

    What a killed process left is removed by the next one that makes the same folder. Raises `DatasetError` where `target` is there
    already: a finished folder is never written into.
    """
    target = target.resolve()
    _check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    beside = target.parent / f".{target.name}.{os.getpid()}.partial"
    beside.mkdir()
    try:
        yield beside
        _check_free(target)
        os.replace(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_free(target: Path) -> None:
    if target.exists():
        raise DatasetError(f"{target} is there already; a finished folder is never written into. Fix: name a new folder")


def _remove_abandoned(target: Path) -> None:
    for path in target.parent.glob(f".{target.name}.*.partial"):
        process = path.name.removesuffix(".partial").rpartition(".")[2]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # of an earlier process of the same number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
