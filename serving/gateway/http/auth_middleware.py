"""Authentication in front of every endpoint, Actwright's and BentoML's own, as an ASGI middleware.

The role that a request needs follows from its method and path alone, so that an endpoint that is added later is guarded as well.
The admitted caller is in the scope under `CALLER`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from model_core.access import ANYBODY, Caller, Denial, Role, Tokens, is_foreign_origin, is_loopback, names_this_machine
from model_core.spec.types import RefusalCode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CALLER = "actwright.caller"
# An orchestrator's probes carry no token; these endpoints return no more than a state and its reason.
_OPEN = frozenset({"/livez", "/readyz"})
_TESTED = "testserver"  # as Starlette's own client calls an application in its process
_EXACT = {"/v1/admin/drain": Role.OPERATE, "/v1/admin/kill": Role.ADMIN, "/v1/admin/resume": Role.OPERATE, "/v1/admin/kills": Role.OPERATE}


class AuthMiddleware:
    """ASGI middleware. tokens None: callers on this machine may do everything, all others nothing. needed: the role of a request, by its
    scope and path; None for one that every caller may send."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        tokens: Tokens | None = None,
        needed: Callable[[Scope, str], Role | None] | None = None,
    ) -> None:
        self._app, self._tokens, self._needed = app, tokens, needed or _needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401 or 403."""
        if scope["type"] not in {"http", "websocket"} or CALLER in scope:
            await self._app(scope, receive, send)
            return
        found = self._admit(scope)
        if isinstance(found, Denial):
            await _deny(scope, send, found)
            return
        await self._app({**scope, CALLER: found}, receive, send)

    def _admit(self, scope: Scope) -> Caller | Denial:
        if self._tokens is None:
            # The start refuses this binding; if another process bound the socket, remote callers are still refused.
            server = scope.get("server")
            if server and server[1] is not None and not is_loopback(str(server[0])) and server[0] != _TESTED:
                return Denial(status=403, reason="this service has no tokens and therefore answers on loopback only")
            return Denial(status=403, reason=reason) if (reason := _foreign_page(scope)) else ANYBODY
        path = str(scope.get("path", ""))
        role = self._needed(scope, path)
        if role is None:
            return Caller(subject="probe", role=Role.OBSERVE)
        return self._tokens.admit(_header(scope, b"authorization"), role)


def caller_of(scope: Scope) -> Caller:
    """The caller that was admitted."""
    return scope.get(CALLER, ANYBODY)


def _needed(scope: Scope, path: str) -> Role | None:
    if scope["type"] == "http" and path in _OPEN:
        return None
    if path in _EXACT:
        return _EXACT[path]
    if path.startswith("/v1/admin"):
        return Role.ADMIN
    if scope["type"] == "http" and scope.get("method") in {"GET", "HEAD", "OPTIONS"}:
        return Role.OBSERVE
    return Role.OPERATE


def _foreign_page(scope: Scope) -> str:
    """Why a request is one that a page of another site lets a browser of this machine send; "" for any other. Programs send no Origin."""
    host, origin = _header(scope, b"host"), _header(scope, b"origin")
    is_tested = (scope.get("server") or ("",))[0] == _TESTED
    if host is not None and not is_tested and not names_this_machine(host):
        return f"Host: expected this machine, got {host[:100]!r}. Fix: call the service as http://127.0.0.1:PORT, or give it tokens"
    if origin is not None and is_foreign_origin(origin, host):
        return f"Origin: {origin[:100]!r} is another site, and its pages may not use a service without tokens"
    return ""


def _header(scope: Scope, name: bytes) -> str | None:
    found = [value for key, value in scope.get("headers", ()) if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


async def _deny(scope: Scope, send: Send, denial: Denial) -> None:
    body = json.dumps({"code": RefusalCode.AUTH.value, "reason": denial.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if denial.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if scope["type"] == "http":
        kind = "http.response"
    elif "websocket.http.response" in scope.get("extensions", {}):
        kind = "websocket.http.response"
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": f"AUTH {denial.status}"})
        return
    await send({"type": f"{kind}.start", "status": denial.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
