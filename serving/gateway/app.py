"""The gateway's endpoints, as a Starlette application.

    WS   /v1/session    HELLO, READY, OBSERVE, CHUNK, REJECT, END (binary; `model_core.spec.wire`)
    POST /v1/act        one OBSERVE in, one CHUNK or REJECT out, for tools
    GET  /v1/contract   the contract and who answers
    GET  /v1/status     loading, ready, failed or hung, and why
    GET  /livez /readyz /metrics

A peer gets codes and sentences, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from model_core.spec.errors import NotReady, WireError
from model_core.spec.types import RefusalCode
from model_core.spec.wire import MAX_MESSAGE_BYTES, End, Hello, Message, Observe, Reject, decode_message, encode_message
from serving.gateway.gateway import Gateway
from serving.gateway.session import Session

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/x-actwright-message"
_INLINE_BYTES = 256 * 1024
_STATUS = {
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


def create_app(gateway: Gateway) -> Starlette:
    """An application over `gateway`, which it starts and stops with itself."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.start()
        yield
        gateway.stop()

    async def session(ws: WebSocket) -> None:
        await ws.accept()
        with contextlib.suppress(WebSocketDisconnect):
            await _converse(ws, gateway)

    async def act(request: Request) -> Response:
        return await _act(request, gateway)

    async def contract(_: Request) -> Response:
        try:
            who = gateway.identity
        except NotReady as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        return JSONResponse({"contract_id": who.contract_id, "model_version": who.model_version, "contract": who.contract.to_json()})

    async def status(_: Request) -> Response:
        return JSONResponse(gateway.status())

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        return JSONResponse(gateway.status(), status_code=200 if gateway.is_ready else 503)

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(gateway.metrics.text())

    routes = [
        WebSocketRoute("/v1/session", session),
        Route("/v1/act", act, methods=["POST"]),
        Route("/v1/contract", contract),
        Route("/v1/status", status),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _converse(ws: WebSocket, gateway: Gateway) -> None:
    session = await _handshake(ws, gateway)
    if session is None:
        await ws.close(code=1008)
        return
    answers: set[asyncio.Task[None]] = set()
    try:
        await _listen(ws, gateway, session, answers)
    finally:
        gateway.close_session(session)
        for task in answers:
            task.cancel()


async def _handshake(ws: WebSocket, gateway: Gateway) -> Session | None:
    try:
        message = await asyncio.wait_for(_receive(ws), gateway.limits.hello_timeout_s)
    except (TimeoutError, WireError) as error:
        text = str(error) or f"no HELLO within {gateway.limits.hello_timeout_s:g} s"
        await _send(ws, Reject(code=RefusalCode.DECODE, reason=text))
        return None
    if not isinstance(message, Hello):
        await _send(ws, Reject(code=RefusalCode.DECODE, reason="the first message must be HELLO"))
        return None
    session, answer = gateway.open_session(message)
    await _send(ws, answer)
    return session


async def _listen(ws: WebSocket, gateway: Gateway, session: Session, answers: set[asyncio.Task[None]]) -> None:
    bad_messages = 0
    while bad_messages < gateway.limits.max_bad_messages:
        try:
            message = await _receive(ws)
        except WireError as error:
            bad_messages += 1
            gateway.metrics.rejects.labels(RefusalCode.DECODE.value).inc()
            await _send(
                ws, Reject(session_id=session.ready.session_id, epoch=session.ready.epoch, code=RefusalCode.DECODE, reason=str(error)[:400])
            )
            continue
        if isinstance(message, Observe):
            if len(answers) >= 4:  # one is outstanding, one replaces it; a peer that floods is answered in turn
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.get_running_loop().create_task(_answer(ws, gateway, session, message))
            answers.add(task)
            task.add_done_callback(answers.discard)
        elif isinstance(message, End):
            session.end_episode(message)
            logger.info("episode.ended cell=%s episode=%s reason=%s", session.cell, message.episode_id, message.stop_reason)
        else:
            bad_messages += 1
            await _send(ws, Reject(code=RefusalCode.DECODE, reason=f"{type(message).__name__.upper()} is not expected here"))
    await ws.close(code=1002)


async def _answer(ws: WebSocket, gateway: Gateway, session: Session, observe: Observe) -> None:
    reply = await gateway.answer(session, observe)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the cell has gone: nobody to tell
        await _send(ws, reply)


async def _receive(ws: WebSocket) -> Message:
    """The next message; raises WireError for anything that is not one, WebSocketDisconnect at the end."""
    event = await ws.receive()
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1000))
    data = event.get("bytes")
    if data is None:
        raise WireError("messages are binary, this one is text")
    if len(data) <= _INLINE_BYTES:
        return decode_message(data)
    return await asyncio.to_thread(decode_message, data)  # large pictures must not hold up the other cells


async def _send(ws: WebSocket, message: Message) -> None:
    await ws.send_bytes(encode_message(message))


async def _act(request: Request, gateway: Gateway) -> Response:
    try:
        message = decode_message(await _body(request))
        if not isinstance(message, Observe):
            raise WireError("expected an OBSERVE")  # noqa: TRY301
    except WireError as error:
        reply: Message = Reject(code=RefusalCode.DECODE, reason=str(error)[:400])
    else:
        reply = await gateway.answer_once(message)
    code = _STATUS[reply.code] if isinstance(reply, Reject) else 200
    return Response(encode_message(reply), status_code=code, media_type=MEDIA_TYPE)


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_MESSAGE_BYTES:
            raise WireError(f"a message has at most {MAX_MESSAGE_BYTES} bytes")
    return bytes(data)
