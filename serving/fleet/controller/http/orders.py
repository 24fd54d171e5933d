"""The endpoints that change something: each needs a role, is logged, and answers with the head of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_core.access import Role
from model_core.spec.fleet.documents import checked_name, checked_reason
from model_core.spec.fleet.signatures import read_public
from model_core.spec.settings import digest
from serving.fleet.controller.http.endpoint import Call, Endpoint
from serving.fleet.controller.rollout.first_release import FirstRelease
from serving.fleet.controller.rollout.orders import Kind, Order
from serving.fleet.controller.store import fleet, kills, looks, releases
from serving.fleet.controller.store.kills import Kill, KillOrder
from serving.fleet.controller.store.releases import Offer
from serving.fleet.controller.store.rollouts import plan_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why; it stays in the log."""

    reason: str = ""

    def __post_init__(self) -> None:
        checked_reason(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A cell's site and public key (PEM, Ed25519)."""

    site: str
    public_key: str

    def __post_init__(self) -> None:
        checked_name("site", self.site)
        read_public(self.public_key, "public_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A rollout plan, as in docs/fleet.md. baseline: digest of the release that comes back, "" for the one that all cells run."""

    plan: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""

    def __post_init__(self) -> None:
        if self.baseline:
            digest("baseline", self.baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of an order, in words. head: the last hash of the log, "" where nothing was to be done."""

    told: str
    head: str = ""
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillDone:
    """A kill after an order about it."""

    kill: Kill
    head: str


async def _enrol(call: Call) -> Done:
    cell, given = checked_name("cell", call.path["cell"]), call.order
    now_s = call.controller.clock()
    head = await call.controller.do(lambda db: fleet.enrol(db, cell, given.site, given.public_key, call.actor, now_s))
    await call.controller.forget_keys()
    return Done(told=f"{cell} of {given.site} may report", head=head)


async def _offer(call: Call) -> Done:
    given, now_s = call.order, call.controller.clock()
    await call.controller.read_offers()
    if call.controller.offers is not None:
        releases.check_signed(given, call.controller.offers.rows)
    head = await call.controller.do(lambda db: releases.offer(db, given, call.actor, now_s))
    return Done(
        told=f"release {given.digest[:16]} of {given.model_version} may be rolled out" if head else "it was offered before", head=head
    )


async def _install(call: Call) -> Done:
    given, now_s = call.order, call.controller.clock()
    await call.controller.read_offers()
    known = call.controller.known()
    head = await call.controller.do(lambda db: looks.install(db, given, call.actor, known, now_s))
    await call.controller.look()  # cells that wait for it are told with their next report
    where = f"at {', '.join(given.sites)}" if given.sites else "everywhere"
    return Done(told=f"release {given.release[:16]} is the first of cells {where} that never ran one", head=head)


async def _start(call: Call) -> Done:
    given, now_s = call.order, call.controller.clock()
    plan = plan_of(given.plan)
    await call.controller.read_offers()
    known = call.controller.known()
    looked = await call.controller.do(lambda db: looks.start(db, plan, call.actor, now_s, baseline=given.baseline, known=known))
    call.controller.remember(looked)
    return Done(told=f"rollout {looked.rollout.id}: {looked.rollout.state.reason}", head=looked.head, id=looked.rollout.id)


def _ordered(kind: Kind) -> Any:
    async def order(call: Call) -> Done:
        number, now_s, given = call.number("id"), call.controller.clock(), call.order
        known = call.controller.known(number)
        told = Order(kind=kind, by=call.actor.subject, reason=given.reason)
        looked = await call.controller.do(lambda db: looks.carry_out(db, number, told, call.actor, known, now_s))
        call.controller.remember(looked)
        state = looked.rollout.state
        return Done(told=f"{looked.rollout.plan.name} is {state.status.value}: {state.reason}", head=looked.head, id=number)

    return order


def _frozen(frozen: bool) -> Any:
    async def order(call: Call) -> Done:
        now_s = call.controller.clock()
        head = await call.controller.do(lambda db: fleet.set_frozen(db, frozen, call.order.reason, call.actor, now_s))
        return Done(told="no rollout starts or goes on" if frozen else "rollouts go on", head=head)

    return order


async def _kill(call: Call) -> KillDone:
    given, now_s = call.order, call.controller.clock()
    kill, head = await call.controller.do(lambda db: kills.add_kill(db, given, call.actor, now_s))
    await call.controller.look()  # a rollout of what was killed ends now
    return KillDone(kill=kill, head=head)


async def _release_kill(call: Call) -> KillDone:
    number, now_s = call.number("id"), call.controller.clock()
    kill, head = await call.controller.do(lambda db: kills.release_kill(db, number, call.actor, now_s))
    return KillDone(kill=kill, head=head)


_ORDERS: Mapping[Kind, tuple[Role, str]] = {
    "pause": (Role.OPERATE, "Pause a rollout: the cells stay as they are, no stage follows."),
    "resume": (Role.OPERATE, "Let a paused rollout go on; its stage gets its whole time again."),
    "abort": (Role.OPERATE, "End a rollout and leave every cell as it is."),
    "rollback": (Role.OPERATE, "End a rollout and propose the old release to every cell, each at the end of its episode."),
    "approve": (Role.OPERATE, "Agree to the next stage of a rollout; one person counts once."),
    "skip": (Role.ADMIN, "Go to the next stage without what this one asks for, for a reason."),
}


def order_endpoints() -> list[Endpoint]:
    """All of them."""

    def post(path: str, role: Role, summary: str, work: Any, takes: type[Any], gives: type[Any] = Done) -> Endpoint:
        return Endpoint(method="POST", path=path, role=role, summary=summary, work=work, takes=takes, gives=gives)

    return [
        post("/v1/cells/{cell}/enrol", Role.ADMIN, "Let a cell report with this key, or replace its key and site.", _enrol, Enrolment),
        post("/v1/releases", Role.OPERATE, "Offer a release to rollouts.", _offer, Offer),
        post("/v1/first-release", Role.OPERATE, "Name the first release of cells that never ran one.", _install, FirstRelease),
        post("/v1/rollouts", Role.OPERATE, "Start a rollout.", _start, Start),
        *(post(f"/v1/rollouts/{{id}}/{kind}", role, told, _ordered(kind), Reason) for kind, (role, told) in _ORDERS.items()),
        post("/v1/freeze", Role.OPERATE, "No rollout starts or goes on; rollbacks still happen.", _frozen(True), Reason),
        post("/v1/unfreeze", Role.ADMIN, "Let rollouts go on.", _frozen(False), Reason),
        post("/v1/kills", Role.ADMIN, "Put a kill in force.", _kill, KillOrder, KillDone),
        post("/v1/kills/{id}/release", Role.ADMIN, "Ask to release a kill; a second person releases it.", _release_kill, Reason, KillDone),
    ]
