"""What a browser may do here, decided before anything is read: other sites may not ask or order, and pages run only our own files.

Requests that change something must come from our own page (`Sec-Fetch-Site`, else `Origin`) or from a program that is no browser (neither
header). On loopback the `Host` must name this machine, so that a foreign name that was pointed at it reaches nothing (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_core.access import is_foreign_origin, names_this_machine

API = "/api/"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class Guards:
    """ASGI middleware. only_loopback: the console is bound to loopback, and other host names are refused."""

    def __init__(self, app: ASGIApp, *, only_loopback: bool) -> None:
        self._app, self._only_loopback = app, only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and add the headers."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["type"] != "http":  # the console has no WebSocket
            await send({"type": "websocket.close", "code": 1008, "reason": "the console has no WebSocket"})
            return
        reason = refusal(scope["method"], scope["path"], scope["scheme"], Headers(scope=scope), only_loopback=self._only_loopback)
        if reason:
            response = JSONResponse({"code": "FOREIGN", "reason": reason}, status_code=403)
            await response(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def refusal(method: str, path: str, scheme: str, headers: Mapping[str, str], *, only_loopback: bool) -> str:
    """Why a request is refused; "" for one that may be answered."""
    host = headers.get("host", "")
    if only_loopback and not names_this_machine(host):
        return f"Host: expected this machine, got {host[:100]!r}. Fix: open the console as http://127.0.0.1:PORT"
    if method in _READS and not path.startswith(API):
        return ""  # a link from elsewhere may open a page
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return f"Sec-Fetch-Site: expected same-origin, got {site[:40]!r}: another site may not use the console"
    if origin is not None and is_foreign_origin(origin, host, scheme):
        return f"Origin: expected {scheme}://{host}, got {origin[:100]!r}: another site may not use the console"
    return ""
