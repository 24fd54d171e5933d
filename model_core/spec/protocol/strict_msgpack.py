"""msgpack <-> Python values, strictly and in one pass.

The reader checks every length, the depth and the number of items before it takes anything, and copies no array: binaries
are views of the message. Extension types do not exist. `WireError` is the only exception that leaves this file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, cast

import msgpack

from model_core.spec.errors import WireError
from model_core.spec.narrowing import is_dict

MAX_DEPTH = 12
MAX_ITEMS = 20_000
LARGE_BYTES = 4096  # from here on binaries are pointed at, and smaller ones copied
QUICK_ITEMS = 256
QUICK_TEXT = 8192

Buffer = bytes | bytearray | memoryview


class NotQuick(WireError):  # noqa: N818
    """The bytes may be well-formed, but reading them takes longer than was allowed."""


def pack(head: bytes, document: Mapping[str, Any]) -> bytes:
    """`head`, then the document. Every large binary is copied once, into the result. Equal values give equal bytes."""
    parts: list[Buffer] = [head]
    packer = msgpack.Packer(use_bin_type=True, autoreset=False)
    try:
        _put(packer, parts, document)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"a value cannot be written: {error}") from error
    parts.append(packer.bytes())
    return b"".join(parts)


def _put(packer: msgpack.Packer, parts: list[Buffer], value: Any) -> None:
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        packer.pack_map_header(len(entries))
        for name, item in entries.items():
            packer.pack(name)
            _put(packer, parts, item)
    elif isinstance(value, bytes | memoryview):
        binary = cast("bytes | memoryview", value)
        if len(binary) < LARGE_BYTES:
            packer.pack(binary)
            return
        parts.append(packer.bytes())
        packer.reset()
        parts.append(struct.pack(">BH", 0xC5, len(binary)) if len(binary) < 2**16 else struct.pack(">BI", 0xC6, len(binary)))
        parts.append(binary)
    else:
        packer.pack(value)


def unpack(data: Buffer, start: int = 0, *, bytes_keys: bool = False, quick: bool = False) -> dict[Any, Any]:
    """The map that fills `data` from `start` to its end; binaries are memoryviews of `data`.

    bytes_keys: keys may also be bytes, as other projects' arrays have them. quick: give up with `NotQuick` after `QUICK_ITEMS`
    items or at a text longer than `QUICK_TEXT` bytes. Raises WireError for anything that is no such map.
    """
    reader = _Reader(data, start, bytes_keys, quick)
    try:
        found = reader.value(0)
    except UnicodeDecodeError as error:
        raise WireError("not msgpack: text that is not UTF-8") from error
    if reader.at != reader.end:
        raise WireError(f"{reader.end - reader.at} bytes follow the value")
    if not is_dict(found):
        raise WireError(f"expected a map, got {type(found).__name__}")
    return found


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {mark: struct.Struct(f">{code}") for mark, code in zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True)}
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_PAST = "a length points past the end of the bytes"


class _Reader:
    """One pass over msgpack bytes. What it builds is bounded by the bytes that are there.

    Short texts are read where they are met and not by a method: half of all values are one, and this runs on event loops.
    """

    __slots__ = ("at", "bytes_keys", "data", "end", "items", "quick", "view")

    def __init__(self, data: Buffer, start: int, bytes_keys: bool, quick: bool) -> None:
        self.data, self.view, self.bytes_keys, self.quick = data, memoryview(data), bytes_keys, quick
        self.at, self.end, self.items = start, len(data), 1

    def value(self, depth: int) -> Any:
        at = self.at
        if at >= self.end:
            raise WireError("the bytes end in the middle of a value")
        mark = self.data[at]
        self.at = at + 1
        if mark <= 0x7F:
            return mark
        if mark <= 0x8F:
            return self._map(mark & 0x0F, depth)
        if mark <= 0x9F:
            return self._list(mark & 0x0F, depth)
        if mark <= 0xBF:
            self.at = stop = at + 1 + (mark & 0x1F)
            if stop > self.end:
                raise WireError(_PAST)
            return str(self.view[at + 1 : stop], "utf-8")
        return mark - 256 if mark >= 0xE0 else self._long(mark, depth)

    def _long(self, mark: int, depth: int) -> Any:
        if mark in _NUMBERS:
            number = _NUMBERS[mark]
            return number.unpack(self._take(number.size))[0]
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark in _BINARIES:
            return self._take(self._count(_BINARIES[mark]))
        if mark in _TEXTS:
            count = self._count(_TEXTS[mark])
            if count > QUICK_TEXT and self.quick:
                raise NotQuick(f"text of more than {QUICK_TEXT} bytes")
            return str(self._take(count), "utf-8")
        if mark in _LISTS:
            return self._list(self._count(_LISTS[mark]), depth)
        if mark in _MAPS:
            return self._map(self._count(_MAPS[mark]), depth)
        raise WireError(f"msgpack type 0x{mark:02x} is not allowed here")

    def _count(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _take(self, count: int) -> memoryview:
        begin = self.at
        self.at = end = begin + count
        if end > self.end:
            raise WireError(_PAST)
        return self.view[begin:end]

    def _enter(self, count: int, children: int, depth: int) -> None:
        """Before a list or map is built: so many values follow."""
        if children > self.end - self.at:  # each takes at least one byte
            raise WireError(_PAST)
        self.items += children
        if self.items > QUICK_ITEMS and self.quick:
            raise NotQuick(f"more than {QUICK_ITEMS} items")
        if self.items > MAX_ITEMS:
            raise WireError(f"more than {MAX_ITEMS} items")
        if count and depth >= MAX_DEPTH:
            raise WireError(f"nested deeper than {MAX_DEPTH}")

    def _list(self, count: int, depth: int) -> list[Any]:
        self._enter(count, count, depth)
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        self._enter(count, 2 * count, depth)
        data, view, end, value, depth = self.data, self.view, self.end, self.value, depth + 1
        found: dict[Any, Any] = {}
        for _ in range(count):
            begin = self.at + 1
            mark = data[begin - 1] if begin <= end else 0
            stop = begin + (mark & 0x1F)
            if 0xA0 <= mark <= 0xBF and stop <= end:  # a short text, as nearly every key is
                self.at = stop
                key: Any = str(view[begin:stop], "utf-8")
            else:
                key = value(depth)
                if self.bytes_keys and isinstance(key, memoryview):
                    key = bytes(cast("memoryview", key))
                elif not isinstance(key, str):
                    raise WireError(f"expected text as the key of a map, got {type(key).__name__}")
            if key in found:
                raise WireError(f"the key {key[:40]!r} appears twice in one map")
            found[key] = value(depth)
        return found
