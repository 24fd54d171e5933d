"""Messages and recorded episodes <-> bytes. Strict in both directions, and never a pickle.

    message = version byte | msgpack map {"type": "OBSERVE", field: value, ...}
    episode = b"ACTWEPIS" | version byte | SHA-256 of the rest (32 bytes) | msgpack map

An array is the map {dtype, shape, data}: dtype from a whitelist of plain little-endian numbers, `data` of exactly
the size that the shape says. In an episode, long arrays are stored as differences along the time axis, deflated
(lossless, equal arrays give equal bytes). Before anything is allocated the raw bytes are walked once
(`_walk`): depth, number of items and every length are checked there, and extension types do not exist.

A field that this version does not know is ignored; a type that it does not know is refused. `WireError` is the only
exception that leaves `decode_message` and `decode_episode`.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PROTOCOL_VERSION, EmbodimentSpec, PolicyContract, embodiment_from_json
from model_core.spec.errors import ActwrightError, WireError
from model_core.spec.types import CameraGeometry, Episode, Observation, Provenance, RefusalCode, Trace

EPISODE_MAGIC = b"ACTWEPIS"
EPISODE_VERSION = 1
MAX_MESSAGE_BYTES = 16 * 2**20
MAX_EPISODE_BYTES = 512 * 2**20
MAX_ARRAY_BYTES = 2**31
MAX_DEPTH = 12
MAX_ITEMS = 20_000
MAX_NDIM = 5
DTYPES = ("uint8", "int16", "uint16", "int32", "int64", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hello:
    """Cell -> service, first: who I am and what body I have. `epoch` counts this cell's connections, from 1."""

    cell: str
    epoch: int
    embodiment: EmbodimentSpec
    protocol: int = PROTOCOL_VERSION
    software: str = ""
    expected_contract_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ready:
    """Service -> cell: you may ask. The whole contract travels, so that the cell can check it for itself."""

    session_id: str
    epoch: int
    model_version: str
    contract: PolicyContract
    max_message_bytes: int = MAX_MESSAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observe:
    """Cell -> service: what I see; answer within `deadline_ms` of sending. `age_ms`: camera -> age when sent."""

    session_id: str
    epoch: int
    seq: int
    episode_id: str
    step: int
    deadline_ms: float
    observation: Observation
    age_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Service -> cell: what to do, why (depth tokens, trace), by whom, and until when.

    actions_KA: float32 (K, A) in the contract's units. expires_ms: from the moment the observation was taken; after
    that no row may be executed. depth_codes_G and trace_N2 are None where the model was told not to reason.
    """

    session_id: str
    epoch: int
    seq: int
    chunk_id: str
    contract_id: str
    model_version: str
    actions_KA: NDArray[np.float32]
    control_hz: float
    expires_ms: float
    depth_codes_G: NDArray[np.int64] | None = None
    trace_N2: NDArray[np.int64] | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    batch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reject:
    """Service -> cell: no chunk, and why. `details` lists every field of a contract that does not fit."""

    code: RefusalCode
    reason: str
    session_id: str = ""
    epoch: int = 0
    seq: int = 0
    retryable: bool = False
    retry_after_ms: float = 0.0
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class End:
    """Cell -> service: this episode is over; what was queued for it is dropped."""

    session_id: str
    epoch: int
    episode_id: str
    stop_reason: str
    success: bool = False


Message = Hello | Ready | Observe | Chunk | Reject | End


def encode_message(message: Message) -> bytes:
    """One of our messages -> bytes. Equal messages give equal bytes. Raises WireError for a value no field allows."""
    name = type(message).__name__.upper()
    if name not in _MESSAGES:
        raise WireError(f"{type(message).__name__} is not a message; there are {', '.join(_MESSAGES)}")
    return bytes([PROTOCOL_VERSION]) + _pack({"type": name, **_to_document(message, _MESSAGES[name][1])})


def decode_message(data: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Message:
    """Bytes -> one of our messages. Raises WireError, and nothing else, for any other bytes."""
    if not isinstance(data, bytes | bytearray) or len(data) < 2:
        raise WireError("a message is binary and has at least two bytes")
    if len(data) > max_bytes:
        raise WireError(f"a message has at most {max_bytes} bytes, got {len(data)}")
    if data[0] != PROTOCOL_VERSION:
        raise WireError(f"this side speaks protocol version {PROTOCOL_VERSION}, the message is of version {data[0]}")
    document = _unpack(bytes(data[1:]))
    name = document.pop("type", None)
    if not isinstance(name, str) or name not in _MESSAGES:
        raise WireError(f"unknown message type {str(name)[:40]!r}; there are {', '.join(_MESSAGES)}")
    cls, kinds = _MESSAGES[name]
    return cast(Message, _from_document(cls, kinds, document))


def encode_episode(episode: Episode) -> bytes:
    """A recorded episode -> bytes, lossless; equal episodes give equal bytes."""
    body = _pack(_to_document(episode, _EPISODE))
    return EPISODE_MAGIC + bytes([EPISODE_VERSION]) + hashlib.sha256(body).digest() + body


def decode_episode(data: bytes, *, max_bytes: int = MAX_EPISODE_BYTES) -> Episode:
    """Bytes -> the episode. Raises WireError naming what is wrong: magic, version, truncation, flipped bits, a field."""
    start = len(EPISODE_MAGIC) + 1 + 32
    if len(data) > max_bytes:
        raise WireError(f"a recorded episode has at most {max_bytes} bytes, got {len(data)}")
    if len(data) < start or not data.startswith(EPISODE_MAGIC):
        raise WireError("this is not a recorded episode: it does not begin with the episode mark")
    if data[len(EPISODE_MAGIC)] != EPISODE_VERSION:
        raise WireError(f"recorded with episode format {data[len(EPISODE_MAGIC)]}, this version reads {EPISODE_VERSION}")
    body = bytes(data[start:])
    if hashlib.sha256(body).digest() != bytes(data[start - 32 : start]):
        raise WireError("the recorded episode is damaged: its checksum does not match (truncated or changed)")
    return cast(Episode, _from_document(Episode, _EPISODE, _unpack(body)))


# --- fields: how one value is written and how it is checked when read -----------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _expect(claim: bool, expected: str, value: object) -> None:
    if not claim:
        raise WireError(f"expected {expected}, got {type(value).__name__} {str(value)[:60]!r}")


def _text(limit: int = 256) -> _Kind:
    def check(value: Any) -> str:
        _expect(isinstance(value, str) and len(value) <= limit, f"text of at most {limit} characters", value)
        return str(value)

    return _Kind(check, check)


def _whole(low: int = 0, high: int = 2**53) -> _Kind:
    def check(value: Any) -> int:
        _expect(type(value) is int and low <= value <= high, f"a whole number {low}..{high}", value)
        return value

    return _Kind(check, check)


def _real(low: float = -1e15, high: float = 1e15) -> _Kind:
    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(is_number and math.isfinite(value) and low <= value <= high, f"a finite number {low:g}..{high:g}", value)
        return float(value)

    return _Kind(check, check)


def _flag() -> _Kind:
    def check(value: Any) -> bool:
        _expect(type(value) is bool, "true or false", value)
        return value

    return _Kind(check, check)


def _optional(kind: _Kind) -> _Kind:
    return _Kind(lambda v: None if v is None else kind.write(v), lambda v: None if v is None else kind.read(v))


def _mapping(kind: _Kind, limit: int = 64) -> _Kind:
    name = _text(128)

    def checked(value: Any) -> Mapping[Any, Any]:
        _expect(isinstance(value, Mapping) and len(value) <= limit, f"a map of at most {limit} entries", value)
        return value

    return _Kind(
        lambda value: {name.write(k): kind.write(v) for k, v in checked(value).items()},
        lambda value: {name.read(k): kind.read(v) for k, v in checked(value).items()},
    )


def _texts(limit: int = 256) -> _Kind:
    line = _text(1000)

    def checked(value: Any) -> tuple[str, ...]:
        _expect(isinstance(value, list | tuple) and len(value) <= limit, f"a list of at most {limit} texts", value)
        return tuple(line.read(v) for v in value)

    return _Kind(lambda value: list(checked(value)), checked)


def _document(write: Callable[[Any], Any], read: Callable[[Any], Any]) -> _Kind:
    def read_map(value: Any) -> Any:
        _expect(isinstance(value, dict), "a map", value)
        return read(value)

    return _Kind(write, read_map)


def _array(dtype: str, ndim: int, *, series: bool = False) -> _Kind:
    """An array of exactly this dtype and number of axes; `series`: differences along axis 0, deflated."""

    def write(value: Any) -> dict[str, Any]:
        array = np.asarray(value)
        _expect(array.dtype == np.dtype(dtype) and array.ndim == ndim, f"a {ndim}-axis {dtype} array", f"{array.dtype} {array.shape}")
        shape = [int(n) for n in array.shape]
        if not series:
            return {"dtype": dtype, "shape": shape, "data": np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<")).tobytes()}
        return {"dtype": dtype, "shape": shape, "data": _deflate_series(array), "packing": "delta-deflate"}

    def read(value: Any) -> NDArray[Any]:
        _expect(isinstance(value, dict) and {"dtype", "shape", "data"} <= value.keys(), "an array {dtype, shape, data}", value)
        _expect(value["dtype"] in DTYPES and value["dtype"] == dtype, f"dtype {dtype}", value["dtype"])
        shape, data = value["shape"], value["data"]
        _expect(isinstance(shape, list) and len(shape) == ndim <= MAX_NDIM, f"{ndim} axes", shape)
        _expect(all(type(n) is int and 0 <= n <= MAX_ARRAY_BYTES for n in shape), "axis lengths that are whole numbers >= 0", shape)
        _expect(isinstance(data, bytes), "bytes as array data", data)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        _expect(size <= MAX_ARRAY_BYTES, f"an array of at most {MAX_ARRAY_BYTES} bytes", size)
        packing = value.get("packing", "raw")
        _expect(packing == ("delta-deflate" if series else "raw"), "the packing of this field", packing)
        if series:
            return _inflate_series(data, dtype, shape, size)
        _expect(len(data) == size, f"{size} bytes for shape {shape} of {dtype}", len(data))
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    return _Kind(write, read)


def _deflate_series(array: NDArray[Any]) -> bytes:
    # The camera stands still, so most of a picture equals the one before: differences deflate several times better.
    # They are taken on the bits (integers that wrap), therefore floats come back exactly, NaN included.
    bits = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).view(_bits_of(array.dtype))
    changes = bits.copy()
    changes[1:] -= bits[:-1]
    return zlib.compress(changes.tobytes(), level=3)


def _inflate_series(data: bytes, dtype: str, shape: list[int], size: int) -> NDArray[Any]:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data, size + 1)  # one byte more than promised is enough to know that it lies
    except zlib.error as error:
        raise WireError(f"array data does not inflate: {error}") from error
    _expect(len(raw) == size and inflater.eof and not inflater.unused_data, f"{size} bytes when inflated", len(raw))
    changes = np.frombuffer(raw, _bits_of(np.dtype(dtype))).reshape(shape)
    return np.cumsum(changes, axis=0, dtype=changes.dtype).view(np.dtype(dtype).newbyteorder("<"))


def _bits_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"<u{dtype.itemsize}")


# --- documents: a dataclass as a map, checked field by field ---------------------------------------------------------


def _to_document(value: Any, kinds: Mapping[str, _Kind]) -> dict[str, Any]:
    document = {}
    for name, kind in kinds.items():
        try:
            document[name] = kind.write(getattr(value, name))
        except WireError as error:
            raise WireError(f"{type(value).__name__}.{name}: {error}") from error
    return document


def _from_document(cls: type[Any], kinds: Mapping[str, _Kind], document: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for item in fields(cls):
        if item.name not in document:
            if item.default is MISSING and item.default_factory is MISSING:
                raise WireError(f"{cls.__name__} lacks the field {item.name!r}")
            continue
        try:
            values[item.name] = kinds[item.name].read(document[item.name])
        except (ActwrightError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise WireError(f"{cls.__name__}.{item.name}: {error}") from error
    try:
        return cls(**values)
    except ActwrightError as error:
        raise WireError(f"{cls.__name__}: {error}") from error


def _nested(cls: type[Any], kinds: Mapping[str, _Kind]) -> _Kind:
    return _document(lambda value: _to_document(value, kinds), lambda document: _from_document(cls, kinds, document))


_TRACE = {"points_N2": _array("int64", 2)}
_OBSERVATION = {
    "images": _mapping(_array("uint8", 3), limit=16),
    "proprio_P": _array("float32", 1),
    "instruction": _text(4000),
    "steering": _optional(_nested(Trace, _TRACE)),
}
_GEOMETRY = {
    "width": _whole(1, 2**16),
    "height": _whole(1, 2**16),
    "intrinsics_33": _array("float64", 2),
    "world_to_camera_44": _array("float64", 2),
}
_PROVENANCE = {
    "producer": _text(),
    "cell": _text(),
    "seed": _whole(-(2**53)),
    "versions": _mapping(_text()),
    "render": _mapping(_text()),
}
_EPISODE = {
    "episode_id": _text(),
    "embodiment": _text(),
    "task": _text(),
    "instruction": _text(4000),
    "success": _flag(),
    "provenance": _nested(Provenance, _PROVENANCE),
    "images": _mapping(_array("uint8", 4, series=True), limit=16),
    "depth_m": _mapping(_array("float32", 3, series=True), limit=16),
    "geometry": _mapping(_nested(CameraGeometry, _GEOMETRY), limit=16),
    "proprio_TP": _array("float32", 2),
    "actions_TA": _array("float32", 2),
    "executed_TA": _array("float32", 2),
    "timestamps_T": _array("float64", 1),
    "tcp_T3": _optional(_array("float32", 2)),
}
_ENVELOPE = {"session_id": _text(), "epoch": _whole()}
_MESSAGES: dict[str, tuple[type[Any], Mapping[str, _Kind]]] = {
    "HELLO": (
        Hello,
        {
            "cell": _text(),
            "epoch": _whole(),
            "embodiment": _document(asdict, embodiment_from_json),
            "protocol": _whole(),
            "software": _text(),
            "expected_contract_id": _text(),
        },
    ),
    "READY": (
        Ready,
        {
            **_ENVELOPE,
            "model_version": _text(),
            "contract": _document(PolicyContract.to_json, PolicyContract.from_json),
            "max_message_bytes": _whole(1),
        },
    ),
    "OBSERVE": (
        Observe,
        {
            **_ENVELOPE,
            "seq": _whole(),
            "episode_id": _text(),
            "step": _whole(),
            "deadline_ms": _real(0, 600_000),
            "observation": _nested(Observation, _OBSERVATION),
            "age_ms": _mapping(_real(0, 1e9), limit=16),
        },
    ),
    "CHUNK": (
        Chunk,
        {
            **_ENVELOPE,
            "seq": _whole(),
            "chunk_id": _text(),
            "contract_id": _text(),
            "model_version": _text(),
            "actions_KA": _array("float32", 2),
            "control_hz": _real(1e-3, 1e5),
            "expires_ms": _real(0, 600_000),
            "depth_codes_G": _optional(_array("int64", 1)),
            "trace_N2": _optional(_array("int64", 2)),
            "timing_ms": _mapping(_real(0)),
            "batch": _whole(1),
        },
    ),
    "REJECT": (
        Reject,
        {
            **_ENVELOPE,
            "seq": _whole(),
            "code": _Kind(str, RefusalCode),
            "reason": _text(4000),
            "retryable": _flag(),
            "retry_after_ms": _real(0),
            "details": _texts(),
        },
    ),
    "END": (End, {**_ENVELOPE, "episode_id": _text(), "stop_reason": _text(), "success": _flag()}),
}


# --- msgpack, walked before it is read --------------------------------------------------------------------------------


def _pack(document: dict[str, Any]) -> bytes:
    try:
        return cast(bytes, msgpack.packb(document, use_bin_type=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a value cannot be written: {error}") from error


def _unpack(data: bytes) -> dict[str, Any]:
    _walk(data)
    try:
        document = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise WireError(f"not msgpack: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise WireError(f"expected a map, got {type(document).__name__}")
    return document


_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_BLOB = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_NEST = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _walk(data: bytes) -> None:
    """Check the shape of msgpack `data` without building anything: depth, item count, lengths, no extension types."""
    at, items, end = 0, 0, len(data)
    open_items = [1]
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        open_items[-1] -= 1
        items += 1
        if items > MAX_ITEMS:
            raise WireError(f"more than {MAX_ITEMS} items")
        if at >= end:
            raise WireError("the bytes end in the middle of a value")
        length, children = _head(data, at, end)
        at += length
        if at > end or children > end - at:
            raise WireError("a length points past the end of the bytes")
        if children:
            open_items.append(children)
            if len(open_items) > MAX_DEPTH + 1:
                raise WireError(f"nested deeper than {MAX_DEPTH}")
    if at != end:
        raise WireError(f"{end - at} bytes follow the value")


def _head(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Bytes that the value at `at` takes without its children, and how many children it has."""
    mark = data[at]
    if mark <= 0x7F or mark >= 0xE0:
        return 1, 0
    if mark <= 0x8F:
        return 1, 2 * (mark & 0x0F)
    if mark <= 0x9F:
        return 1, mark & 0x0F
    if mark <= 0xBF:
        return 1 + (mark & 0x1F), 0
    if mark in _FIXED:
        return 1 + _FIXED[mark], 0
    if mark in _BLOB:
        width = _BLOB[mark]
        return 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big"), 0
    if mark in _NEST:
        width, per_entry = _NEST[mark]
        return 1 + width, per_entry * int.from_bytes(data[at + 1 : at + 1 + width], "big")
    raise WireError(f"msgpack type 0x{mark:02x} is not allowed here")
