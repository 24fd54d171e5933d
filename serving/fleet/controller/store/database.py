"""Transactions on the controller's database: a SQLite file of one machine, PostgreSQL for several controllers.

A transaction is a function of a connection that is run again where another controller was faster, so it changes nothing but the database.
SQLite locks before the first read; on PostgreSQL the functions lock the rows that they decide on. Whatever is answered to a cell is on the
disk before: SQLite syncs at each commit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from model_core.spec.errors import TrackingError
from serving.fleet.controller.store.tables import TABLES

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
_TRIES = 8
_WAIT_S = 20.0


class Database:
    """The database at `url`, with the tables in it. Every method raises `TrackingError` when it does not answer."""

    def __init__(self, url: str) -> None:
        from sqlalchemy import make_url

        parsed = make_url(url)
        self._url = parsed.set(drivername="postgresql+asyncpg") if parsed.drivername in ("postgresql", "postgres") else parsed
        self._is_async = bool(self._url.get_dialect().is_async)
        self._loop = _Loop() if self._is_async else None
        self._async_engine = _async_engine(self._url) if self._is_async else None
        self._engine = None if self._is_async else _engine(self._url)
        self.transaction(lambda db: TABLES.create_all(db, checkfirst=True))

    @property
    def place(self) -> str:
        """Where it is, without the password."""
        return self._url.render_as_string(hide_password=True)

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """`work` in one transaction, again where another controller wrote the same at the same time."""
        from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

        for attempt in range(1, _TRIES + 1):
            try:
                return self._once(work)
            except IntegrityError as error:
                if attempt == _TRIES:
                    raise self._lost(error) from error
            except DBAPIError as error:
                if attempt == _TRIES or not _is_passing(error):
                    raise self._lost(error) from error
            except (SQLAlchemyError, OSError) as error:
                raise self._lost(error) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()
        if self._loop is not None and self._async_engine is not None:
            self._loop.run(self._async_engine.dispose())
            self._loop.close()

    def _once(self, work: Callable[[Connection], T]) -> T:
        if self._loop is not None:
            return self._loop.run(self._waited(work))
        assert self._engine is not None
        with self._engine.begin() as db:
            return work(db)

    async def _waited(self, work: Callable[[Connection], T]) -> T:
        assert self._async_engine is not None
        async with self._async_engine.begin() as db:
            return await db.run_sync(work)

    def _lost(self, error: Exception) -> TrackingError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        return TrackingError(
            f"the controller's database at {self.place} did not answer: {reason}. Fix: start it, or correct ACTWRIGHT_FLEET_DATABASE; "
            "cells go on with what they run, and report again"
        )


class _Loop:
    """An event loop in a thread of its own, for drivers that do not wait; connections stay with their loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet-database", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)


def _engine(url: URL) -> Engine:
    from sqlalchemy import create_engine, event

    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _WAIT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver would begin transactions by itself, and too late
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _async_engine(url: URL) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(url, pool_pre_ping=True)


def _is_passing(error: Exception) -> bool:
    """Whether the next try may succeed: a lock, a serialization failure, a deadlock, a connection that was closed."""
    text = str(error).lower()
    return any(word in text for word in ("locked", "serializ", "deadlock", "closed", "already exists"))
