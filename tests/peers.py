"""A cell that speaks the protocol by hand, for tests of the service."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Self, TypeVar

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES, Control, Hello, Message, Observe, Ready, Reject, decode_message, encode_message
from model_core.spec.types import Observation, RefusalCode
from tests.blocking_socket import BlockingSocket
from tests.fakes import make_embodiment, make_observation

M = TypeVar("M", bound=Message)


class Peer:
    """A cell that speaks the protocol by hand."""

    def __init__(
        self,
        address: str,
        cell: str = "cell-a",
        epoch: int = 1,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        body: EmbodimentSpec | None = None,
    ) -> None:
        url = f"{'ws' if tls is None else 'wss'}://{address}/v1/session"
        named = {"Authorization": f"Bearer {token}"} if token else headers
        self.socket = BlockingSocket(url, headers=named or {}, tls=tls, open_timeout_s=20, max_size=MAX_MESSAGE_BYTES)
        self.body = body or make_embodiment()
        self.hello = Hello(cell=cell, epoch=epoch, embodiment=self.body)
        self.ready: Ready | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: Message | bytes | str) -> None:
        self.socket.send(message if isinstance(message, bytes | str) else encode_message(message))

    def receive(self, timeout_s: float = 5.0) -> Message:
        data = self.socket.recv(timeout=timeout_s)
        assert isinstance(data, bytes)
        return decode_message(data)

    def greet(self, **changes: object) -> Message:
        self.send(replace(self.hello, **changes))
        answer = self.receive()
        if isinstance(answer, Ready):
            self.ready = answer
        return answer

    def observe(self, seq: int, *, value: int = 7, deadline_ms: float = 2000.0, **changes: object) -> Observe:
        """Send a question; what was sent."""
        assert self.ready is not None
        message = Observe(
            session_id=self.ready.session_id,
            epoch=self.ready.epoch,
            seq=seq,
            episode_id="e",
            step=seq,
            deadline_ms=deadline_ms,
            observation=self.sees(value),
        )
        message = replace(message, **changes)
        self.send(message)
        return message

    def sees(self, value: int) -> Observation:
        """What its body sees."""
        return make_observation(self.body, value=value)

    def control(self, kind: str, **changes: object) -> None:
        assert self.ready is not None
        self.send(replace(Control(kind=kind, session_id=self.ready.session_id, epoch=self.ready.epoch), **changes))

    def receive_kind(self, kind: type[M], timeout_s: float = 5.0) -> M:
        message = self.receive(timeout_s)
        assert isinstance(message, kind), message
        return message


def rejected(message: Message, code: RefusalCode) -> Reject:
    assert isinstance(message, Reject), message
    assert message.code is code, message
    return message
