"""The controller as an object: reports in batches, orders one by one, and a look at every rollout now and then, all in one database thread.

A batch is what came while the batch before was written, so the disk is synced once for all of them. Nothing here is kept that cannot be
read again: a controller that is killed and one that replaces it answer the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from model_core.spec.errors import ActwrightError, SpecError, WireError
from model_core.spec.fleet.documents import CellReport
from model_core.spec.fleet.signatures import opened, read_public, sealed, trusted
from serving.fleet.controller.metrics import FleetMetrics
from serving.fleet.controller.rollout.evidence import Evidence
from serving.fleet.controller.store.database import Database
from serving.fleet.controller.store.fleet import KnownCells, public_keys, sites
from serving.fleet.controller.store.looks import Known, Looked, look, propose_first
from serving.fleet.controller.store.reports import Ingested, Received, ingest
from serving.fleet.controller.store.rollouts import open_rollouts

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from sqlalchemy import Connection

    from serving.fleet.controller.site_offers import SiteOffers

logger = logging.getLogger(__name__)
T = TypeVar("T")
_MOST_IN_BATCH = 64
_MOST_WAITING = 4_096
_KEYS_AGAIN_S = 1.0
_MOST_EVIDENCE = 256  # rollouts


class Overloaded(ActwrightError):  # noqa: N818
    """More reports wait than are kept; the cell sends its own again."""


class Controller:
    """One controller. key: signs what is proposed. clock: seconds since 1970. report_every_s: how often cells are asked to report.

    instance: what tells this process from another one, for who started it. offers: what sites are offered; None where no repository of
    update metadata is named: then only the agents know.
    """

    def __init__(
        self,
        database: Database,
        key: Ed25519PrivateKey,
        *,
        clock: Callable[[], float] = time.time,
        report_every_s: float = 10.0,
        instance: str = "",
        offers: SiteOffers | None = None,
    ) -> None:
        self.key, self.clock, self.metrics, self.report_every_s, self.instance = key, clock, FleetMetrics(), report_every_s, instance
        self.offers = offers
        self.evidence: dict[int, Evidence] = {}
        self.cells = KnownCells()  # of the database's thread
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet-store")
        self._waiting: list[tuple[Received, asyncio.Future[Ingested]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._keys: Mapping[str, tuple[str, Mapping[str, Ed25519PublicKey]]] = {}
        self._keys_read_at = float("-inf")
        self._reading_keys = asyncio.Lock()

    async def do(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._database.transaction, work)

    async def report(self, cell: str, message: bytes) -> bytes:
        """Put a signed report on record and answer it, signed. Raises `WireError` for one that is not this cell's, `SpecError` for a cell
        at another site than it is enrolled at, `Overloaded` where too many wait."""
        received = Received(report=await self._opened(cell, message), at_s=self.clock())
        if len(self._waiting) >= _MOST_WAITING:
            raise Overloaded(f"{_MOST_WAITING} reports wait already. Fix: report again later, or run a further controller")
        done: asyncio.Future[Ingested] = asyncio.get_running_loop().create_future()
        self._waiting.append((received, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())
        ingested = await done
        self.metrics.episodes.inc(ingested.episodes)
        return sealed(ingested.answer, self.key)

    async def look(self) -> None:
        """Look at every open rollout once. What fails for one is logged and tried again at the next look."""
        begun = time.perf_counter()
        for one in await self.do(open_rollouts):
            try:
                self.remember(await self.do(lambda db, number=one.id: look(db, number, self.known(number), self.clock())))
            except Exception:
                self.metrics.failures.labels("look").inc()
                logger.exception("fleet.look_failed rollout=%d", one.id)
        await self._install()
        self.metrics.look_seconds.observe(time.perf_counter() - begun)

    async def _install(self) -> None:
        try:
            await self.do(lambda db: propose_first(db, self.known(), self.clock()))
        except Exception:
            self.metrics.failures.labels("look").inc()
            logger.exception("fleet.first_release_failed")

    async def read_offers(self) -> None:
        """Read what the sites are offered, where a repository is named."""
        if self.offers is not None:
            here = await self.do(sites)
            await asyncio.get_running_loop().run_in_executor(None, self.offers.read, here)

    def known(self, rollout: int = 0) -> Known:
        """What was found of a rollout, of the cells and of the sites' offers so far. rollout: 0 for one that is not started yet."""
        return Known(cells=self.cells, evidence=self.evidence.get(rollout), offered=self.offers.digests if self.offers else None)

    def remember(self, looked: Looked) -> None:
        """Keep the evidence of a look, so that the next one, and who asks, adds only what is new."""
        self.keep_evidence(looked.rollout.id, looked.evidence)
        if not looked.rollout.state.status.is_open:
            self.metrics.ended.labels(looked.rollout.state.status.value).inc()

    def keep_evidence(self, rollout: int, evidence: Evidence) -> None:
        """Of the newest rollouts; that of another one is computed again from its blocks."""
        self.evidence[rollout] = evidence
        if len(self.evidence) > _MOST_EVIDENCE:
            self.evidence.pop(min(self.evidence), None)

    def close(self) -> None:
        """End the database thread and its connections."""
        self._thread.shutdown(wait=True)
        self._database.close()

    async def forget_keys(self) -> None:
        """Read the cells' keys again: one was enrolled. Only what changed is parsed."""
        pems, before = await self.do(public_keys), self._keys
        same = {cell: kept for cell, pem in pems.items() if (kept := before.get(cell)) and kept[0] == pem}
        read = {cell: (pem, trusted(read_public(pem, f"the key of {cell}"))) for cell, pem in pems.items() if cell not in same}
        self._keys = {**same, **read}
        self._keys_read_at = time.monotonic()

    async def _opened(self, cell: str, message: bytes) -> CellReport:
        try:
            report = opened(message, CellReport, self._trusted(cell))
        except WireError:
            async with self._reading_keys:  # after a start every cell comes at once
                if time.monotonic() - self._keys_read_at >= _KEYS_AGAIN_S:
                    await self.forget_keys()  # another controller may have enrolled it
            report = opened(message, CellReport, self._trusted(cell))
        if report.cell != cell:
            raise WireError(f"the report is of cell {report.cell}, it was sent to that of {cell}")
        return report

    def _trusted(self, cell: str) -> Mapping[str, Ed25519PublicKey]:
        return self._keys[cell][1] if cell in self._keys else {}

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_IN_BATCH], self._waiting[_MOST_IN_BATCH:]
            try:
                await self._write_batch(batch)
            except SpecError:  # one of them does not fit; the others are none the worse
                for one in batch:
                    await self._write_one(one)
            except Exception as error:
                self.metrics.failures.labels("report").inc()
                for _, done in batch:
                    _fail(done, error)

    async def _write_batch(self, batch: list[tuple[Received, asyncio.Future[Ingested]]]) -> None:
        received = [one for one, _ in batch]
        for (_, done), ingested in zip(
            batch, await self.do(lambda db: ingest(db, received, report_every_s=self.report_every_s)), strict=True
        ):
            if not done.done():
                done.set_result(ingested)

    async def _write_one(self, one: tuple[Received, asyncio.Future[Ingested]]) -> None:
        try:
            await self._write_batch([one])
        except Exception as error:  # whatever it is, it is the answer to this report
            _fail(one[1], error)


def _fail(done: asyncio.Future[Ingested], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
