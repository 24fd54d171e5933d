"""What an operator may do to a running service. Always a POST with a role, never a GET, and every one of them in the log.

POST /v1/admin/drain   {"reason": ...}                  no new episode begins; those that run are finished
POST /v1/admin/kill    {"reason": ..., "cell": ...}     one cell, or without "cell" all: nothing is answered any more
POST /v1/admin/resume  {}                               undo both; after a kill this needs the role admin
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_core.spec.errors import SpecError
from model_core.spec.settings import known_keys
from model_core.spec.types import RefusalCode
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.operations.tokens import Role
from serving.gateway.sessions.gateway import Gateway

_MAX_BODY = 4096


def admin_routes(gateway: Gateway) -> list[Route]:
    """The three endpoints."""

    async def drain(request: Request) -> Response:
        asked = await _asked(request, ("reason",))
        if isinstance(asked, Response):
            return asked
        gateway.drain(caller_of(request.scope), asked.get("reason", ""))
        return JSONResponse(gateway.status())

    async def kill(request: Request) -> Response:
        asked = await _asked(request, ("reason", "cell"))
        if isinstance(asked, Response):
            return asked
        gateway.kill(caller_of(request.scope), asked.get("reason", ""), asked.get("cell", ""))
        return JSONResponse(gateway.status())

    async def resume(request: Request) -> Response:
        caller = caller_of(request.scope)
        if gateway.standing.killed and not caller.role.allows(Role.ADMIN):
            reason = f"{caller.subject!r} has the role {caller.role}; resuming after a kill needs {Role.ADMIN}"
            return JSONResponse({"code": RefusalCode.AUTH.value, "reason": reason}, status_code=403)
        gateway.resume(caller)
        return JSONResponse(gateway.status())

    endpoints = {"drain": drain, "kill": kill, "resume": resume}
    return [Route(f"/v1/admin/{name}", endpoint, methods=["POST"]) for name, endpoint in endpoints.items()]


async def _asked(request: Request, keys: tuple[str, ...]) -> dict[str, str] | Response:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            return JSONResponse({"code": RefusalCode.TOO_LARGE.value, "reason": f"at most {_MAX_BODY} bytes are taken"}, status_code=413)
    try:
        document: Any = json.loads(bytes(body)) if body else {}
        known_keys("body", document, keys)
        for name, value in document.items():
            if not isinstance(value, str) or len(value) > 256:
                raise SpecError(f"{name}: expected a text of at most 256 characters")
    except (ValueError, RecursionError) as error:
        return JSONResponse({"code": RefusalCode.DECODE.value, "reason": str(error)[:400]}, status_code=400)
    return document
