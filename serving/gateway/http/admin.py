"""Operator endpoints of a running service. Always a POST with a role, never a GET, and each of them is logged.

POST /v1/admin/drain   {"reason": ...}                  no new episode begins; running ones are finished
POST /v1/admin/kill    {"reason": ..., "cell": ...}     one cell, or without "cell" all: no request is answered any more
POST /v1/admin/resume  {}                               undo both; after a kill this needs the role admin
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_core.access import Role
from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError
from model_core.spec.types import RefusalCode
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.client_request import BodyTooLarge, read_body
from serving.gateway.sessions.gateway import Gateway

T = TypeVar("T")

_MAX_BODY_BYTES = 4096
_MAX_CHARACTERS = 256


def admin_routes(gateway: Gateway) -> list[Route]:
    """The three endpoints."""

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
        gateway.supervisor.kill(caller_of(request.scope), order.reason, order.cell)
        return JSONResponse(gateway.status())

    async def resume(request: Request) -> Response:
        caller = caller_of(request.scope)
        if gateway.service_state.killed and not caller.role.allows(Role.ADMIN):
            reason = f"{caller.subject!r} has the role {caller.role}; resuming after a kill needs {Role.ADMIN}"
            return JSONResponse({"code": RefusalCode.AUTH.value, "reason": reason}, status_code=403)
        gateway.supervisor.resume(caller)
        return JSONResponse(gateway.status())

    endpoints = {"drain": drain, "kill": kill, "resume": resume}
    return [Route(f"/v1/admin/{name}", endpoint, methods=["POST"]) for name, endpoint in endpoints.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrainOrder:
    reason: str = ""

    def __post_init__(self) -> None:
        _check_length("reason", self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _KillOrder:
    reason: str = ""
    cell: str = ""

    def __post_init__(self) -> None:
        _check_length("reason", self.reason)
        _check_length("cell", self.cell)


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
