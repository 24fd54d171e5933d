"""The champions of every model: rows that are only ever added, numbered from 1 for each model without a gap.

(model, number) is the primary key, so of any number of machines that add the same number at once the database lets exactly one, whatever
its isolation level; the others are told. Who is champion is the row with the greatest number: at every moment exactly one row.

Any database of SQLAlchemy will do: a SQLite file for the processes of one machine, PostgreSQL for several. The same statements run on
both, over drivers that wait and over those that do not (asyncpg, which "postgresql://" means here).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from components.config.judging.champion_entry import ChampionEntry
from model_core.spec.errors import TrackingError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine

_T = TypeVar("_T")
CHAMPIONS, IDENTITY = "actwright_champions", "actwright_champion_table"
_WAIT_S = 30.0  # for another writer of a SQLite file
_TRIES = 5  # at making the tables, which several may do at once


class ChampionTable:
    """The table at `url`; made when it is first asked. Every method raises `TrackingError` when the database does not answer."""

    def __init__(self, url: str) -> None:
        from sqlalchemy import make_url

        parsed = make_url(url)
        self._url = parsed.set(drivername="postgresql+asyncpg") if parsed.drivername in ("postgresql", "postgres") else parsed
        self._tables = _tables()
        self._id = ""
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None

    @property
    def place(self) -> str:
        """Where it is, without the password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def table_id(self) -> str:
        """What tells this table from every other one: random, drawn when it was made."""
        if not self._id:
            self._make()
        return self._id

    def models(self) -> list[str]:
        """The models that ever had a champion, by name."""
        from sqlalchemy import select

        rows = self._tables.tables[CHAMPIONS]
        return self._done(lambda db: list(db.execute(select(rows.c.model).distinct().order_by(rows.c.model)).scalars()))

    def newest(self, model: str) -> ChampionEntry | None:
        """The entry that says who is champion now; None before the first."""
        found = self._entries(model, newest_only=True)
        return found[0] if found else None

    def history(self, model: str) -> list[ChampionEntry]:
        """Every entry of a model, oldest first."""
        return self._entries(model)

    def add(self, entry: ChampionEntry) -> ChampionEntry | None:
        """Add `entry` as it is, if its number is free: the compare-and-set. Returns it as recorded, None when the number is taken.

        Its number is the newest one that the caller saw, plus 1: so the entry stands only where nothing happened in between.
        """
        from sqlalchemy import insert
        from sqlalchemy.exc import IntegrityError

        taken = replace(entry, recorded_at=datetime.now(UTC).isoformat(timespec="milliseconds"))
        values = {name: getattr(taken, name) for name in ChampionEntry.__dataclass_fields__}
        try:
            self._done(lambda db: db.execute(insert(self._tables.tables[CHAMPIONS]).values(values)))
        except IntegrityError:
            return None
        return taken

    def _entries(self, model: str, *, newest_only: bool = False) -> list[ChampionEntry]:
        from sqlalchemy import select

        rows = self._tables.tables[CHAMPIONS]
        wanted = select(rows).where(rows.c.model == model)
        wanted = wanted.order_by(rows.c.number.desc()).limit(1) if newest_only else wanted.order_by(rows.c.number)
        return [ChampionEntry(**found) for found in self._done(lambda db: list(db.execute(wanted).mappings()))]

    def _done(self, work: Callable[[Connection], _T]) -> _T:
        """`work` in one transaction. A constraint that refuses a row is the caller's matter; everything else is a `TrackingError`."""
        if not self._id:
            self._make()
        return self._transaction(work)

    def _make(self) -> None:
        """The tables and the identity, where they are missing. Several machines may do so at once: the one that fails asks again."""
        from sqlalchemy.exc import IntegrityError

        def make(db: Connection) -> None:
            self._tables.create_all(db)

        for attempt in range(1, _TRIES + 1):
            try:
                self._transaction(make)
                self._id = self._identity()
                return
            except (IntegrityError, TrackingError):
                if attempt == _TRIES:
                    raise

    def _identity(self) -> str:
        from sqlalchemy import insert, select
        from sqlalchemy.exc import IntegrityError

        table = self._tables.tables[IDENTITY]

        def read(db: Connection) -> str | None:
            return db.execute(select(table.c.table_id)).scalar()

        found = self._transaction(read)
        if found is None:
            with contextlib.suppress(IntegrityError):  # another process was faster
                self._transaction(lambda db: db.execute(insert(table).values(only=1, table_id=secrets.token_hex(8))))
            found = self._transaction(read)
        return str(found)

    def _transaction(self, work: Callable[[Connection], _T]) -> _T:
        from sqlalchemy.exc import IntegrityError

        try:
            if self._url.get_dialect().is_async:  # in a thread, for this one may have an event loop of its own
                with ThreadPoolExecutor(1) as apart:
                    return apart.submit(lambda: asyncio.run(self._waited(work))).result()
            self._engine = self._engine or _engine(self._url)
            with self._engine.begin() as db:
                return work(db)
        except IntegrityError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise TrackingError(
                f"the table of champions at {self.place} did not answer: {reason}. Fix: start its database, or correct "
                "ACTWRIGHT_CHAMPIONS_URL; nothing is lost, run again"
            ) from error

    async def _waited(self, work: Callable[[Connection], _T]) -> _T:
        from sqlalchemy import NullPool
        from sqlalchemy.ext.asyncio import create_async_engine

        self._async_engine = self._async_engine or create_async_engine(self._url, poolclass=NullPool)
        async with self._async_engine.begin() as db:
            return await db.run_sync(work)


def _tables() -> MetaData:
    from sqlalchemy import Column, Integer, MetaData, String, Table, Text

    tables = MetaData()
    Table(
        CHAMPIONS,
        tables,
        Column("model", String(256), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("version", Integer),
        Column("replaced", Integer),
        Column("checkpoint_digest", String(64), nullable=False),
        Column("how", String(16), nullable=False),
        Column("reason", Text, nullable=False),
        Column("recorded_at", String(32), nullable=False),
    )
    Table(
        IDENTITY,
        tables,
        Column("only", Integer, primary_key=True, autoincrement=False),
        Column("table_id", String(32), nullable=False),
    )
    return tables


def _engine(url: URL) -> Engine:
    """It keeps no connection between two transactions: a process that was forked, or that ends, leaves none behind."""
    from sqlalchemy import NullPool, create_engine

    is_file = url.get_backend_name() == "sqlite"
    if is_file and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return create_engine(url, poolclass=NullPool, connect_args={"timeout": _WAIT_S} if is_file else {})


def default_url(tracking_uri: str, home: Path) -> str:
    """Where the table is unless told: beside MLflow's SQLite file, in MLflow's database where it is another one, else a file in `home`.

    What is behind an HTTP server cannot be seen, so machines that share one share the table only by ACTWRIGHT_CHAMPIONS_URL.
    """
    scheme = tracking_uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return f"sqlite:///{Path(tracking_uri.partition('sqlite:///')[2]).parent / 'champions.db'}"
    if scheme in ("postgresql", "postgres", "mysql", "mssql"):
        return tracking_uri
    return f"sqlite:///{home.resolve() / 'champions.db'}"


def told_history(entries: Sequence[ChampionEntry]) -> list[str]:
    """A line for each entry, newest first."""
    lines = []
    for one in reversed(entries):
        who = f"version {one.version}" if one.version is not None else "no version"
        before = f", before version {one.replaced}" if one.replaced is not None else ""
        lines.append(f"{one.model} number {one.number}: {who}{before} ({one.how}, {one.recorded_at}) {one.reason}".rstrip())
    return lines
