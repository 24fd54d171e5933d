"""The endpoints of the fleet's pages. The controller decides everything, roles too; here nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.platform.settings import Settings
from flows.web.http.endpoint import Call, Endpoint, not_found
from flows.web.views.fleet.documents import (
    FleetDone,
    FleetKillOrder,
    FleetLog,
    FleetLogLine,
    FleetLogQuery,
    FleetPage,
    FleetRan,
    FleetRanQuery,
    FleetReason,
    FleetRelease,
    FleetState,
    RolloutOrder,
)
from flows.web.views.fleet.link import FleetLink
from model_core.access import Role
from model_core.spec.documents import to_document
from model_core.spec.errors import NotReady
from model_core.spec.fleet.order_log import LogEntry, first_problem

_SHOWN = 500


def fleet_endpoints(settings: Settings, *, needs_token: bool) -> Sequence[Endpoint]:
    """Nothing is asked before the first call."""
    pages = _FleetPages(FleetLink(settings, needs_token=needs_token))

    def post(path: str, does: str, role: Role, body: type, handle: Any) -> Endpoint:
        return Endpoint(method="POST", path=f"/api/fleet{path}", does=does, role=role, answer=FleetDone, body=body, handle=handle)

    return (
        Endpoint(method="GET", path="/api/fleet", does="The fleet", role=Role.OBSERVE, answer=FleetPage, handle=pages.shown),
        Endpoint(
            method="GET",
            path="/api/fleet/log",
            does="What people and rules did to the fleet, with a check of the chain",
            role=Role.OBSERVE,
            answer=FleetLog,
            query=FleetLogQuery,
            handle=pages.log,
        ),
        Endpoint(
            method="GET",
            path="/api/fleet/ran",
            does="What every cell ran at a time, with the evidence",
            role=Role.OBSERVE,
            answer=FleetRan,
            query=FleetRanQuery,
            handle=pages.ran,
        ),
        post("/rollouts/{id}/orders", "Approve, pause, resume, abort, roll back", Role.OPERATE, RolloutOrder, pages.rollout),
        post("/rollouts/{id}/skip", "Go to the next stage without what this one asks for", Role.ADMIN, FleetReason, pages.skip),
        post("/freeze", "Let no rollout start or go on", Role.OPERATE, FleetReason, lambda call: pages.told(call, "/v1/freeze")),
        post("/unfreeze", "Let rollouts go on", Role.ADMIN, FleetReason, lambda call: pages.told(call, "/v1/unfreeze")),
        post("/kills", "Stop a release, model, cell, site or the fleet", Role.ADMIN, FleetKillOrder, pages.kill),
        post("/kills/{id}/release", "Agree that a kill is released; two persons have to", Role.ADMIN, FleetReason, pages.release),
    )


class _FleetPages:
    def __init__(self, link: FleetLink) -> None:
        self._link = link

    def shown(self, call: Call) -> FleetPage:
        try:
            state = self._link.ask(call.person, "/v1/status", FleetState)
            releases = self._link.ask(call.person, "/v1/releases", tuple[FleetRelease, ...])
        except NotReady as absent:
            return FleetPage(controller=self._link.url, absent=str(absent), state=None, releases=())
        return FleetPage(controller=self._link.url, absent="", state=state, releases=releases)

    def log(self, call: Call) -> FleetLog:
        entries = [LogEntry(**one) for one in self._link.log(call.person)]
        until_s = call.query.until_s or float("inf")
        wanted = [one for one in entries if one.at_s <= until_s][-_SHOWN:]
        lines = tuple(
            FleetLogLine(number=one.number, at_s=one.at_s, subject=one.subject, role=one.role, action=one.action, detail=one.detail)
            for one in reversed(wanted)
        )
        return FleetLog(lines=lines, count=len(entries), head=entries[-1].hash if entries else "", problem=first_problem(entries))

    def ran(self, call: Call) -> FleetRan:
        at = f"?at_s={call.query.at_s!r}" if call.query.at_s else ""
        return self._link.ask(call.person, f"/v1/ran{at}", FleetRan)

    def rollout(self, call: Call) -> FleetDone:
        return self._ordered(call, f"/v1/rollouts/{_number(call)}/{call.body.kind}", {"reason": call.body.reason})

    def skip(self, call: Call) -> FleetDone:
        return self.told(call, f"/v1/rollouts/{_number(call)}/skip")

    def told(self, call: Call, path: str) -> FleetDone:
        return self._ordered(call, path, to_document(call.body))

    def kill(self, call: Call) -> FleetDone:
        done = self._link.order(call.person, "/v1/kills", to_document(call.body))
        return FleetDone(told=f"kill {done['kill']['id']} is in force, by {done['kill']['ordered_by']}", head=done["head"])

    def release(self, call: Call) -> FleetDone:
        done = self._link.order(call.person, f"/v1/kills/{_number(call)}/release", to_document(call.body))
        kill = done["kill"]
        if kill["released_by"]:
            told = f"kill {kill['id']} is released, by {kill['release_asked_by']} and {kill['released_by']}"
        else:
            told = f"{kill['release_asked_by']} agrees that kill {kill['id']} is released; a second person has to"
        return FleetDone(told=told, head=done["head"])

    def _ordered(self, call: Call, path: str, body: Any) -> FleetDone:
        done = self._link.order(call.person, path, body)
        return FleetDone(told=done["told"], head=done["head"])


def _number(call: Call) -> int:
    text = call.path["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise not_found(f"number {text[:20]!r}", "choose one of the page")
    return int(text)
