"""Messages <-> bytes. Strict in both directions, and never a pickle.

    message = version byte | msgpack map {"type": "OBSERVE", field: value, ...}

How values are written and checked is `spec.packing`'s; here is what each message holds. A field that this version does
not know is ignored; a type that it does not know is refused. `WireError` is the only exception that leaves
`decode_message`. Times are durations in milliseconds, never clock readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from model_core.spec.contract import ENCODINGS, PROTOCOL_VERSION, PolicyContract, document_of, embodiment_from_json
from model_core.spec.errors import WireError
from model_core.spec.narrowing import is_sequence
from model_core.spec.protocol import packing, strict_msgpack
from model_core.spec.protocol.episode_file import EPISODE_MAGIC, MAX_EPISODE_BYTES, decode_episode, encode_episode
from model_core.spec.protocol.messages import (
    CONTROL_KINDS,
    MAX_CAMERAS,
    MAX_IMAGE_PIXELS,
    MAX_MESSAGE_BYTES,
    Chunk,
    Control,
    Edit,
    EncodedImage,
    End,
    Hello,
    Message,
    Observe,
    Part,
    Ready,
    Reject,
    SteeringInput,
)
from model_core.spec.protocol.packing import Kind, array, blob, choice, document, flag, mapping, nested, optional, real, text, texts, whole
from model_core.spec.types import Observation, RefusalCode

__all__ = [
    "CONTROL_KINDS", "EPISODE_MAGIC", "MAX_EPISODE_BYTES", "MAX_IMAGE_PIXELS", "MAX_MESSAGE_BYTES", "PROTOCOL_VERSION", "Chunk", "Control",
    "Edit", "EncodedImage", "End", "Hello", "Message", "Observe", "Part", "Ready", "Reject", "SteeringInput", "decode_episode",
    "decode_message", "encode_episode", "encode_message", "version_of",
]  # fmt: skip


def encode_message(message: Message, *, version: int = PROTOCOL_VERSION) -> bytes:
    """One of our messages -> bytes. Equal messages give equal bytes. Raises WireError for a value no field allows.

    version: only a REJECT may be written for a peer of version 1 (it reads it), so that it learns why it is refused.
    """
    name = type(message).__name__.upper()
    if name not in _MESSAGES:
        raise WireError(f"{type(message).__name__} is not a message; there are {', '.join(_MESSAGES)}")
    if version != PROTOCOL_VERSION and not (version == 1 and isinstance(message, Reject)):
        raise WireError(f"a {name} of protocol version {version} is not written here, only of version {PROTOCOL_VERSION}")
    return strict_msgpack.pack(bytes([version]), {"type": name, **packing.to_document(message, _MESSAGES[name][1])})


def decode_message(data: strict_msgpack.Buffer | str, *, max_bytes: int = MAX_MESSAGE_BYTES, quick: bool = False) -> Message:
    """Bytes -> one of our messages. Raises WireError, and nothing else, for any other bytes.

    quick: raise `strict_msgpack.NotQuick` (a WireError) instead of reading what takes longer than an ordinary OBSERVE does, tens of
    microseconds: an event loop may wait for that, since handing the message to a thread costs as much. Arrays are views of
    `data`, which must not change while they live. Compressed images stay compressed.
    """
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) < 2:
        raise WireError("a message is binary and has at least two bytes")
    if len(data) > max_bytes:
        raise WireError(f"a message has at most {max_bytes} bytes, got {len(data)}")
    if data[0] != PROTOCOL_VERSION:
        raise WireError(
            f"this side speaks protocol version {PROTOCOL_VERSION}, the message is of version {data[0]}; install matching versions"
        )
    content = strict_msgpack.unpack(data, 1, quick=quick)
    name = content.pop("type", None)
    if not isinstance(name, str) or name not in _MESSAGES:
        raise WireError(f"unknown message type {str(name)[:40]!r}; there are {', '.join(_MESSAGES)}")
    cls, kinds = _MESSAGES[name]
    return cast(Message, packing.from_document(cls, kinds, content))


def version_of(data: strict_msgpack.Buffer) -> int:
    """The protocol version that the sender of these bytes speaks, 0 for none."""
    return data[0] if len(data) else 0


def _unsteered(value: Any) -> None:
    packing.expect(value is None, "nothing: steering travels in OBSERVE.steering", value)


def _shape() -> Kind:
    def check(value: Any) -> tuple[int, ...]:
        sound = is_sequence(value) and len(value) == 3 and all(type(n) is int and 0 < n <= 2**16 for n in value)
        packing.expect(sound, "an image's shape [H, W, 3]", value)
        return tuple(value)

    return Kind(lambda value: list(check(value)), check)


_LEVEL = text(32)
_SEQ = whole()
_CODES, _POINTS = optional(array("int64", 1)), optional(array("int64", 2))
_OBSERVATION = {
    "images": mapping(array("uint8", 3), limit=MAX_CAMERAS),
    "proprio_P": array("float32", 1),
    "instruction": text(4000),
    "steering": Kind(_unsteered, _unsteered),
}
_ENCODED = {"encoding": choice(*ENCODINGS[1:]), "data": blob(MAX_MESSAGE_BYTES), "shape": _shape()}
_STEERING = {
    "points_N2": array("float32", 2),
    "image": text(128),
    "width": whole(1, 2**16),
    "height": whole(1, 2**16),
    "revision": whole(),
    "author": text(),
    "ttl_ms": real(0, 1e9),
    "ahead_N2": optional(array("float32", 2)),
}
_EDIT = {"depth_codes_G": _CODES, "trace_N2": _POINTS, "revision": whole(), "author": text()}
_ENVELOPE = {"session_id": text(), "epoch": whole()}
_MESSAGES: dict[str, tuple[type[Any], Mapping[str, Kind]]] = {
    "HELLO": (
        Hello,
        {
            "cell": text(),
            "epoch": whole(),
            "embodiment": document(document_of, embodiment_from_json),
            "protocol": whole(),
            "software": text(),
            "expected_contract_id": text(),
            "strategies": texts(16, 64),
            "accepts_parts": flag(),
            "replan_hz": real(0, 1000),
        },
    ),
    "READY": (
        Ready,
        {
            **_ENVELOPE,
            "model_version": text(),
            "contract": document(PolicyContract.to_json, PolicyContract.from_json),
            "max_message_bytes": whole(1),
            "lease_s": real(0),
            "levels": mapping(mapping(real(0), limit=8), limit=8),
            "conversions": texts(64),
            "bundle_digest": text(),
            "min_interval_ms": real(0),
            "max_in_flight": whole(1, 64),
        },
    ),
    "OBSERVE": (
        Observe,
        {
            **_ENVELOPE,
            "seq": _SEQ,
            "episode_id": text(),
            "step": whole(),
            "deadline_ms": real(0, 600_000),
            "observation": nested(Observation, _OBSERVATION),
            "age_ms": mapping(real(0, 1e9), limit=MAX_CAMERAS + 1),
            "encoded": mapping(nested(EncodedImage, _ENCODED), limit=MAX_CAMERAS),
            "level": _LEVEL,
            "previous_chunk_id": text(),
            "consumed": whole(),
            "committed_DA": optional(array("float32", 2)),
            "steering": optional(nested(SteeringInput, _STEERING)),
            "edit": optional(nested(Edit, _EDIT)),
        },
    ),
    "PART": (Part, {**_ENVELOPE, "seq": _SEQ, "field": choice("depth", "trace"), "depth_codes_G": _CODES, "trace_N2": _POINTS}),
    "CHUNK": (
        Chunk,
        {
            **_ENVELOPE,
            "seq": _SEQ,
            "chunk_id": text(),
            "contract_id": text(),
            "model_version": text(),
            "actions_KA": array("float32", 2),
            "control_hz": real(1e-3, 1e5),
            "expires_ms": real(0, 600_000),
            "depth_codes_G": _CODES,
            "trace_N2": _POINTS,
            "timing_ms": mapping(real(0)),
            "batch": whole(1),
            "level": _LEVEL,
            "bundle_digest": text(),
            "committed": whole(),
            "flags": texts(32, 128),
            "guard": mapping(real()),
            "counts": mapping(whole()),
            "applied_revision": whole(),
            "novelty": optional(real(0, 1)),
        },
    ),
    "REJECT": (
        Reject,
        {
            **_ENVELOPE,
            "seq": _SEQ,
            "code": Kind(str, RefusalCode),
            "reason": text(4000),
            "retryable": flag(),
            "retry_after_ms": real(0),
            "details": texts(),
        },
    ),
    "CONTROL": (Control, {**_ENVELOPE, "kind": choice(*CONTROL_KINDS), "seq": _SEQ, "value": real(), "text": text(1000)}),
    "END": (End, {**_ENVELOPE, "episode_id": text(), "stop_reason": text(), "success": flag()}),
}
