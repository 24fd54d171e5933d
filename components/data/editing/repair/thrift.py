"""The compact protocol of Thrift, in which Parquet describes pages and files: any struct read into plain values and written again.

A struct is {field number: (type, value)}; a list is (type of its elements, values).
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 5, 6, 7, 8, 9, 10, 12
Struct = dict[int, tuple[int, Any]]


def read_struct(data: memoryview, place: int) -> tuple[Struct, int]:
    """(struct, place after it). Raises ValueError or IndexError for bytes that are none."""
    found: Struct = {}
    number = 0
    while header := data[place]:
        place += 1
        kind, step = header & 15, header >> 4
        if step:
            number += step
        else:
            zigzag, place = _read_varint(data, place)
            number = _from_zigzag(zigzag)
        value, place = (kind == TRUE, place) if kind in (TRUE, FALSE) else _read_value(data, place, kind)
        found[number] = (kind, value)
    return found, place + 1


def write_struct(struct: Struct) -> bytes:
    """The bytes of a struct."""
    out, before = bytearray(), 0
    for number, (kind, value) in sorted(struct.items()):
        kind = (TRUE if value else FALSE) if kind in (TRUE, FALSE) else kind
        if 0 < number - before <= 15:
            out.append((number - before) << 4 | kind)
        else:
            out += bytes([kind]) + _varint(_to_zigzag(number))
        out += b"" if kind in (TRUE, FALSE) else _write_value(kind, value)
        before = number
    return bytes(out) + b"\0"


def _read_value(data: memoryview, place: int, kind: int) -> tuple[Any, int]:
    if kind in (3,):
        return data[place], place + 1
    if kind in (4, I32, I64):
        zigzag, place = _read_varint(data, place)
        return _from_zigzag(zigzag), place
    if kind == DOUBLE:
        return bytes(data[place : place + 8]), place + 8
    if kind == BINARY:
        size, place = _read_varint(data, place)
        if place + size > len(data):
            raise ValueError("text is longer than the file")
        return bytes(data[place : place + size]), place + size
    if kind in (LIST, SET):
        return _read_list(data, place)
    if kind == STRUCT:
        return read_struct(data, place)
    raise ValueError(f"type {kind} of the compact protocol")


def _read_list(data: memoryview, place: int) -> tuple[Any, int]:
    header = data[place]
    place += 1
    size, kind = header >> 4, header & 15
    if size == 15:
        size, place = _read_varint(data, place)
    if size > len(data):
        raise ValueError("a list is longer than the file")
    values: list[Any] = []
    for _ in range(size):
        value, place = (data[place] == TRUE, place + 1) if kind in (TRUE, FALSE) else _read_value(data, place, kind)
        values.append(value)
    return (kind, values), place


def _write_value(kind: int, value: Any) -> bytes:
    if kind in (LIST, SET):
        inner, values = value
        head = bytes([len(values) << 4 | inner]) if len(values) < 15 else bytes([0xF0 | inner]) + _varint(len(values))
        is_flag = inner in (TRUE, FALSE)
        return head + b"".join(bytes([TRUE if one else FALSE]) if is_flag else _write_value(inner, one) for one in values)
    if kind == STRUCT:
        return write_struct(value)
    if kind == BINARY:
        return _varint(len(value)) + value
    if kind == DOUBLE:
        return value
    return bytes([value]) if kind == 3 else _varint(_to_zigzag(value))


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _from_zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _to_zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1
