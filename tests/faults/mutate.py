"""Good messages -> messages that nobody meant: seeded, by bytes and by structure, for msgpack and for JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np

NASTY: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63), 1e308, -1e308, float("nan"), float("inf"), 5e-324,
    "", "x" * 300, "x" * 5000, "\x00", "../../etc/passwd", "{}", "0", "true", "ＮａＮ", "‮",
    b"", b"\x00" * 16, b"\xff" * 64, [], {}, [[]], [None] * 20, [[[[[[[[[[[[[[1]]]]]]]]]]]]]], {"a": {"a": {"a": {"a": {}}}}},
    {"dtype": "object", "shape": [1], "data": b"12345678"}, {"dtype": "|O", "shape": [2], "data": b"\x10" * 16},
    {"dtype": "|V8", "shape": [1], "data": b"12345678"}, {"dtype": "float32", "shape": [-1], "data": b""},
    {"dtype": "float32", "shape": [2**40, 2**40], "data": b"1234"}, {"dtype": "uint8", "shape": [0, 0, 3], "data": b""},
    {"__ndarray__": True, "dtype": "|O", "shape": [1], "data": b"12345678"},
    {b"__ndarray__": True, b"data": b"1234", b"dtype": "|O", b"shape": [1]},
    {"__numpy__": "AAAAAAAA", "dtype": "|O", "shape": [1]}, {"__numpy__": "!!!", "dtype": "<f4", "shape": [4]},
    {"__numpy__": "AAAA", "dtype": "<f4", "shape": [10**9]}, {"nd": True, "type": "O", "kind": b"O", "shape": [1], "data": b"x"},
)  # fmt: skip


def mutants(seeds: Sequence[bytes], seed: int, *, text: bool = False, head: int = 0) -> Mutator:
    """An endless source of malformed messages made from good ones. head: leading bytes that are no msgpack (a version byte)."""
    return Mutator(seeds, np.random.default_rng(seed), text=text, head=head)


class Mutator:
    """`next()` gives one malformed message; the same seeds and seed give the same messages."""

    def __init__(self, seeds: Sequence[bytes], rng: np.random.Generator, *, text: bool, head: int) -> None:
        self._seeds, self._rng, self._text, self._head = list(seeds), rng, text, head
        self._by_bytes: list[Callable[[bytes], bytes]] = [
            self._truncate,
            self._flip,
            self._splice,
            self._insert,
            self._noise,
            self._lengths,
        ]

    def next(self) -> bytes:
        """One message."""
        good = self._seeds[int(self._rng.integers(len(self._seeds)))]
        if self._rng.random() < 0.6:
            return self._structural(good)
        return self._by_bytes[int(self._rng.integers(len(self._by_bytes)))](good)

    # --- by bytes -----------------------------------------------------------------------------------------------------

    def _truncate(self, good: bytes) -> bytes:
        return good[: int(self._rng.integers(0, len(good)))]

    def _flip(self, good: bytes) -> bytes:
        data = bytearray(good)
        # Mostly near the front, where the structure is, not in the pixels.
        reach = len(data) if self._rng.random() < 0.3 else min(len(data), 400)
        for place in self._rng.integers(0, reach, int(self._rng.integers(1, 6))):
            data[int(place)] ^= 1 << int(self._rng.integers(8))
        return bytes(data)

    def _splice(self, good: bytes) -> bytes:
        other = self._seeds[int(self._rng.integers(len(self._seeds)))]
        return good[: int(self._rng.integers(0, len(good)))] + other[int(self._rng.integers(0, len(other))) :]

    def _insert(self, good: bytes) -> bytes:
        place = int(self._rng.integers(0, min(len(good), 400)))
        return good[:place] + self._rng.bytes(int(self._rng.integers(1, 9))) + good[place:]

    def _noise(self, good: bytes) -> bytes:
        return good[: self._head] + self._rng.bytes(int(self._rng.integers(0, 200)))

    def _lengths(self, good: bytes) -> bytes:
        heads = [
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\x7f\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x01",
        ]
        nested = [
            b"\x91" * 3000 + b"\xc0",
            b"\x81\xa1a" * 1500 + b"\xc0",
            b"[" * 3000,
            b'{"a":' * 2000,
            b"9" * 5000,
            b'"' + b"\\u0000" * 900,
        ]
        options = nested if self._text else heads + nested
        return good[: self._head] + options[int(self._rng.integers(len(options)))]

    # --- by structure -------------------------------------------------------------------------------------------------

    def _structural(self, good: bytes) -> bytes:
        document = json.loads(good) if self._text else msgpack.unpackb(good[self._head :], raw=False, strict_map_key=False)
        document = copy.deepcopy(document)
        for _ in range(int(self._rng.integers(1, 4))):
            document = self._changed(document)
        try:
            if self._text:
                return json.dumps(document, default=lambda value: value.decode("latin1")).encode()
            return good[: self._head] + bytes(msgpack.packb(document))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self._flip(good)

    def _changed(self, document: Any) -> Any:
        places = list(_places(document))
        if not places:
            return self._nasty()
        owner, key = places[int(self._rng.integers(len(places)))]
        draw = self._rng.random()
        if draw < 0.15 and isinstance(owner, dict):
            del owner[key]
        elif draw < 0.25 and isinstance(owner, dict):
            owner[f"x{int(self._rng.integers(100))}"] = self._nasty()
        elif draw < 0.35 and isinstance(owner, list):
            owner.extend([self._nasty()] * int(self._rng.integers(1, 40)))
        elif draw < 0.42:
            owner[key] = [owner[key]] * int(self._rng.integers(1, 30))
        else:
            owner[key] = self._nasty()
        return document

    def _nasty(self) -> Any:
        value = copy.deepcopy(NASTY[int(self._rng.integers(len(NASTY)))])
        if not self._text:
            return value
        try:
            json.dumps(value, default=lambda item: item.decode("latin1"))
        except TypeError:  # keys that are bytes
            return "x"
        return value


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in `document`."""
    if isinstance(document, dict):
        found = [(document, key) for key in document]
        return found + [place for value in document.values() for place in _places(value)]
    if isinstance(document, list) and len(document) <= 64:
        found = [(document, index) for index in range(len(document))]
        return found + [place for value in document for place in _places(value)]
    return []
