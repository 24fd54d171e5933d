"""One native WebSocket from HELLO to the end: bytes in, messages out. Its rules are in `sessions.session`.

A message that takes longer to decode than an ordinary one, and every compressed or converted image, is decoded in a thread. All
messages are sent through one queue, so that a PART arrives before its CHUNK and a client that never reads delays no other. A client
that sends too many unreadable messages, or floods, is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from model_core.access import Role
from model_core.spec.contract import PROTOCOL_VERSION
from model_core.spec.errors import WireError
from model_core.spec.protocol.strict_msgpack import NotQuick
from model_core.spec.protocol.wire import Chunk, Control, End, Hello, Message, Observe, Reject, decode_message, encode_message, version_of
from model_core.spec.types import RefusalCode
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.send_queue import SendQueue
from serving.gateway.sessions.gateway import Gateway
from serving.gateway.sessions.observation_adapter import PreparedObservation
from serving.gateway.sessions.replies import rejection
from serving.gateway.sessions.session import Session

logger = logging.getLogger(__name__)

_MAX_AWAITED = 4
_THROTTLE_S = 0.05

_Reply = asyncio.Future[Chunk | Reject]


class _Disconnected(Exception):  # noqa: N818
    """The client has gone."""


async def serve_session(ws: WebSocket, gateway: Gateway) -> None:
    """Serve one accepted connection to its end."""
    send_queue = SendQueue(ws.send_bytes, limit=gateway.limits.max_outbox, timeout_s=gateway.limits.send_timeout_s)
    connection = WebSocketSession(ws, gateway, send_queue)
    code = 1000
    try:
        code = await connection.run()
    except (_Disconnected, WebSocketDisconnect):
        pass
    except Exception:  # whatever a client managed to break, it gets a code and other clients get nothing
        logger.exception("conversation.failed")
        send_queue.put(Reject(code=RefusalCode.INTERNAL, reason="the service failed; its log has the details"))
        code = 1011
    await send_queue.flush()
    await send_queue.close()
    if ws.application_state is not WebSocketState.DISCONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await ws.close(code=code)


class WebSocketSession:
    """One accepted connection of a cell."""

    def __init__(self, ws: WebSocket, gateway: Gateway, send_queue: SendQueue) -> None:
        self._ws, self._gateway, self._send_queue = ws, gateway, send_queue
        self._caller = caller_of(ws.scope)
        self._awaited: list[tuple[_Reply, Callable[[_Reply], None]]] = []  # replies that are awaited, and their callbacks
        self._bad_messages = 0
        self._peer_version = PROTOCOL_VERSION

    async def run(self) -> int:
        """Serve it to its end; returns the code to close with."""
        session = await self._handshake()
        if session is None:
            return 1008
        session.send = self._send_queue.put
        listening = asyncio.ensure_future(self._listen(session))
        stuck = asyncio.ensure_future(self._send_queue.overflowed.wait())
        ended = asyncio.ensure_future(session.ended.wait())
        try:
            await asyncio.wait({listening, stuck, ended}, return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else 1008
        finally:
            session.send = None
            self._gateway.close_session(session)
            for task in (listening, stuck, ended):
                task.cancel()
            for reply, send in self._awaited:  # the client has gone
                reply.remove_done_callback(send)
            await asyncio.gather(listening, stuck, ended, return_exceptions=True)

    async def _handshake(self) -> Session | None:
        try:
            message = await asyncio.wait_for(self._receive(None), self._gateway.limits.hello_timeout_s)
        except (TimeoutError, WireError) as error:
            text = str(error) or f"no HELLO within {self._gateway.limits.hello_timeout_s:g} s"
            self._reject(RefusalCode.DECODE, text)
            return None
        if not isinstance(message, Hello):
            self._reject(RefusalCode.DECODE, "the first message must be HELLO")
            return None
        session, answer = self._gateway.open_session(message, self._caller)
        self._send_queue.put(answer)
        return session

    async def _listen(self, session: Session) -> int:
        while self._bad_messages < self._gateway.limits.max_bad_messages:
            try:
                message = await self._receive(session)
            except WireError as error:
                self._bad_messages += 1
                self._reject(RefusalCode.DECODE, str(error)[:400], session)
                continue
            except _Disconnected:
                return 1000
            if isinstance(message, PreparedObservation):
                await self._observe(session, message)
            elif isinstance(message, End):
                self._gateway.renew(session)
                self._gateway.end_episode(session, message)
            elif isinstance(message, Control):
                self._control(session, message)
            else:
                self._bad_messages += 1
                self._reject(RefusalCode.DECODE, f"{type(message).__name__.upper()} is not expected here", session)
            del message  # not kept while waiting for the next one: it holds images
        logger.warning("peer.let_go cell=%s bad_messages=%d", session.cell, self._bad_messages)
        return 1008

    async def _observe(self, session: Session, prepared: PreparedObservation) -> None:
        while len(self._awaited) >= _MAX_AWAITED:  # one is outstanding, one replaces it; a client that floods waits for its replies
            await asyncio.wait({reply for reply, _ in self._awaited}, return_when=asyncio.FIRST_COMPLETED)
        try:
            asked = self._gateway.ask(session, prepared)
        except Exception:
            self._failed(session, prepared.observe)
            return
        if isinstance(asked, Reject):
            self._send_queue.put(asked)
        else:
            send = functools.partial(self._send_reply, session, prepared.observe)
            self._awaited.append((asked, send))
            asked.add_done_callback(send)
        if self._gateway.is_throttled(session):
            self._bad_messages += 1
            await asyncio.sleep(_THROTTLE_S)  # only this client's socket fills up meanwhile

    def _send_reply(self, session: Session, observe: Observe, reply: _Reply) -> None:
        place = next(n for n, (awaited, _) in enumerate(self._awaited) if awaited is reply)
        del self._awaited[place]
        try:
            self._send_queue.put(self._gateway.final_reply(session, observe, reply.result()))
        except Exception:
            self._failed(session, observe)

    def _failed(self, session: Session, observe: Observe) -> None:
        """A fault of the service must not leave the cell without an answer."""
        logger.exception("session.failed cell=%s seq=%d", session.cell, observe.seq)
        self._send_queue.put(rejection(observe, RefusalCode.INTERNAL, "the service failed; its log has the details"))

    def _control(self, session: Session, message: Control) -> None:
        gateway = self._gateway
        if not session.is_ours(message):
            self._reject(RefusalCode.STALE_EPOCH, f"CONTROL {message.kind} is of another session; reconnect with a new HELLO", session)
            return
        left_s = gateway.renew(session)
        match message.kind:
            case "CANCEL":
                session.cancel(message.seq)
            case "RESET":
                session.reset()
            case "HOLD":
                session.drop("the cell holds")
                gateway.supervisor.held(session)
            case "LEASE":
                self._send_queue.put(session.control("LEASE", seq=message.seq, value=left_s))
            case "PING":
                self._send_queue.put(session.control("PONG", seq=message.seq, value=message.value))
            case "DRAIN" if self._may(Role.OPERATE, session, message):
                gateway.supervisor.drain(self._caller, message.text)
            case "KILL" if self._may(Role.ADMIN, session, message):
                gateway.supervisor.kill(self._caller, message.text)
            case _:
                pass

    def _may(self, needed: Role, session: Session, message: Control) -> bool:
        tokens = self._gateway.tokens
        if self._caller.role.allows(needed) and (tokens is None or tokens.still_valid(self._caller)):
            return True
        self._reject(
            RefusalCode.AUTH, f"CONTROL {message.kind} needs the role {needed}, {self._caller.subject!r} has {self._caller.role}", session
        )
        return False

    def _reject(self, code: RefusalCode, reason: str, session: Session | None = None) -> None:
        self._gateway.metrics.rejects.labels(code.value).inc()
        where = ("", 0) if session is None else (session.ready.session_id, session.ready.epoch)
        reject = Reject(session_id=where[0], epoch=where[1], code=code, reason=reason)
        # A client of version 1 must be able to read why it is refused.
        self._send_queue.put_bytes(encode_message(reject, version=self._peer_version))

    async def _receive(self, session: Session | None) -> Message | PreparedObservation:
        """The next message; an OBSERVE is prepared already. Raises WireError for bytes that are no message, _Disconnected at the end."""
        event = await self._ws.receive()
        if event["type"] == "websocket.disconnect":
            raise _Disconnected
        data, arrived_at = event.get("bytes"), self._gateway.now()
        if data is None:
            raise WireError("messages are binary, this one is text")
        if session is None and version_of(data) == 1:
            self._peer_version = 1
        loop = asyncio.get_running_loop()
        try:
            # Raw images are not copied here, only referenced; the way to a thread and back would take longer.
            message = decode_message(data, quick=True)
        except NotQuick:
            return await loop.run_in_executor(self._gateway.decoding, self._decode, session, data, arrived_at)
        if not isinstance(message, Observe) or session is None:
            return message
        if self._gateway.prepares_quickly(session, message):
            return self._gateway.prepare(session, message, arrived_at)
        return await loop.run_in_executor(self._gateway.decoding, self._gateway.prepare, session, message, arrived_at)

    def _decode(self, session: Session | None, data: bytes, arrived_at: float) -> Message | PreparedObservation:
        message = decode_message(data)
        if isinstance(message, Observe) and session is not None:
            return self._gateway.prepare(session, message, arrived_at)
        return message
