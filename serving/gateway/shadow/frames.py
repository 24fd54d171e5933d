"""What the gateway and its candidate process say to each other over an inherited socket: frames of a length and so many bytes.

candidate  -> {"contract": ..., "model_version": ..., "bundle_digest": ...}   once, when it is loaded; or {"error": ...}
gateway    -> OBSERVE, then the live CHUNK                                      (`model_core.spec.protocol.wire`)
candidate  -> CHUNK or REJECT, then {"depth": mean distance of the decoded depth maps} or {}
"""

from __future__ import annotations

import socket
import struct
import time

from model_core.spec.errors import WireError
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES

_LENGTH = struct.Struct(">I")


def send_frame(sock: socket.socket, data: bytes) -> None:
    """Send one frame. Raises OSError, TimeoutError among them."""
    sock.sendall(_LENGTH.pack(len(data)) + data)


def receive_frame(sock: socket.socket, give_up_at: float | None = None) -> bytes:
    """The next frame. give_up_at: monotonic; then TimeoutError. Raises EOFError at the end, WireError for an impossible length."""
    (length,) = _LENGTH.unpack(_receive(sock, _LENGTH.size, give_up_at))
    if length > MAX_MESSAGE_BYTES:
        raise WireError(f"a frame of {length} bytes, at most {MAX_MESSAGE_BYTES} are taken")
    return _receive(sock, length, give_up_at)


def _receive(sock: socket.socket, count: int, give_up_at: float | None) -> bytes:
    data = bytearray()
    while len(data) < count:
        if give_up_at is not None:
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("no frame in time")
            sock.settimeout(left_s)
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError("the other end is gone")
        data += part
    return bytes(data)
