"""Databases of MLflow and Prefect with their tables and nothing in them: made at set-up, and copied where a new home needs one.

The libraries go through all their migrations, from the first version on, to make them. What is kept is of one version of the
library; where there is none, the library makes its tables as it does without us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from model_core.spec.files import atomic_target


def kept_database(library: str) -> Path:
    """Where the empty database of the installed version of `library` is kept: in the environment, as the library itself."""
    return Path(sys.prefix, "share", "actwright", f"{library}-{version(library)}.db")


def keep_database(library: str, make: Callable[[Path], None]) -> Path:
    """Have `make(path)` make an SQLite database and keep it; one that is kept already stays. Returns where."""
    kept = kept_database(library)
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder, atomic_target(kept) as beside:
            made = Path(folder, "made.db")
            make(made)
            with contextlib.closing(sqlite3.connect(made)) as database:
                database.execute("VACUUM INTO ?", (str(beside),))  # one file, whatever the library left in a log beside its own
    return kept


def copy_database(library: str, target: Path) -> None:
    """Put the kept database of `library` at `target`; does nothing where none is kept, or where `target` or a log of it is."""
    kept = kept_database(library)
    if not kept.is_file() or target.exists() or target.with_name(f"{target.name}-wal").exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        copy = Path(folder, target.name)
        shutil.copyfile(kept, copy)
        with contextlib.suppress(FileExistsError):  # another process of this home was first, and its database may be in use
            os.link(copy, target)
