"""The gateway's endpoints, as a Starlette application.

    WS   /v1/session     HELLO, READY, OBSERVE, PART, CHUNK, REJECT, CONTROL, END (binary; `model_core.spec.protocol.wire`)
    POST /v1/act         one OBSERVE in, one CHUNK or REJECT out, for tools; header Idempotency-Key
    GET  /v1/contract    the contract and who answers
    GET  /v1/models      what is served
    GET  /v1/status      loading, ready, recovering, failed, hung or draining, and why
    POST /v1/admin/...   drain, kill, resume
    GET  /livez /readyz /metrics
    and other projects' protocols: / /openpi /act /vla-eval (`serving.gateway.dialects`)

A peer gets codes and sentences, never a traceback. Who may do what is in `serving.gateway.http.auth_middleware`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from model_core.spec.errors import NotReady, WireError
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES, Message, Observe, Reject, decode_message, encode_message
from model_core.spec.types import RefusalCode
from serving.gateway.dialects import dialect_routes
from serving.gateway.http.admin import admin_routes
from serving.gateway.http.auth_middleware import Doorkeeper, caller_of
from serving.gateway.http.disconnect import unless_gone
from serving.gateway.http.idempotency import KeptAnswers
from serving.gateway.http.websocket_session import converse
from serving.gateway.sessions.gateway import Gateway

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/x-actwright-message"
_TEND_S = 0.2
_BODY_S = 30.0
_GONE = 499  # nobody reads it
STATUS = {
    RefusalCode.CONTRACT: 409,
    RefusalCode.DECODE: 400,
    RefusalCode.NONFINITE: 422,
    RefusalCode.UNSAFE: 422,
    RefusalCode.PARSE: 422,
    RefusalCode.STALE_OBS: 409,
    RefusalCode.STALE_EPOCH: 409,
    RefusalCode.DEADLINE: 504,
    RefusalCode.OVERLOAD: 429,
    RefusalCode.NOT_READY: 503,
    RefusalCode.INTERNAL: 500,
    RefusalCode.TOO_LARGE: 413,
    RefusalCode.AUTH: 401,
    RefusalCode.LEASE: 409,
    RefusalCode.DRAINING: 503,
    RefusalCode.KILLED: 503,
    RefusalCode.CANCELLED: 409,
}


def create_app(gateway: Gateway, *, field_maps: Path | None = None) -> Starlette:
    """An application over `gateway`, which it starts and stops with itself. field_maps: names that the dialects use, as JSON."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.start()
        tending = asyncio.ensure_future(_tend(gateway))
        yield
        tending.cancel()
        gateway.stop()

    routes = [*native_routes(gateway), *dialect_routes(gateway, STATUS, maps=field_maps)]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Doorkeeper, tokens=gateway.tokens)])


def native_routes(gateway: Gateway) -> list[BaseRoute]:
    """Our own endpoints."""
    kept = KeptAnswers(gateway.limits.max_kept_answers, gateway.limits.state_ttl_s)

    connections = itertools.count()
    open_now: set[int] = set()
    asking = 0

    async def session(ws: WebSocket) -> None:
        # Room for a cell that returns before its old connection is known to be dead, and for as many that are not greeted yet.
        if len(open_now) >= 2 * gateway.limits.max_sessions + 8:
            gateway.metrics.rejects.labels(RefusalCode.OVERLOAD.value).inc()
            await ws.close(code=1013)
            return
        number = next(connections)
        open_now.add(number)
        try:
            await ws.accept()
            await converse(ws, gateway)
        finally:
            open_now.discard(number)

    async def act(request: Request) -> Response:
        nonlocal asking
        if asking >= 2 * gateway.limits.max_sessions + 8:  # each holds a body of up to a message's size
            return _told(Reject(code=RefusalCode.OVERLOAD, reason="too many requests at once", retryable=True, retry_after_ms=1000.0))
        asking += 1
        try:
            return await _act(request, gateway, kept)
        finally:
            asking -= 1

    async def contract(_: Request) -> Response:
        try:
            who = gateway.identity
        except NotReady as error:
            return _refusal(RefusalCode.NOT_READY, str(error))
        keys = {"contract_id": who.contract_id, "model_version": who.model_version, "bundle_digest": who.bundle_digest}
        return JSONResponse({**keys, "contract": who.contract.to_json()}, headers={"etag": f'"{who.contract_id}"'})

    async def models(_: Request) -> Response:
        return JSONResponse({"models": gateway.models()})

    async def status(_: Request) -> Response:
        return JSONResponse(gateway.status())

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        # Open to everybody: a state and its reason, nothing about the model or who is here.
        told = {name: gateway.status()[name] for name in ("state", "reason", "instance")}
        return JSONResponse(told, status_code=200 if gateway.is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(gateway.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return [
        WebSocketRoute("/v1/session", session),
        Route("/v1/act", act, methods=["POST"]),
        Route("/v1/contract", contract),
        Route("/v1/models", models),
        Route("/v1/status", status),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        *admin_routes(gateway),
    ]


async def _tend(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(_TEND_S)
        try:
            gateway.tend()
        except Exception:  # tending must go on whatever one session did to it
            logger.exception("gateway.tend_failed")


async def _act(request: Request, gateway: Gateway, kept: KeptAnswers) -> Response:
    key, caller = request.headers.get("idempotency-key", ""), caller_of(request.scope)
    try:
        body = await asyncio.wait_for(_body(request), _BODY_S)
        message = await asyncio.get_running_loop().run_in_executor(gateway.decoding, decode_message, body)
        if not isinstance(message, Observe):
            raise WireError("expected an OBSERVE")  # noqa: TRY301
    except (WireError, TimeoutError, ClientDisconnect) as error:
        code = RefusalCode.TOO_LARGE if isinstance(error, _TooLargeError) else RefusalCode.DECODE
        gateway.metrics.rejects.labels(code.value).inc()
        return _told(Reject(code=code, reason=str(error)[:400] or "the body did not arrive in time"))
    if not key:
        try:
            return _told(await unless_gone(request, gateway.answer_once(message, caller)))
        except ClientDisconnect:
            return Response(status_code=_GONE)
    reply = await kept.answer(f"{caller.subject}\0{key[:256]}", body, lambda: gateway.answer_once(message, caller))
    if reply is None:
        return _told(Reject(code=RefusalCode.STALE_OBS, reason="this idempotency key came before with another request", seq=message.seq))
    return _told(reply)


def _told(reply: Message) -> Response:
    headers = {}
    if isinstance(reply, Reject) and reply.retry_after_ms > 0:
        headers["retry-after"] = str(max(1, round(reply.retry_after_ms / 1e3)))
    code = STATUS[reply.code] if isinstance(reply, Reject) else 200
    return Response(encode_message(reply), status_code=code, media_type=MEDIA_TYPE, headers=headers)


def _refusal(code: RefusalCode, reason: str) -> Response:
    return JSONResponse({"code": code.value, "reason": reason, "error": reason}, status_code=STATUS[code])


class _TooLargeError(WireError):
    """More bytes than are taken."""


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_MESSAGE_BYTES:
            raise _TooLargeError(f"a message has at most {MAX_MESSAGE_BYTES} bytes")
    return bytes(data)
