"""A cell that speaks the protocol by hand, for tests of the service."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TypeVar

from websockets.sync.client import ClientConnection, connect

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.types import RefusalCode
from model_core.spec.wire import Control, Hello, Message, Observe, Ready, Reject, decode_message, encode_message
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
        body: EmbodimentSpec | None = None,
    ) -> None:
        url = f"{'ws' if tls is None else 'wss'}://{address}/v1/session"
        headers = {"Authorization": f"Bearer {token}"} if token else None
        self.socket: ClientConnection = connect(url, compression=None, proxy=None, additional_headers=headers, ssl=tls, close_timeout=0.5)
        self.body = body or make_embodiment()
        self.hello = Hello(cell=cell, epoch=epoch, embodiment=self.body)
        self.ready: Ready | None = None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: Message) -> None:
        self.socket.send(encode_message(message))

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

    def observe(self, seq: int, *, value: int = 7, deadline_ms: float = 2000.0, **changes: object) -> None:
        assert self.ready is not None
        message = Observe(
            session_id=self.ready.session_id,
            epoch=self.ready.epoch,
            seq=seq,
            episode_id="e",
            step=seq,
            deadline_ms=deadline_ms,
            observation=make_observation(self.body, value=value),
        )
        self.send(replace(message, **changes))

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
