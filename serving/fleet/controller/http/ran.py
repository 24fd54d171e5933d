"""The endpoints that tell what ran where, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_core.access import Role
from model_core.spec.errors import SpecError
from model_core.spec.fleet.order_log import BEFORE_FIRST
from model_core.spec.settings import digest
from serving.fleet.controller.http.endpoint import Call, Endpoint
from serving.fleet.controller.store import operator_log
from serving.fleet.controller.store.ran.at import CellAt, CellOfRelease, ran_at, ran_release
from serving.fleet.controller.store.ran.spans import STALE_AFTER

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class RanAt:
    """What every cell ran at `at_s`. now_s: the controller's clock, by which all times are. head: last hash of the log of orders."""

    at_s: float
    now_s: float
    cells: Sequence[CellAt]
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RanRelease:
    """Where one release ran, by the evidence that the controller has."""

    release: str
    cells: Sequence[CellOfRelease]


async def _at(call: Call) -> RanAt:
    controller, now_s = call.controller, call.controller.clock()
    at_s = _time(call.query.get("at_s", ""), now_s)

    def read(db: Connection) -> RanAt:
        last = operator_log.newest(db)
        cells = ran_at(db, at_s, STALE_AFTER * controller.report_every_s)
        return RanAt(at_s=at_s, now_s=now_s, cells=cells, head=last.hash if last else BEFORE_FIRST)

    return await controller.do(read)


def _time(given: str, now_s: float) -> float:
    try:
        at_s = float(given or now_s)
    except ValueError:
        at_s = math.nan
    if not 0 <= at_s <= now_s:
        raise SpecError(f"at_s: expected seconds since 1970 that are not in the future, got {given[:40]!r}. Fix: leave it out for now")
    return at_s


async def _release(call: Call) -> RanRelease:
    release = call.path["release"]
    digest("release", release)
    return RanRelease(release=release, cells=await call.controller.do(lambda db: ran_release(db, release)))


def ran_endpoints() -> list[Endpoint]:
    """Both."""
    when = "What every cell ran at ?at_s=SECONDS since 1970 (now without it), with the evidence."
    return [
        Endpoint(method="GET", path="/v1/ran", role=Role.OBSERVE, summary=when, work=_at, gives=RanAt),
        Endpoint(
            method="GET",
            path="/v1/ran/{release}",
            role=Role.OBSERVE,
            summary="Every cell that ran a release, from when and until when.",
            work=_release,
            gives=RanRelease,
        ),
    ]
