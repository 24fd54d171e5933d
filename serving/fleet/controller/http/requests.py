"""The endpoints that decide of what MLflow's alias asks for: approve, decline, and start what was approved, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_core.access import Role
from model_core.spec.errors import SpecError
from model_core.spec.settings import digest
from serving.fleet.controller.http.endpoint import Call, Endpoint
from serving.fleet.controller.http.orders import Done
from serving.fleet.controller.store import releases
from serving.fleet.controller.store.looks import Requested, start_requested
from serving.fleet.controller.store.releases import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedStart:
    """The request of which a rollout is started, by a plan whose release is the one that was approved. baseline: as of any rollout."""

    model: str
    version: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""

    def __post_init__(self) -> None:
        if self.baseline:
            digest("baseline", self.baseline)


async def _decide(call: Call) -> Done:
    given, now_s = call.order, call.controller.clock()
    head = await call.controller.do(lambda db: releases.decide(db, given, call.actor, now_s))
    what = f"approved with release {given.release[:16]}" if given.release else "declined"
    return Done(told=f"{given.told} is {what}" if head else f"{given.told} was {what} before", head=head)


async def _approve(call: Call) -> Done:
    if not call.order.release:
        raise SpecError(
            "release: expected the digest of the release that may be rolled out. Fix: `actwright fleet requests list` shows them"
        )
    return await _decide(call)


async def _decline(call: Call) -> Done:
    if call.order.release or not call.order.reason:
        raise SpecError("expected a reason and no release: a request is declined as a whole. Fix: give --reason TEXT")
    return await _decide(call)


async def _start(call: Call) -> Done:
    given, now_s = call.order, call.controller.clock()
    asked = Requested(model=given.model, version=given.version, plan=given.plan, baseline=given.baseline)
    await call.controller.read_offers()
    known = call.controller.known()
    started = await call.controller.do(lambda db: start_requested(db, asked, call.actor, now_s, known=known))
    if isinstance(started, int):
        return Done(told=f"rollout {started} was started for this request before", id=started)
    call.controller.remember(started)
    return Done(told=f"rollout {started.rollout.id}: {started.rollout.state.reason}", head=started.head, id=started.rollout.id)


def request_endpoints() -> list[Endpoint]:
    """All of them."""

    def post(path: str, summary: str, work: Any, takes: type[Any]) -> Endpoint:
        return Endpoint(method="POST", path=path, role=Role.OPERATE, summary=summary, work=work, takes=takes, gives=Done)

    return [
        post("/v1/requests/approve", "Let a release be rolled out for a requested version.", _approve, Decision),
        post("/v1/requests/decline", "Let nothing be rolled out for a requested version, for a reason.", _decline, Decision),
        post("/v1/requests/start", "Start the rollout of an approved request; asked again, tell which it was.", _start, RequestedStart),
    ]
