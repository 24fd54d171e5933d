"""The gateway's endpoints, as a Starlette application.

    WS   /v1/session     HELLO, READY, OBSERVE, PART, CHUNK, REJECT, CONTROL, END (binary; `model_core.spec.protocol.wire`)
    POST /v1/act         one OBSERVE in, one CHUNK or REJECT out, for tools; header Idempotency-Key
    GET  /v1/contract    the contract and the served model
    GET  /v1/models      the served models
    GET  /v1/status      loading, ready, recovering, failed, hung or draining, and why
    GET  /v1/kills       what is stopped, and after how long each cell held
    GET  /v1/shadow      how a candidate's answers differ from the live ones
    POST /v1/admin/...   drain, kill, kills (the fleet's signed list), resume
    GET  /livez /readyz /metrics
    and other projects' protocols: / /openpi /act /vla-eval (`serving.gateway.dialects`)

A client gets codes and sentences, never a traceback. Which role an endpoint needs: `serving.gateway.http.auth_middleware`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from model_core.spec.errors import NotReady, WireError
from model_core.spec.types import RefusalCode
from serving.gateway.dialects import dialect_routes
from serving.gateway.fleet.kill_source import KillSource
from serving.gateway.http.act_endpoint import ActEndpoint
from serving.gateway.http.admin import admin_routes
from serving.gateway.http.auth_middleware import AuthMiddleware
from serving.gateway.http.status_codes import STATUS_OF
from serving.gateway.http.websocket_session import serve_session
from serving.gateway.sessions.gateway import Gateway
from serving.gateway.shadow.named_candidate import NamedCandidate
from serving.gateway.shadow.shadow import Shadow

logger = logging.getLogger(__name__)

_TEND_INTERVAL_S = 0.2


def create_app(
    gateway: Gateway, *, field_maps: Path | None = None, kill_list: str = "", shadow: Shadow | NamedCandidate | None = None
) -> Starlette:
    """An application over `gateway`, which it starts and stops with itself.

    field_maps: names that the dialects use, as JSON. kill_list: a path or an address where the fleet's kill list is polled.
    shadow: a candidate that answers beside the live policy, or whichever one a file names.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.start()
        tending = asyncio.ensure_future(_tend(gateway))
        source = _poll_kills(gateway, kill_list)
        if shadow is not None:
            gateway.registry.mirror = shadow.see
            shadow.start()
        yield
        if shadow is not None:
            shadow.stop()
        if source is not None:
            source.stop()
        tending.cancel()
        gateway.stop()

    routes = [*native_routes(gateway), Route("/v1/shadow", _shadow_route(shadow)), *dialect_routes(gateway, maps=field_maps)]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(AuthMiddleware, tokens=gateway.tokens)])


def _shadow_route(shadow: Shadow | NamedCandidate | None) -> Callable[[Request], Awaitable[Response]]:
    async def compared(_: Request) -> Response:
        return JSONResponse({"state": "none"} if shadow is None else shadow.document())

    return compared


def native_routes(gateway: Gateway) -> list[BaseRoute]:
    """Actwright's own endpoints."""
    endpoints = _Endpoints(gateway)
    return [
        WebSocketRoute("/v1/session", endpoints.session),
        Route("/v1/act", ActEndpoint(gateway).act, methods=["POST"]),
        Route("/v1/contract", endpoints.contract),
        Route("/v1/models", endpoints.models),
        Route("/v1/status", endpoints.status),
        Route("/livez", endpoints.livez),
        Route("/readyz", endpoints.readyz),
        Route("/metrics", endpoints.metrics),
        *admin_routes(gateway),
    ]


class _Endpoints:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # Room for a cell that returns before its old connection is known to be dead, and for as many without a HELLO yet.
        self._most_connections = 2 * gateway.limits.max_sessions + 8
        self._connections = 0

    async def session(self, ws: WebSocket) -> None:
        if self._connections >= self._most_connections:
            self._gateway.metrics.rejects.labels(RefusalCode.OVERLOAD.value).inc()
            await ws.close(code=1013)
            return
        self._connections += 1
        try:
            await ws.accept()
            await serve_session(ws, self._gateway)
        finally:
            self._connections -= 1

    async def contract(self, _: Request) -> Response:
        try:
            model = self._gateway.model
        except NotReady as error:
            code, reason = RefusalCode.NOT_READY, str(error)
            return JSONResponse({"code": code.value, "reason": reason, "error": reason}, status_code=STATUS_OF[code])
        keys = {"contract_id": model.contract_id, "model_version": model.model_version, "bundle_digest": model.bundle_digest}
        return JSONResponse({**keys, "contract": model.contract.to_json()}, headers={"etag": f'"{model.contract_id}"'})

    async def models(self, _: Request) -> Response:
        return JSONResponse({"models": self._gateway.models()})

    async def status(self, _: Request) -> Response:
        return JSONResponse(self._gateway.status())

    async def livez(self, _: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(self, _: Request) -> Response:
        # Open to every client: a state and its reason, nothing about the model or its cells.
        status = self._gateway.status()
        public = {name: status[name] for name in ("state", "reason", "instance")}
        return JSONResponse(public, status_code=200 if self._gateway.is_ready else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(self._gateway.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _poll_kills(gateway: Gateway, where: str) -> KillSource | None:
    """Begin to poll the fleet's kill list; None where there is nothing to poll. Lists are judged on this event loop."""
    if not where:
        return None
    loop = asyncio.get_running_loop()

    def obey(message: bytes) -> None:
        try:
            gateway.supervisor.obey(message, where)
        except WireError as error:
            logger.error("fleet.kill_list_refused source=%s error=%s", where, str(error)[:400])  # noqa: TRY400

    switch = gateway.service_state.kills
    source = KillSource(where, lambda message: _hand_over(loop, obey, message), lambda: min(switch.lease_s / 4, 1.0))
    source.start()
    return source


def _hand_over(loop: asyncio.AbstractEventLoop, obey: Callable[[bytes], None], message: bytes) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(obey, message)


async def _tend(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_TEND_INTERVAL_S)
        try:
            gateway.supervisor.tend()
        except Exception:  # supervision must continue whatever one session did to it
            logger.exception("gateway.tend_failed")
