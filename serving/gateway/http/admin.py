"""Operator endpoints of a running service. Always a POST with a role, never a GET, and each of them is logged.

POST /v1/admin/drain   {"reason": ...}                  no new episode begins; running ones are finished
POST /v1/admin/kill    {"reason": ..., "cell": ...}     one cell, or without "cell" all: no request is answered any more; or
                       {"scope": "digest", "value": ...}  what a kill can name: digest, model, cell, site, fleet
POST /v1/admin/kills   a signed kill list               the fleet's, pushed; its signature is what counts
POST /v1/admin/resume  {}                               undo both; after a kill this needs the role admin, and two principals
GET  /v1/kills                                          what is stopped, and after how long each cell held
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_core.access import Role
from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError, WireError
from model_core.spec.fleet.kill_list import Scope
from model_core.spec.fleet.signatures import MOST_BYTES
from model_core.spec.types import RefusalCode
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.client_request import BodyTooLarge, read_body
from serving.gateway.sessions.gateway import Gateway

T = TypeVar("T")

_MAX_BODY_BYTES = 4096
_MAX_CHARACTERS = 256


def admin_routes(gateway: Gateway) -> list[Route]:
    """These endpoints."""

    async def drain(request: Request) -> Response:
        order = await _read_order(request, _DrainOrder)
        if isinstance(order, Response):
            return order
        gateway.supervisor.drain(caller_of(request.scope), order.reason)
        return JSONResponse(gateway.status())

    async def kill(request: Request) -> Response:
        order = await _read_order(request, _KillOrder)
        if isinstance(order, Response):
            return order
        try:
            kill = gateway.supervisor.kill(caller_of(request.scope), order.reason, order.cell, scope=order.scope or None, value=order.value)
        except WireError as error:
            return JSONResponse({"code": RefusalCode.DECODE.value, "reason": str(error)[:400]}, status_code=400)
        return JSONResponse({**gateway.status(), "kill_id": kill.id, "stops": gateway.supervisor.stops()})

    async def push(request: Request) -> Response:
        try:
            body = await read_body(request, MOST_BYTES)
            found = gateway.supervisor.obey(body, f"pushed by {caller_of(request.scope).subject}")
        except WireError as error:
            return _refusal(error)
        return JSONResponse({"number": None if found is None else found.number, **kills_of(gateway)})

    async def kills(_: Request) -> Response:
        return JSONResponse(kills_of(gateway))

    async def resume(request: Request) -> Response:
        caller = caller_of(request.scope)
        switch = gateway.service_state.kills
        if switch.in_force and not caller.role.allows(Role.ADMIN):
            reason = f"{caller.subject!r} has the role {caller.role}; resuming after a kill needs {Role.ADMIN}"
            return JSONResponse({"code": RefusalCode.AUTH.value, "reason": reason}, status_code=403)
        missing = gateway.supervisor.release(caller)
        if missing:
            status = 409 if missing.endswith("another person") else 202
            return JSONResponse({"code": RefusalCode.KILLED.value, "reason": missing, **kills_of(gateway)}, status_code=status)
        if switch.in_force:
            reason = "the fleet's list stops it; release it where it was ordered"
            return JSONResponse({"code": RefusalCode.KILLED.value, "reason": reason, **kills_of(gateway)}, status_code=409)
        gateway.supervisor.resume(caller)
        return JSONResponse(gateway.status())

    posts = {"drain": drain, "kill": kill, "kills": push, "resume": resume}
    return [*(Route(f"/v1/admin/{name}", post, methods=["POST"]) for name, post in posts.items()), Route("/v1/kills", kills)]


def kills_of(gateway: Gateway) -> dict[str, Any]:
    """What is stopped at this service, and each stopped cell."""
    stopped = gateway.supervisor.stops()
    return {**gateway.service_state.kills.document(), "session_lease_s": gateway.limits.lease_s, "stops": stopped}


def _refusal(error: WireError) -> Response:
    code = RefusalCode.TOO_LARGE if isinstance(error, BodyTooLarge) else RefusalCode.DECODE
    return JSONResponse({"code": code.value, "reason": str(error)[:400]}, status_code=413 if isinstance(error, BodyTooLarge) else 400)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrainOrder:
    reason: str = ""

    def __post_init__(self) -> None:
        _check_length("reason", self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _KillOrder:
    reason: str = ""
    cell: str = ""
    scope: Scope | Literal[""] = ""
    value: str = ""

    def __post_init__(self) -> None:
        for name in ("reason", "cell", "value"):
            _check_length(name, getattr(self, name))
        if self.cell and self.scope:
            raise SpecError("cell, scope: give one of them")
        if self.value and not self.scope:
            raise SpecError("scope: expected one of digest, model, cell, site, fleet where there is a value")


def _check_length(name: str, value: str) -> None:
    if len(value) > _MAX_CHARACTERS:
        raise SpecError(f"{name}: expected a text of at most {_MAX_CHARACTERS} characters, got {len(value)}")


async def _read_order(request: Request, kind: type[T]) -> T | Response:
    try:
        body = await read_body(request, _MAX_BODY_BYTES)
    except BodyTooLarge as error:
        return JSONResponse({"code": RefusalCode.TOO_LARGE.value, "reason": str(error)}, status_code=413)
    try:
        return from_document(kind, json.loads(body) if body else {}, where="body")
    except (ValueError, RecursionError) as error:
        return JSONResponse({"code": RefusalCode.DECODE.value, "reason": str(error)[:400]}, status_code=400)
