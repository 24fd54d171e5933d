"""Camera frames and traces in the audit file, as Foxglove and Rerun show them: CompressedImage (Protobuf), ImageAnnotations (JSON)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from model_core.spec.errors import WireError

IMAGE_SCHEMA = "foxglove.CompressedImage"


TRACE_SCHEMA = "foxglove.ImageAnnotations"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One encoded camera frame. format: "png" or "jpeg". time_ns: since 1970."""

    camera: str
    format: str
    data: bytes
    time_ns: int


def encode_frame(frame: Frame) -> bytes:
    """`foxglove.CompressedImage` {timestamp = 1, data = 2, format = 3, frame_id = 4}."""
    seconds, nanos = divmod(frame.time_ns, 10**9)
    stamp = _varint_field(1, seconds) + _varint_field(2, nanos)
    return (
        _bytes_field(1, stamp)
        + _bytes_field(2, frame.data)
        + _bytes_field(3, frame.format.encode())
        + _bytes_field(4, frame.camera.encode())
    )


def decode_frame(message: bytes) -> Frame:
    """The inverse of `encode_frame`. Raises WireError for other bytes."""
    try:
        found = dict(_fields(message))
        stamp = dict(_fields(_as_bytes(found[1])))
        time_ns = int(stamp.get(1, 0)) * 10**9 + int(stamp.get(2, 0))
        return Frame(camera=_as_bytes(found[4]).decode(), format=_as_bytes(found[3]).decode(), data=_as_bytes(found[2]), time_ns=time_ns)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise WireError(f"not a CompressedImage message: {error!r}") from error


def image_schema() -> bytes:
    """The FileDescriptorSet of CompressedImage, for readers that know no schema by name."""
    stamp = _message("Timestamp", [("seconds", 1, _INT64, ""), ("nanos", 2, _INT32, "")])
    image = _message(
        "CompressedImage",
        [
            ("timestamp", 1, _MESSAGE, ".google.protobuf.Timestamp"),
            ("frame_id", 4, _STRING, ""),
            ("data", 2, _BYTES, ""),
            ("format", 3, _STRING, ""),
        ],
    )
    files = (
        _file("google/protobuf/timestamp.proto", "google.protobuf", stamp),
        _file("foxglove/CompressedImage.proto", "foxglove", image, needs="google/protobuf/timestamp.proto"),
    )
    return b"".join(_bytes_field(1, file) for file in files)


def trace_drawing(points: list[tuple[float, float]], time_ns: int) -> bytes:
    """`foxglove.ImageAnnotations` (JSON): a trace as a yellow line. points: pixels of the camera's frame."""
    seconds, nanos = divmod(time_ns, 10**9)
    line = {
        "timestamp": {"sec": seconds, "nsec": nanos},
        "type": 3,
        "points": [{"x": x, "y": y} for x, y in points],
        "outline_color": {"r": 1.0, "g": 0.77, "b": 0.24, "a": 1.0},
        "outline_colors": [],
        "fill_color": {"r": 0.0, "g": 0.0, "b": 0.0, "a": 0.0},
        "thickness": 2.0,
    }
    return json.dumps({"circles": [], "points": [line], "texts": []}, sort_keys=True, separators=(",", ":")).encode()


def trace_schema() -> bytes:
    """JSON Schema of ImageAnnotations, as far as `trace_drawing` uses it."""
    number, whole = {"type": "number"}, {"type": "integer"}
    color = {"type": "object", "properties": dict.fromkeys("rgba", number)}
    point = {"type": "object", "properties": {"x": number, "y": number}}
    line = {
        "timestamp": {"type": "object", "title": "time", "properties": {"sec": whole, "nsec": whole}},
        "type": whole,
        "points": {"type": "array", "items": point},
        "outline_color": color,
        "outline_colors": {"type": "array", "items": color},
        "fill_color": color,
        "thickness": number,
    }
    lists = {
        "circles": {"type": "array"},
        "points": {"type": "array", "items": {"type": "object", "properties": line}},
        "texts": {"type": "array"},
    }
    return json.dumps({"title": TRACE_SCHEMA, "type": "object", "properties": lists}, sort_keys=True).encode()


_INT64, _INT32, _STRING, _MESSAGE, _BYTES = 3, 5, 9, 11, 12  # FieldDescriptorProto.Type


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _message(name: str, members: list[tuple[str, int, int, str]]) -> bytes:
    body = _bytes_field(1, name.encode())
    for member, number, kind, type_name in members:
        field = _bytes_field(1, member.encode()) + _varint_field(3, number) + _varint_field(4, 1) + _varint_field(5, kind)
        body += _bytes_field(2, field + (_bytes_field(6, type_name.encode()) if type_name else b""))
    return body


def _file(path: str, package: str, message: bytes, *, needs: str = "") -> bytes:
    head = _bytes_field(1, path.encode()) + _bytes_field(2, package.encode())
    return head + (_bytes_field(3, needs.encode()) if needs else b"") + _bytes_field(4, message) + _bytes_field(12, b"proto3")


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        value, place = _read_varint(message, place)
        if key & 7 == 2:
            if place + value > len(message):
                raise ValueError("a field is longer than the message")
            found.append((key >> 3, message[place : place + value]))
            place += value
        elif key & 7 == 0:
            found.append((key >> 3, value))
        else:
            raise ValueError(f"wire type {key & 7}")
    return found


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number where bytes belong")
    return value
