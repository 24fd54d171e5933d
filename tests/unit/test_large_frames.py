"""The short way for large frames and the library's own way, fed with the same bytes: they must say and do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.speedups import apply_mask

from serving.gateway.http.large_frames import PATIENT_S, LargeFrames, unmask

CAP = 400_000
HANDSHAKE = (
    b"GET /v1/session HTTP/1.1\r\nHost: cell\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass
class FakeTransport(asyncio.Transport):
    """A socket as far as the protocol looks at it. written: by the protocol. reads: whether it wants more bytes."""

    written: bytearray = field(default_factory=bytearray)
    reads: bool = True
    closing: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


@dataclass
class Told:
    """What a peer and the application learned of one stream. closes: whether the connection was ended."""

    messages: list[tuple[str, Any]]
    written: bytes
    closes: bool


def opened(
    kind: type[WebSocketsSansIOProtocol], path: str = "/v1/session", ping_interval: float | None = None
) -> tuple[WebSocketsSansIOProtocol, FakeTransport]:
    """A protocol after the handshake."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    config = Config(
        app, ws=kind, ws_max_size=CAP, ws_per_message_deflate=False, ws_ping_interval=ping_interval, ws_ping_timeout=10.0, log_config=None
    )
    config.load()
    protocol, transport = kind(config, ServerState(), {}), FakeTransport()
    protocol.connection_made(transport)
    protocol.data_received(HANDSHAKE.replace(b"/v1/session", path.encode()))
    return protocol, transport


PRIVATE_ATTRIBUTES = {
    "uvicorn's WebSocketsSansIOProtocol": (
        *("handshake_initiated", "transport", "conn", "config", "close_sent", "queue", "read_paused"),
        *("start_keepalive", "scope", "ping_timeout"),
    ),
    "websockets' ServerProtocol": ("state", "current_size"),
    "uvicorn's Config": ("ws_max_size",),
}


def test_uvicorn_and_websockets_still_have_the_private_attributes_that_large_frames_uses() -> None:
    """A canary: an upgrade that removes one of them fails here, by name, and not inside of a connection."""

    async def scene() -> list[str]:
        protocol, _ = opened(WebSocketsSansIOProtocol)
        objects = dict(zip(PRIVATE_ATTRIBUTES, (protocol, protocol.conn, protocol.config), strict=True))
        return [f"{owner}.{name}" for owner, names in PRIVATE_ATTRIBUTES.items() for name in names if not hasattr(objects[owner], name)]

    missing = asyncio.run(scene())
    assert not missing, f"serving/gateway/http/large_frames.py uses {', '.join(missing)}, which the installed version does not have"


async def accepted(kind: type[WebSocketsSansIOProtocol]) -> tuple[WebSocketsSansIOProtocol, FakeTransport]:
    protocol, transport = opened(kind)
    await asyncio.sleep(0)
    assert protocol.handshake_complete
    transport.written.clear()
    protocol.queue.get_nowait()  # "websocket.connect"
    return protocol, transport


def give(protocol: WebSocketsSansIOProtocol, data: bytes, at_most: int) -> None:
    """Bytes as a selector loop gives them: into the protocol's buffer where it has one."""
    if isinstance(protocol, LargeFrames):
        while data and not protocol.transport.is_closing():
            room = protocol.get_buffer(-1)
            taken = min(len(room), len(data), at_most)
            assert taken > 0
            room[:taken] = data[:taken]
            protocol.buffer_updated(taken)
            data = data[taken:]
    else:
        protocol.data_received(data)


def told(kind: type[WebSocketsSansIOProtocol], pieces: Sequence[bytes], at_most: int = 65_536) -> Told:
    """One connection that gets these pieces, until it ends itself."""

    async def run() -> Told:
        protocol, transport = await accepted(kind)
        for piece in pieces:
            if not transport.closing:
                give(protocol, piece, at_most)
        messages = []
        while not protocol.queue.empty():
            event: Any = protocol.queue.get_nowait()
            value = event.get("bytes")
            messages.append((event["type"], event.get("text", event.get("code")) if value is None else bytes(value)))
        for task in protocol.tasks:
            task.cancel()
        return Told(messages, bytes(transport.written), transport.closing)

    return asyncio.run(run())


def frame(data: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True, rsv1: bool = False, mask: bool = True) -> bytes:
    """One frame, also one that the library itself would not write."""
    written = bytearray(Frame(opcode if fin or opcode not in {8, 9, 10} else Opcode.CONT, data, fin).serialize(mask=mask))
    written[0] = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    return bytes(written)


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


LARGE = noise(200_000)
STREAMS: dict[str, list[bytes]] = {
    "one large": [frame(LARGE)],
    "as large as allowed": [frame(noise(CAP))],
    "the smallest large": [frame(noise(65_536))],
    "just not large": [frame(noise(65_535)), frame(b"next")],
    "a tail of every length": [frame(noise(70_000 + n, n)) for n in range(9)],
    "large, ping, small, large": [frame(LARGE), frame(b"are you there", Opcode.PING), frame(b"ab"), frame(LARGE[:99_999]), frame(b"")],
    "text": [frame("häh".encode(), Opcode.TEXT), frame(b"t" * 70_000, Opcode.TEXT), frame(LARGE)],
    "fragments": [frame(LARGE, fin=False), frame(b"p", Opcode.PING), frame(b"rest", Opcode.CONT), frame(LARGE)],
    "large fragments": [frame(b"a", fin=False), frame(LARGE, Opcode.CONT, fin=False), frame(b"", Opcode.CONT), frame(LARGE)],
    "close": [frame(LARGE), frame(b"\x03\xe8bye", Opcode.CLOSE), frame(LARGE)],
    "too large": [frame(LARGE), frame(noise(CAP + 1)), frame(LARGE)],
    "as long as 2**63": [b"\x82\xff" + b"\xff" * 8 + b"mask" + LARGE],
    "fragments that are too large together": [frame(LARGE, fin=False), frame(LARGE, Opcode.CONT, fin=False), frame(b"x", Opcode.CONT)],
    "large inside of a fragmented message": [frame(b"a", fin=False), frame(LARGE)],
    "continues nothing": [frame(LARGE, Opcode.CONT)],
    "not masked": [frame(LARGE), frame(LARGE, mask=False), frame(LARGE)],
    "not masked, small": [frame(b"ab", mask=False)],
    "reserved bit": [frame(LARGE, rsv1=True), frame(LARGE)],
    "unknown opcode": [b"\x83\xff" + (70_000).to_bytes(8, "big") + b"mask" + LARGE],
    "large ping": [frame(b"", Opcode.PING), b"\x89\xff" + (70_000).to_bytes(8, "big") + b"mask" + LARGE],
    "fragmented ping": [frame(b"p", Opcode.PING, fin=False)],
    "no UTF-8": [frame(b"\xff\xfe", Opcode.TEXT), frame(LARGE)],
    "a length of eight bytes that needs none": [b"\x82\xff" + (5).to_bytes(8, "big") + b"\0\0\0\0hello", frame(LARGE)],
    "ends in the middle": [frame(LARGE)[:150_000]],
    "ends in a head": [frame(LARGE), frame(LARGE)[:9]],
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("cut", [None, 1, 7, 65_536])
def test_same_messages_answers_and_end(name: str, cut: int | None) -> None:
    stream = b"".join(STREAMS[name])
    if cut == 1:  # every byte alone, around every edge of a frame; elsewhere it would only take long
        edges = np.cumsum([0, *map(len, STREAMS[name])])
        cuts = sorted({int(e) + n for e in edges for n in range(-3, 18) if 0 <= e + n <= len(stream)})
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    else:
        step = cut * 997 if cut == 7 else cut or len(stream)
        pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
    # Frame by frame: of what comes in one read, the library forgets the good messages before a bad frame; we do not.
    expected = told(WebSocketsSansIOProtocol, STREAMS[name])
    assert told(LargeFrames, pieces) == expected
    assert told(LargeFrames, pieces, at_most=50_001) == expected


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_stream_cut_anywhere(data: st.DataObject) -> None:
    sizes = st.sampled_from([0, 1, 125, 126, 65_535, 65_536, 70_001, CAP, CAP + 1])
    frames = data.draw(
        st.lists(
            st.tuples(sizes, st.sampled_from(list(Opcode)), st.booleans(), st.integers(0, 9)).filter(lambda f: f[1] < 8 or f[0] <= 125),
            max_size=6,
        )
    )
    written = [frame(noise(size, seed), opcode, fin=fin or seed > 2, mask=seed != 9) for size, opcode, fin, seed in frames]
    stream = b"".join(written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert told(LargeFrames, pieces) == told(WebSocketsSansIOProtocol, written)


@pytest.mark.parametrize("feed", [lambda p, d: p.data_received(d), lambda p, d: give(p, d, 10_000)])
def test_bytes_may_come_either_way(feed: Callable[[LargeFrames, bytes], None]) -> None:
    async def run() -> list[Any]:
        protocol, _ = await accepted(LargeFrames)
        assert isinstance(protocol, LargeFrames)
        stream = frame(LARGE) + frame(b"small") + frame(LARGE[1:])
        feed(protocol, stream[:100_000])
        feed(protocol, stream[100_000:])
        found: list[Any] = [protocol.queue.get_nowait() for _ in range(3)]
        for task in protocol.tasks:
            task.cancel()
        return [bytes(event["bytes"]) for event in found]

    assert asyncio.run(run()) == [LARGE, b"small", LARGE[1:]]


def test_frames_before_the_answer_to_the_handshake_keep_their_edges() -> None:
    async def run() -> list[bytes]:
        protocol, _ = opened(LargeFrames)
        give(protocol, frame(LARGE)[:100_000], 65_536)  # not accepted yet
        await asyncio.sleep(0)
        assert protocol.handshake_complete
        give(protocol, frame(LARGE)[100_000:] + frame(LARGE), 65_536)
        found: list[Any] = [protocol.queue.get_nowait() for _ in range(3)]
        for task in protocol.tasks:
            task.cancel()
        return [bytes(event["bytes"]) for event in found[1:]]

    first, second = asyncio.run(run())
    assert len(first) == len(LARGE)  # its mask is another one: both frames were drawn anew
    assert second == LARGE


def test_large_messages_cannot_be_written_to() -> None:
    async def run() -> None:
        protocol, _ = await accepted(LargeFrames)
        give(protocol, frame(LARGE), 65_536)
        event: Any = await protocol.receive()
        assert isinstance(event["bytes"], memoryview)
        assert event["bytes"].readonly
        for task in protocol.tasks:
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("first", [LARGE, b"small"])
def test_a_large_frame_waits_with_its_sender_while_another_message_waits_here(first: bytes) -> None:
    async def run() -> None:
        protocol, transport = await accepted(LargeFrames)
        give(protocol, frame(first) + frame(LARGE)[:14], 65_536)
        assert not transport.reads
        event: Any = await protocol.receive()
        assert bytes(event["bytes"]) == first
        assert transport.reads
        for task in protocol.tasks:
            task.cancel()

    asyncio.run(run())


def test_a_length_alone_takes_no_memory_that_is_touched() -> None:
    async def run() -> int:
        protocol, _ = await accepted(LargeFrames)
        give(protocol, frame(noise(CAP))[:14], 65_536)
        assert len(protocol.get_buffer(-1)) == CAP  # type: ignore[attr-defined]
        give(protocol, b"\x00" * 1000, 65_536)
        room = len(protocol.get_buffer(-1))  # type: ignore[attr-defined]
        for task in protocol.tasks:
            task.cancel()
        return room

    assert asyncio.run(run()) == CAP - 1000


@given(size=st.integers(0, 100), mask=st.binary(min_size=4, max_size=4))
def test_unmask_is_the_library_s(size: int, mask: bytes) -> None:
    masked = noise(size, size)
    payload = np.frombuffer(masked, np.uint8).copy()
    unmask(payload, mask)
    assert payload.tobytes() == apply_mask(masked, mask)


@pytest.mark.parametrize(
    ("path", "patience_s"), [("/v1/session", 10.0), ("/vla-eval", PATIENT_S), ("/mounted/vla-eval?token=x", PATIENT_S)]
)
def test_a_harness_that_blocks_its_event_loop_is_given_minutes_to_answer_a_ping(path: str, patience_s: float) -> None:
    async def run() -> float | None:
        protocol, _ = opened(LargeFrames, path, ping_interval=60.0)
        await asyncio.sleep(0)
        assert protocol.handshake_complete
        assert protocol.ping_timer is not None  # it is still asked: a connection that is gone does not stay for ever
        protocol.stop_keepalive()
        for task in protocol.tasks:
            task.cancel()
        return protocol.ping_timeout

    assert asyncio.run(run()) == patience_s
