"""Valid bytes -> damaged bytes. Seeded; every damage is a function of the bytes and a generator."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import numpy as np

from model_core.spec.contract import PROTOCOL_VERSION

Damaged = bytes | str


def damage(name: str, data: bytes, rng: np.random.Generator, *, count: int = 1) -> Damaged:
    """`data` after damage `name` (a key of `catalog.BYTES`); a `str` is sent as a text frame."""
    return _DAMAGES[name](data, rng, max(count, 1))


def _truncate(data: bytes, rng: np.random.Generator, _: int) -> bytes:
    return data[: int(rng.integers(0, max(len(data), 1)))]


def _flip(data: bytes, rng: np.random.Generator, count: int) -> bytes:
    flipped = bytearray(data)
    for bit in rng.integers(0, 8 * len(data), count):
        flipped[int(bit) // 8] ^= 1 << (int(bit) % 8)
    return bytes(flipped)


def _noise(data: bytes, rng: np.random.Generator, _: int) -> bytes:
    return rng.bytes(int(rng.integers(0, 2 * len(data) + 2)))


def _rewritten(data: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    document = msgpack.unpackb(data[1:], raw=False)
    change(document)
    return data[:1] + msgpack.packb(document, use_bin_type=True)


def _first_array(document: object) -> dict[str, object] | None:
    if isinstance(document, dict):
        if {"dtype", "shape", "data"} <= document.keys():
            return document
        return next((found for value in document.values() if (found := _first_array(value)) is not None), None)
    return None


def _object_dtype(data: bytes, _: np.random.Generator, __: int) -> bytes:
    def change(document: dict[str, object]) -> None:
        array = _first_array(document)
        if array is not None:
            array["dtype"] = "object"

    return _rewritten(data, change)


def _shape_lie(data: bytes, rng: np.random.Generator, _: int) -> bytes:
    shape = [[2**31, 2**31], [-1, 4], [10**6, 4], [1, 1]][int(rng.integers(0, 4))]

    def change(document: dict[str, object]) -> None:
        array = _first_array(document)
        if array is not None:
            array["shape"] = shape

    return _rewritten(data, change)


def _unknown_type(data: bytes, _: np.random.Generator, __: int) -> bytes:
    return _rewritten(data, lambda document: document.update(type="OBEY"))


_HEAD = bytes([PROTOCOL_VERSION])
_DAMAGES: dict[str, Callable[[bytes, np.random.Generator, int], Damaged]] = {
    "truncate": _truncate,
    "flip": _flip,
    "noise": _noise,
    "deep": lambda *_: _HEAD + b"\x91" * 5000 + b"\xc0",
    "huge-length": lambda *_: _HEAD + b"\xdd\xff\xff\xff\xff",
    "text": lambda *_: "this is a text frame",
    "extension": lambda *_: _HEAD + b"\x81\xa4type\xc7\x04\x05evil",
    "object-dtype": _object_dtype,
    "shape-lie": _shape_lie,
    "protocol": lambda data, *_: bytes([data[0] ^ 0x40]) + data[1:],
    "unknown-type": _unknown_type,
}
