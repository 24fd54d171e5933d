"""One WebSocket from HELLO to its end, over the ASGI messages themselves: a real gateway, no socket and no uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocket

from model_core.access import Caller, Role
from model_core.spec.protocol.wire import Chunk, Control, End, Hello, Message, Ready, Reject, decode_message, encode_message
from model_core.spec.types import RefusalCode
from serving.gateway.http.auth_middleware import CALLER
from serving.gateway.http.websocket_session import serve_session
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway
from tests.fakes import EchoPolicy, make_embodiment
from tests.gateway_parts import observe
from tests.loopback import echo_gateway, wait_until

HELLO = Hello(cell="a", epoch=1, embodiment=make_embodiment())


class Client:
    """The other end of the ASGI messages."""

    def __init__(self, gateway: Gateway, caller: Caller | None = None) -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "websocket", "path": "/v1/session", "headers": [], **({} if caller is None else {CALLER: caller})}
        self._task = asyncio.ensure_future(self._serve(WebSocket(scope, self._in.get, self._out.put), gateway))
        self._in.put_nowait({"type": "websocket.connect"})

    async def _serve(self, ws: WebSocket, gateway: Gateway) -> None:
        await ws.accept()
        await serve_session(ws, gateway)

    def send(self, message: Message | bytes | str) -> None:
        key = "text" if isinstance(message, str) else "bytes"
        self._in.put_nowait({"type": "websocket.receive", key: message if isinstance(message, bytes | str) else encode_message(message)})

    def disconnect(self) -> None:
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def receive(self) -> Message | int:
        """The next message, or the code of the closing."""
        while (event := await asyncio.wait_for(self._out.get(), 10))["type"] == "websocket.accept":
            pass
        return event.get("code", 1000) if event["type"] == "websocket.close" else decode_message(event["bytes"])

    async def ended(self) -> None:
        await asyncio.wait_for(self._task, 10)


def run(scene: Callable[[Gateway], Awaitable[None]], **limits: Any) -> None:
    async def started() -> None:
        gateway = echo_gateway(EchoPolicy(), GatewayLimits(**limits))
        gateway.start()
        await asyncio.to_thread(wait_until, lambda: gateway.is_ready)
        try:
            await scene(gateway)
        finally:
            gateway.stop()

    asyncio.run(started())


def rejected(message: Message | int) -> Reject:
    assert isinstance(message, Reject), message
    return message


async def greeted(gateway: Gateway, caller: Caller | None = None) -> tuple[Client, Ready]:
    client = Client(gateway, caller)
    client.send(HELLO)
    ready = await client.receive()
    assert isinstance(ready, Ready)
    return client, ready


def test_hello_then_observations_then_the_end() -> None:
    async def scene(gateway: Gateway) -> None:
        client, ready = await greeted(gateway)
        for seq in (1, 2):
            client.send(observe(ready, seq))
            chunk = await client.receive()
            assert isinstance(chunk, Chunk)
            assert (chunk.seq, chunk.session_id) == (seq, ready.session_id)
        client.send(End(session_id=ready.session_id, epoch=ready.epoch, episode_id="e", stop_reason="success"))
        client.disconnect()
        await client.ended()
        assert not gateway.sessions

    run(scene)


def test_a_first_message_that_is_no_hello_and_silence_end_the_connection() -> None:
    async def scene(gateway: Gateway) -> None:
        client = Client(gateway)
        client.send(End(session_id="", epoch=0, episode_id="", stop_reason=""))
        assert rejected(await client.receive()).code is RefusalCode.DECODE
        assert await client.receive() == 1008
        silent = Client(gateway)
        assert "no HELLO within" in rejected(await silent.receive()).reason
        assert await silent.receive() == 1008

    run(scene, hello_timeout_s=0.05)


def test_unreadable_messages_are_answered_and_too_many_end_the_connection() -> None:
    async def scene(gateway: Gateway) -> None:
        client, _ = await greeted(gateway)
        for junk in ("text", b"\x02junk", b""):
            client.send(junk)
            assert rejected(await client.receive()).code is RefusalCode.DECODE
        assert await client.receive() == 1008
        await client.ended()
        assert not gateway.sessions

    run(scene, max_bad_messages=3)


def test_controls_of_the_own_session_are_answered_and_others_refused() -> None:
    async def scene(gateway: Gateway) -> None:
        client, ready = await greeted(gateway)

        def control(kind: str, session_id: str = ready.session_id) -> Control:
            return Control(kind=kind, session_id=session_id, epoch=ready.epoch, seq=7, value=3.0)

        client.send(control("PING"))
        pong = await client.receive()
        assert isinstance(pong, Control)
        assert (pong.kind, pong.seq, pong.value) == ("PONG", 7, 3.0)
        client.send(control("LEASE"))
        lease = await client.receive()
        assert isinstance(lease, Control)
        assert 0 < lease.value <= gateway.limits.lease_s
        client.send(control("PING", session_id="another"))
        assert rejected(await client.receive()).code is RefusalCode.STALE_EPOCH
        client.disconnect()
        await client.ended()

    run(scene)


def test_a_kill_needs_the_role_admin() -> None:
    async def scene(gateway: Gateway) -> None:
        operator, ready = await greeted(gateway, Caller(subject="ann", role=Role.OPERATE))
        operator.send(Control(kind="KILL", session_id=ready.session_id, epoch=ready.epoch))
        assert rejected(await operator.receive()).code is RefusalCode.AUTH
        assert not gateway.service_state.kills.in_force
        operator.disconnect()
        await operator.ended()
        admin, ready = await greeted(gateway, Caller(subject="eve", role=Role.ADMIN))
        admin.send(Control(kind="KILL", session_id=ready.session_id, epoch=ready.epoch, text="smoke"))
        kill = await admin.receive()
        assert isinstance(kill, Control)
        assert (kill.kind, "smoke" in kill.text) == ("KILL", True)
        assert gateway.service_state.kills.in_force
        admin.disconnect()
        await admin.ended()

    run(scene)


def test_a_session_that_the_service_ends_is_told_why_and_closed() -> None:
    async def scene(gateway: Gateway) -> None:
        client, ready = await greeted(gateway)
        gateway.close_session(gateway.sessions[ready.session_id], RefusalCode.LEASE, "too long silent")
        reject = rejected(await client.receive())
        assert (reject.code, reject.reason) == (RefusalCode.LEASE, "too long silent")
        assert await client.receive() == 1008
        await client.ended()

    run(scene)
