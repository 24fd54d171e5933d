"""uvicorn's WebSocket protocol, with a shorter path for large binary frames: most messages of a cell are one.

The library's parser collects a frame in a growing buffer, copies it out of that, and unmasks it into a third one. Here a large frame
(its length needs eight bytes), whole (FIN), binary, masked, within the size cap and not inside of a fragmented message is read by the
socket straight into the place from which it is decoded, and unmasked there. Every other byte (handshake, small and control frames,
fragments, whatever is malformed or too large) goes to the library's parser as before, which enforces RFC 6455.

This builds on private attributes of uvicorn and websockets: a test names those that an upgrade has removed.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

_READ_BYTES = 65_536
_LARGE_BYTES = 65_536
_LARGE_HEAD = b"\x82\xff"  # FIN, no extension, binary; masked, a length of eight bytes
_LENGTH_BYTES = {126: 2, 127: 8}
# vla-eval lays out its scenes inside of its event loop and answers no ping meanwhile: on a slow machine longer than a robot may be silent
PATIENT_PATHS = ("/vla-eval",)
PATIENT_S = 600.0


class LargeFrames(WebSocketsSansIOProtocol, asyncio.BufferedProtocol):
    """For `uvicorn.Config(ws=...)`. The application gets a large message as a read-only memoryview, everything else as bytes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._buffer = np.empty(_READ_BYTES, np.uint8).data
        self._head = b""  # of the next frame, while it is not whole
        self._left = 0  # bytes of the current frame that are still to come for the parser
        self._payload: NDArray[np.uint8] | None = None  # of the large frame that is on its way
        self._filled, self._mask = 0, b""

    def start_keepalive(self) -> None:
        """Ping from now on; a harness is given minutes to answer, a robot the seconds of the configuration."""
        if self.scope["path"].endswith(PATIENT_PATHS):
            self.ping_timeout = PATIENT_S
        super().start_keepalive()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket writes next: never beyond the end of a large frame."""
        return self._buffer if self._payload is None else self._payload[self._filled :].data

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` bytes were written there."""
        if self._payload is None:
            self.data_received(bytes(self._buffer[:nbytes]))
        else:
            self._filled += nbytes
            self._hand_over_if_whole(self._payload)

    def data_received(self, data: bytes) -> None:
        """The next bytes of the stream. The first are the handshake's request, which uvicorn gives whole and alone."""
        if not self.handshake_initiated:
            super().data_received(data)
            return
        data, self._head, at = self._head + data, b"", 0
        while at < len(data) and not self.transport.is_closing():
            if self._payload is not None:
                at += self._fill(self._payload, data[at:])
            elif self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                super().data_received(data[at : at + step])
                at += step
            elif (head := _head_of(data, at)) is None:
                self._head = data[at:]
                return
            elif data.startswith(_LARGE_HEAD, at) and self._takes(head[1]):
                # Memory is touched only as bytes arrive: a claimed length alone costs the service nothing.
                self._payload, self._filled = np.empty(head[1], np.uint8), 0
                at += head[0]
                self._mask = data[at - 4 : at]
                self._pause_if_behind()
            else:
                self._left = sum(head)

    def _takes(self, length: int) -> bool:
        is_expected = self.conn.state is State.OPEN and self.conn.current_size is None  # neither closing nor inside of a message
        return is_expected and _LARGE_BYTES <= length <= self.config.ws_max_size

    def _fill(self, payload: NDArray[np.uint8], data: bytes) -> int:
        taken = min(len(data), len(payload) - self._filled)
        payload[self._filled : self._filled + taken] = np.frombuffer(data, np.uint8, taken)
        self._filled += taken
        self._hand_over_if_whole(payload)
        return taken

    def _hand_over_if_whole(self, payload: NDArray[np.uint8]) -> None:
        if self._filled < len(payload):
            return
        unmask(payload, self._mask)
        self._payload = None
        if not self.close_sent:  # after the closing frame, messages are still read, and dropped
            self.queue.put_nowait({"type": "websocket.receive", "bytes": cast(bytes, payload.data.toreadonly())})

    def _pause_if_behind(self) -> None:
        """A large frame begins while the application has not taken what came before: stop reading until then.

        The parser's path pauses after every message; for one message at a time, as cells send, that is two system calls too many.
        """
        if not self.queue.empty() and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()


def unmask(payload: NDArray[np.uint8], mask: bytes) -> None:
    """Take a client's mask (four bytes) off, in place."""
    words = len(payload) // 8
    whole, rest = payload[: 8 * words].view(np.uint64), payload[8 * words :]
    key = np.frombuffer(2 * mask, np.uint8)
    np.bitwise_xor(whole, key.view(np.uint64), out=whole)
    np.bitwise_xor(rest, key[: len(rest)], out=rest)


def _head_of(data: bytes, at: int) -> tuple[int, int] | None:
    """How many bytes the head of the frame that begins here has, and its payload; None while too little is there to say so."""
    if len(data) < at + 2:
        return None
    if not data[at + 1] & 0x80:
        return 2, 0  # unmasked: the parser refuses the frame after these two bytes
    width = _LENGTH_BYTES.get(data[at + 1] & 0x7F, 0)
    if len(data) < at + 6 + width:
        return None
    return 6 + width, int.from_bytes(data[at + 2 : at + 2 + width], "big") if width else data[at + 1] & 0x7F
