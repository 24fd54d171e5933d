"""The endpoints that only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_core.access import Role
from model_core.spec.errors import SpecError
from model_core.spec.fleet.order_log import BEFORE_FIRST, LogEntry
from model_core.spec.fleet.signatures import key_id, written_public
from serving.fleet.controller.http.endpoint import Call, Endpoint
from serving.fleet.controller.metrics import OpenGauges
from serving.fleet.controller.store import fleet, kills, operator_log, releases, rollouts
from serving.fleet.controller.store.evidence import evidence_of
from serving.fleet.controller.store.kills import Kill
from serving.fleet.controller.store.looks import concerned
from serving.fleet.controller.store.releases import Offer, RequestStatus
from serving.fleet.controller.store.rollouts import Rollout
from serving.fleet.controller.views import STATES, CellStatus, RolloutStatus, cell_status, rollout_status

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from serving.fleet.controller.service import Controller


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """The whole fleet. now_s: the controller's clock. key: its public key (PEM), for agents. head: last hash of the log."""

    now_s: float
    cells: Sequence[CellStatus]
    rollouts: Sequence[RolloutStatus]
    kills: Sequence[Kill]
    is_frozen: bool
    head: str
    key: str
    key_id: str


async def _status(call: Call) -> FleetStatus:
    controller = call.controller

    def read(db: Connection) -> FleetStatus:
        entries = operator_log.newest(db)
        return FleetStatus(
            now_s=controller.clock(),
            cells=_cells(db, controller),
            rollouts=_told(db, rollouts.rollouts(db)[-20:], controller),
            kills=kills.kills(db, in_force=True),
            is_frozen=fleet.is_frozen(db),
            head=entries.hash if entries else BEFORE_FIRST,
            key=written_public(controller.key.public_key()),
            key_id=key_id(controller.key.public_key()),
        )

    return await controller.do(read)


def _cells(db: Connection, controller: Controller) -> list[CellStatus]:
    return [cell_status(cell, controller.clock(), controller.report_every_s) for cell in controller.cells.read(db)]


def _told(db: Connection, found: Sequence[Rollout], controller: Controller) -> list[RolloutStatus]:
    """The cells are read once for all of these."""
    known, offered = controller.cells.read(db), {one.digest: one for one in releases.offers(db)}
    told = []
    for rollout in found:
        here = concerned(known, rollout.plan)
        evidence = evidence_of(db, rollout, controller.evidence.get(rollout.id))
        controller.keep_evidence(rollout.id, evidence)
        cells = [cell_status(cell, controller.clock(), controller.report_every_s) for cell in here]
        offer = offered.get(rollout.plan.release)
        override = f"{offer.override_name}: {offer.override_reason}" if offer and offer.override_name else ""
        told.append(rollout_status(rollout, evidence, cells, override))
    return told


def open_gauges(db: Connection, controller: Controller) -> list[OpenGauges]:
    """What the gauges tell of the rollouts that still decide something."""
    told = _told(db, [one for one in rollouts.rollouts(db) if one.state.status.is_open], controller)
    return [OpenGauges(id=one.id, status=one.status, reached=one.reached, proposed=one.proposed) for one in told]


def cells_by_state(db: Connection, controller: Controller) -> Mapping[str, int]:
    """How many cells are in each state of `CellStatus.state`; 0 for a state without one."""
    return {**dict.fromkeys(STATES, 0), **Counter(cell.state for cell in _cells(db, controller))}


async def _list_cells(call: Call) -> Sequence[CellStatus]:
    return await call.controller.do(lambda db: _cells(db, call.controller))


async def _list_rollouts(call: Call) -> Sequence[RolloutStatus]:
    return await call.controller.do(lambda db: _told(db, rollouts.rollouts(db)[-100:], call.controller))


async def _rollout(call: Call) -> RolloutStatus:
    number = call.number("id")

    def read(db: Connection) -> RolloutStatus:
        return _told(db, [rollouts.locked_rollout(db, number)], call.controller)[0]

    return await call.controller.do(read)


async def _list_kills(call: Call) -> Sequence[Kill]:
    return await call.controller.do(kills.kills)


async def _list_releases(call: Call) -> Sequence[Offer]:
    return await call.controller.do(releases.offers)


async def _list_requests(call: Call) -> Sequence[RequestStatus]:
    return await call.controller.do(releases.requests)


async def _log(call: Call) -> Sequence[LogEntry]:
    after = call.query.get("after", "0")
    if not after.isdecimal() or len(after) > 15:
        raise SpecError(f"after: expected a number of an entry, got {after[:40]!r}")
    return await call.controller.do(lambda db: operator_log.entries(db, after=int(after)))


def read_endpoints() -> list[Endpoint]:
    """All of them."""

    def get(path: str, summary: str, work: object, gives: object) -> Endpoint:
        return Endpoint(method="GET", path=path, role=Role.OBSERVE, summary=summary, work=work, gives=gives)  # pyright: ignore[reportArgumentType]

    return [
        get("/v1/status", "The fleet: cells, the last rollouts, kills in force.", _status, FleetStatus),
        get("/v1/cells", "Every cell, as it last reported.", _list_cells, list[CellStatus]),
        get("/v1/releases", "The releases that a rollout may name.", _list_releases, list[Offer]),
        get("/v1/rollouts", "The rollouts, oldest first, at most 100.", _list_rollouts, list[RolloutStatus]),
        get("/v1/rollouts/{id}", "One rollout.", _rollout, RolloutStatus),
        get("/v1/requests", "Versions that MLflow's alias asks for, and what was decided.", _list_requests, list[RequestStatus]),
        get("/v1/kills", "Every kill, released ones too.", _list_kills, list[Kill]),
        get("/v1/log", "Entries of the log above ?after=NUMBER, oldest first, at most 1,000.", _log, list[LogEntry]),
    ]
