"""A folder that appears whole or not at all, also when the process that makes it is killed or the disk is full."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from components.artifacts.abandoned import remove_abandoned_folders
from model_core.spec.errors import DatasetError
from model_core.spec.files import writer_name


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` to write into, which becomes `target` by one rename when the block succeeds; else it is removed.

    What a killed process left is removed by the next one that makes the same folder. Raises `DatasetError` where `target` is there
    already: a finished folder is never written into.
    """
    target = target.resolve()
    _check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned_folders(target)
    beside = target.parent / f".{target.name}.{writer_name()}.partial"
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
