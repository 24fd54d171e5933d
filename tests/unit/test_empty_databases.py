"""A new home begins with a copy of what set-up kept; what is there stays, and where nothing is kept nothing happens."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from components.artifacts.empty_databases import copy_database, keep_database, kept_database

LIBRARY = "filelock"  # any that is installed: its version is part of the name


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))


def make_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")  # as Prefect does: tables may still be in the log beside the file
        database.execute("CREATE TABLE runs (name TEXT)")


def tables(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT name FROM sqlite_master").fetchall()


def test_what_was_kept_once_is_copied_whole(tmp_path: Path) -> None:
    kept = keep_database(LIBRARY, make_tables)
    assert kept == kept_database(LIBRARY)
    assert kept.name == f"filelock-{version(LIBRARY)}.db"
    assert keep_database(LIBRARY, lambda path: pytest.fail("it was made again")) == kept
    copy_database(LIBRARY, tmp_path / "home" / "runs.db")
    assert tables(tmp_path / "home" / "runs.db") == [("runs",)]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["runs.db"]
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("there", ["runs.db", "runs.db-wal"])
def test_what_is_there_stays(tmp_path: Path, there: str) -> None:
    keep_database(LIBRARY, make_tables)
    (tmp_path / there).write_bytes(b"of a run")
    copy_database(LIBRARY, tmp_path / "runs.db")
    assert (tmp_path / there).read_bytes() == b"of a run"
    assert (tmp_path / "runs.db").exists() == (there == "runs.db")


def test_where_nothing_is_kept_the_library_makes_its_own(tmp_path: Path) -> None:
    copy_database(LIBRARY, tmp_path / "home" / "runs.db")
    assert not (tmp_path / "home").exists()


def test_tables_that_could_not_be_made_are_not_kept() -> None:
    def breaks(path: Path) -> None:
        make_tables(path)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        keep_database(LIBRARY, breaks)
    assert not kept_database(LIBRARY).exists()
