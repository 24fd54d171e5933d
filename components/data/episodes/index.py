"""The table of all episodes: a SQLite file that is made again from the places whenever it is missing. No image is decoded for it.

A set is read again when one of its files has changed, recordings and audits file by file. What a person stated
(`components.data.revisions`) stands in a table of its own beside what was recorded, and counts first.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.data.episodes.place import Kind, Place
from components.data.episodes.query import COLUMNS, EXACT, MOST_ROWS, EpisodeQuery, condition, order
from components.data.episodes.row import EpisodeRow
from model_core.spec.errors import DatasetError

_VERSION = 1
_EPISODE = [item.name for item in fields(EpisodeRow)]
_SCHEMA = f"""
CREATE TABLE places (key TEXT PRIMARY KEY, path TEXT, kind TEXT, name TEXT, state TEXT DEFAULT '', problem TEXT DEFAULT '');
CREATE TABLE files (place TEXT, file TEXT, state TEXT, problem TEXT DEFAULT '', PRIMARY KEY (place, file));
CREATE TABLE episodes (place TEXT, {", ".join(_EPISODE)}, findings INTEGER, said TEXT DEFAULT '[]');
CREATE INDEX episodes_place ON episodes (place, episode_id);
CREATE TABLE revised (place TEXT, episode_id TEXT, outcome TEXT, instruction TEXT, length INTEGER, included INTEGER, causes TEXT,
                      revisions INTEGER, PRIMARY KEY (place, episode_id));
CREATE TABLE revised_state (place TEXT PRIMARY KEY, head TEXT);
"""
_JOINED = """FROM episodes e JOIN places p ON p.key = e.place
             LEFT JOIN revised r ON r.place = e.place AND r.episode_id = e.episode_id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedEpisode:
    """A row of the table with its place. revised: the fields that a person stated, {} where none.

    state: of the set when it was read. findings: "severity rule" of the inspection; None where it was not inspected.
    """

    place: Place
    state: str
    row: EpisodeRow
    findings: tuple[str, ...] | None
    revised: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePage:
    """total: of all pages."""

    total: int
    episodes: tuple[IndexedEpisode, ...]


class EpisodeIndex:
    """The table in one file. Each call opens it, so it may be used from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as table:
            is_ours = table.execute("PRAGMA user_version").fetchone()[0] == _VERSION
        if not is_ours:
            self._make()

    def _make(self) -> None:
        with self._changing() as table:
            if table.execute("PRAGMA user_version").fetchone()[0] != _VERSION:  # no other process was faster
                for (name,) in table.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall():
                    table.execute(f"DROP TABLE {name}")
                for statement in _SCHEMA.split(";"):
                    table.execute(statement)
                table.execute(f"PRAGMA user_version = {_VERSION}")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes count together, or not at all. It waits for other writers before it reads: one that begins by reading
        and finds the table changed when it writes is refused at once, however long it would wait."""
        with self._open("BEGIN IMMEDIATE") as table:
            yield table

    @contextlib.contextmanager
    def _open(self, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the table."""
        table = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            table.execute("PRAGMA journal_mode=WAL")
            table.execute("PRAGMA synchronous=NORMAL")
            table.execute(begin)
            yield table
            table.execute("COMMIT")
        finally:
            table.close()

    def places(self) -> list[tuple[Place, int, str]]:
        """Every place with the number of its episodes and what is wrong with it ("")."""
        count = "(SELECT COUNT(*) FROM episodes e WHERE e.place = p.key)"
        asked = f"SELECT p.path, p.kind, p.name, p.problem, {count} FROM places p ORDER BY p.name"
        with self._open() as table:
            found = table.execute(asked).fetchall()
        return [(_place(path, kind, name), count, problem) for path, kind, name, problem, count in found]

    def page(self, asked: EpisodeQuery) -> EpisodePage:
        """The episodes that a person asked for."""
        where, values = condition(asked)
        said = f"SELECT {_SHOWN} {_JOINED} WHERE {where} ORDER BY {order(asked)}"
        with self._open() as table:
            total = int(table.execute(f"SELECT COUNT(*) {_JOINED} WHERE {where}", values).fetchone()[0])
            rows = table.execute(f"{said} LIMIT ? OFFSET ?", [*values, asked.limit, asked.offset]).fetchall()
        return EpisodePage(total=total, episodes=tuple(_episode(row) for row in rows))

    def every(self, asked: EpisodeQuery) -> list[IndexedEpisode]:
        """All episodes that are asked for, whatever the page."""
        made: list[IndexedEpisode] = []
        while True:
            page = self.page(replace(asked, offset=len(made), limit=MOST_ROWS))
            made += page.episodes
            if len(made) >= page.total or not page.episodes:
                return made

    def find(self, place: str, episode_id: str) -> IndexedEpisode:
        """One episode. Raises `DatasetError` where there is none."""
        said = f"SELECT {_SHOWN} {_JOINED} WHERE e.place = ? AND e.episode_id = ?"
        with self._open() as table:
            row = table.execute(said, [place, episode_id]).fetchone()
        if row is None:
            raise DatasetError(f"place {place!r} has no episode {episode_id!r} in the table. Fix: `actwright episodes list` lists them")
        return _episode(row)

    def values(self, asked: EpisodeQuery) -> dict[str, list[tuple[str, int]]]:
        """Of each column that is asked for by its whole value, the values with their numbers of episodes, most frequent first."""
        where, values = condition(asked)
        with self._open() as table:
            return {
                name: table.execute(
                    f"SELECT {COLUMNS[name]}, COUNT(*) {_JOINED} WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 200", values
                ).fetchall()
                for name in EXACT
            }

    def known_state(self, place: Place) -> str:
        """The state of a set when it was read; "" where it was not."""
        with self._open() as table:
            found = table.execute("SELECT state FROM places WHERE key = ?", [place.key]).fetchone()
        return "" if found is None else str(found[0])

    def known_files(self, place: Place) -> dict[str, str]:
        """File -> its state when it was read."""
        with self._open() as table:
            return dict(table.execute("SELECT file, state FROM files WHERE place = ?", [place.key]).fetchall())

    def put_set(self, place: Place, state: str, rows: Iterable[EpisodeRow], problem: str = "") -> None:
        """The episodes of a set, in place of those that the table has of it. problem: why it could not be read; its rows are kept then."""
        with self._changing() as table:
            if not problem:
                table.execute("DELETE FROM episodes WHERE place = ?", [place.key])
                _insert(table, place, rows)
            table.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?, ?)", [*_named(place), state, problem])

    def put_files(self, place: Place, read: Mapping[str, tuple[str, EpisodeRow | None, str]], gone: Sequence[str]) -> None:
        """New or changed files, file -> (state, row, problem), and the names of those that are gone."""
        with self._changing() as table:
            for file in (*read, *gone):
                table.execute("DELETE FROM episodes WHERE place = ? AND file = ?", [place.key, file])
                table.execute("DELETE FROM files WHERE place = ? AND file = ?", [place.key, file])
            _insert(table, place, [row for _, row, _ in read.values() if row is not None])
            table.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?)", [(place.key, f, state, said) for f, (state, _, said) in read.items()]
            )
            unread = table.execute("SELECT file, problem FROM files WHERE place = ? AND problem != ''", [place.key]).fetchall()
            said = f"{len(unread)} files cannot be read; the first, {unread[0][0]}: {unread[0][1]}" if unread else ""
            table.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, '', ?)", [*_named(place), said])

    def put_findings(self, place: Place, findings: Mapping[str, Sequence[str]]) -> None:
        """What the inspection said: episode id -> "severity rule"; every other episode of the place has none."""
        with self._changing() as table:
            table.execute("UPDATE episodes SET findings = 0, said = '[]' WHERE place = ?", [place.key])
            rows = [(len(said), json.dumps(list(said)), place.key, episode) for episode, said in findings.items()]
            table.executemany("UPDATE episodes SET findings = ?, said = ? WHERE place = ? AND episode_id = ?", rows)

    def revised_head(self, place: Place) -> str:
        """Up to which revision `put_revised` was told; "" for none."""
        with self._open() as table:
            found = table.execute("SELECT head FROM revised_state WHERE place = ?", [place.key]).fetchone()
        return "" if found is None else str(found[0])

    def put_revised(self, place: Place, head: str, stated: Iterable[tuple[Any, ...]]) -> None:
        """What people stated of a place: (episode id, outcome, instruction, length, included, causes, number of revisions) of each."""
        with self._changing() as table:
            table.execute("DELETE FROM revised WHERE place = ?", [place.key])
            table.executemany("INSERT INTO revised VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [(place.key, *one) for one in stated])
            table.execute("INSERT OR REPLACE INTO revised_state VALUES (?, ?)", [place.key, head])

    def forget(self, place: Place) -> None:
        """Take a place out of the table; nothing else happens to it."""
        with self._changing() as table:
            for name, column in (
                ("episodes", "place"),
                ("files", "place"),
                ("revised", "place"),
                ("revised_state", "place"),
                ("places", "key"),
            ):
                table.execute(f"DELETE FROM {name} WHERE {column} = ?", [place.key])


_REVISED_FIELDS = ("outcome", "instruction", "length", "included", "causes", "revisions")
_SHOWN = ", ".join(
    ("p.path", "p.kind", "p.name", "p.state", "e.findings", "e.said", *(f"r.{n}" for n in _REVISED_FIELDS), *(f"e.{n}" for n in _EPISODE))
)


@lru_cache(maxsize=1024)
def _place(path: str, kind: Kind, name: str) -> Place:
    """One object for all episodes of a place."""
    return Place(path=Path(path), kind=kind, name=name)


def _named(place: Place) -> list[str]:
    return [place.key, str(place.path), place.kind, place.name]


def _insert(table: sqlite3.Connection, place: Place, rows: Iterable[EpisodeRow]) -> None:
    marks = ", ".join("?" * (len(_EPISODE) + 1))
    table.executemany(f"INSERT INTO episodes (place, {', '.join(_EPISODE)}) VALUES ({marks})", [(place.key, *astuple(row)) for row in rows])


def _episode(row: Sequence[Any]) -> IndexedEpisode:
    (path, kind, name, state, count, said), rest = row[:6], row[6:]
    stated = dict(zip(_REVISED_FIELDS, rest, strict=False))
    return IndexedEpisode(
        place=_place(path, kind, name),
        state=state,
        row=EpisodeRow(**dict(zip(_EPISODE, rest[len(_REVISED_FIELDS) :], strict=True))),
        findings=None if count is None else tuple(json.loads(said)),
        revised={name: value for name, value in stated.items() if value is not None},
    )
