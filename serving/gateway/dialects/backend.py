"""The part of the gateway that dialects use: an observation in, a chunk or a refusal out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.websockets import WebSocket

from model_core.access import ANYBODY, Caller
from model_core.spec.errors import NotReady
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES, Chunk, Observe, Reject
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.inference.served_model import ServedModel
from serving.gateway.sessions.gateway import Gateway
from serving.gateway.sessions.observation_adapter import ObservationAdapter

T = TypeVar("T")


class PeerGone(Exception):  # noqa: N818
    """The client has disconnected, or sent what its dialect does not allow at this point."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What a client asks. session_key: identifies it in logs.

    consumed: actions that it was given since it asked last; adapter: what remembers its last images; both only where the dialect says so.
    """

    observation: Observation
    session_key: str
    consumed: int = 0
    adapter: ObservationAdapter | None = None


class Backend:
    """What a dialect may do. Lives on the event loop."""

    def __init__(self, gateway: Gateway, *, deadline_s: float) -> None:
        self._gateway, self._deadline_s = gateway, deadline_s
        self._open = 0

    @property
    def is_ready(self) -> bool:
        """The model answers."""
        return self._gateway.is_ready

    @property
    def reason(self) -> str:
        """Why it does not answer, for people."""
        return str(self._gateway.status()["reason"])

    @property
    def model(self) -> ServedModel | None:
        """The served model; None before it is loaded."""
        try:
            return self._gateway.model
        except NotReady:
            return None

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread: decoding on the event loop would delay every other client."""
        return await asyncio.get_running_loop().run_in_executor(self._gateway.decoding, work)

    async def answer(self, asked: Asked, caller: Caller = ANYBODY) -> Chunk | Reject:
        """One answer, by the gateway's own rules."""
        observe = Observe(
            session_id=asked.session_key,
            epoch=0,
            seq=1,
            episode_id="",
            step=0,
            deadline_ms=1e3 * self._deadline_s,
            observation=asked.observation,
            consumed=asked.consumed,
        )
        return await self._gateway.answer_once(observe, caller, asked.adapter)

    async def answer_to(self, ws: WebSocket, asked: Asked) -> tuple[Chunk | Reject, bytes | None]:
        """`answer`, given up when the client disconnects meanwhile. Also returns a message that came early, or None.

        Raises `PeerGone`.
        """
        answering = asyncio.ensure_future(self.answer(asked, caller_of(ws.scope)))
        listening = asyncio.ensure_future(receive(ws))
        try:
            done, _ = await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
            early = listening.result() if listening in done else None
            return await answering, early
        finally:
            for task in (answering, listening):
                task.cancel()

    def refuse(self, code: RefusalCode) -> None:
        """Count a refusal that never reached the gateway."""
        self._gateway.metrics.rejects.labels(code.value).inc()

    def enter(self) -> bool:
        """One more connection, if there is room: each holds at most one message and one chunk."""
        if self._open >= self._gateway.limits.max_sessions:
            return False
        self._open += 1
        return True

    def leave(self) -> None:
        """One connection less."""
        self._open -= 1


async def receive(ws: WebSocket) -> bytes:
    """The next binary message; raises `PeerGone` at the end, and for text or for too many bytes."""
    event = await ws.receive()
    data = event.get("bytes")
    if event["type"] == "websocket.disconnect" or data is None or len(data) > MAX_MESSAGE_BYTES:
        raise PeerGone(f"messages are binary and have at most {MAX_MESSAGE_BYTES} bytes")
    return data


def notes_of(chunk: Chunk) -> dict[str, Any]:
    """What is said of an answer beside its actions: the reasoning level that was served, and what was noticed or cheapened."""
    return {"level": chunk.level, "flags": list(chunk.flags)}
