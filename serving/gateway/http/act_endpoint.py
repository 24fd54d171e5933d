"""`POST /v1/act`: one OBSERVE in, one CHUNK or REJECT out, without a session; for tools. Header Idempotency-Key."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from model_core.spec.errors import WireError
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES, Message, Observe, Reject, decode_message, encode_message
from model_core.spec.types import RefusalCode
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.client_request import BodyTooLarge, read_body, unless_disconnected
from serving.gateway.http.idempotency import IdempotencyCache
from serving.gateway.http.status_codes import CLIENT_GONE, STATUS_OF
from serving.gateway.sessions.gateway import Gateway

MEDIA_TYPE = "application/x-actwright-message"
_BODY_TIMEOUT_S = 30.0


class ActEndpoint:
    """Answers single requests; with an idempotency key, the same request is answered once."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._answers = IdempotencyCache(gateway.limits.max_kept_answers, gateway.limits.state_ttl_s)
        self._most_at_once = 2 * gateway.limits.max_sessions + 8
        self._running = 0

    async def act(self, request: Request) -> Response:
        """Answer one request, unless too many are running."""
        if self._running >= self._most_at_once:  # each holds a body of up to a message's size
            return _response(Reject(code=RefusalCode.OVERLOAD, reason="too many requests at once", retryable=True, retry_after_ms=1000.0))
        self._running += 1
        try:
            return await self._act(request)
        finally:
            self._running -= 1

    async def _act(self, request: Request) -> Response:
        gateway = self._gateway
        key, caller = request.headers.get("idempotency-key", ""), caller_of(request.scope)
        try:
            body = await asyncio.wait_for(read_body(request, MAX_MESSAGE_BYTES), _BODY_TIMEOUT_S)
            message = await asyncio.get_running_loop().run_in_executor(gateway.decoding, decode_message, body)
            if not isinstance(message, Observe):
                raise WireError("expected an OBSERVE")  # noqa: TRY301
        except (WireError, TimeoutError, ClientDisconnect) as error:
            code = RefusalCode.TOO_LARGE if isinstance(error, BodyTooLarge) else RefusalCode.DECODE
            gateway.metrics.rejects.labels(code.value).inc()
            return _response(Reject(code=code, reason=str(error)[:400] or "the body did not arrive in time"))
        if not key:
            try:
                return _response(await unless_disconnected(request, gateway.answer_once(message, caller)))
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
        reply = await self._answers.answer(f"{caller.subject}\0{key[:256]}", body, lambda: gateway.answer_once(message, caller))
        if reply is None:
            reason = "this idempotency key came before with another request"
            return _response(Reject(code=RefusalCode.STALE_OBS, reason=reason, seq=message.seq))
        return _response(reply)


def _response(reply: Message) -> Response:
    headers = {}
    if isinstance(reply, Reject) and reply.retry_after_ms > 0:
        headers["retry-after"] = str(max(1, round(reply.retry_after_ms / 1e3)))
    code = STATUS_OF[reply.code] if isinstance(reply, Reject) else 200
    return Response(encode_message(reply), status_code=code, media_type=MEDIA_TYPE, headers=headers)
