"""Messages <-> bytes. Strict in both directions, and never a pickle.

    message = version byte | msgpack map {"type": "OBSERVE", field: value, ...}

How values are written and checked is `spec.packing`'s; here is what each message holds. A field that this version does
not know is ignored; a type that it does not know is refused. `WireError` is the only exception that leaves
`decode_message`. Times are durations in milliseconds, never clock readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import ENCODINGS, PROTOCOL_VERSION, EmbodimentSpec, PolicyContract, document_of, embodiment_from_json
from model_core.spec.errors import WireError, require
from model_core.spec.protocol import packing, strict_msgpack
from model_core.spec.protocol.episode_file import EPISODE_MAGIC, MAX_EPISODE_BYTES, decode_episode, encode_episode
from model_core.spec.protocol.packing import Kind, array, blob, choice, document, flag, mapping, nested, optional, real, text, texts, whole
from model_core.spec.types import DEPTH_CELLS, Observation, RefusalCode

__all__ = [
    "CONTROL_KINDS", "EPISODE_MAGIC", "MAX_EPISODE_BYTES", "MAX_IMAGE_PIXELS", "MAX_MESSAGE_BYTES", "PROTOCOL_VERSION", "Chunk", "Control",
    "Edit", "EncodedImage", "End", "Hello", "Message", "Observe", "Part", "Ready", "Reject", "SteeringInput", "decode_episode",
    "decode_message", "encode_episode", "encode_message", "version_of",
]  # fmt: skip

MAX_MESSAGE_BYTES = 16 * 2**20
MAX_IMAGE_PIXELS = 4096 * 4096
MAX_CAMERAS = 16
CONTROL_KINDS = ("CANCEL", "RESET", "HOLD", "DRAIN", "KILL", "LEASE", "PING", "PONG")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedImage:
    """A compressed picture on its way. shape: (H, W, 3) that it must have when decoded (`spec.pictures.decode_image`)."""

    encoding: str
    data: bytes
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        require(self.encoding in ENCODINGS[1:], f"encoding must be one of {', '.join(ENCODINGS[1:])}", got=self.encoding)
        height, width, channels = self.shape
        sound = channels == 3 and height > 0 and width > 0 and height * width <= MAX_IMAGE_PIXELS
        require(sound, f"shape must be (H, W, 3) of at most {MAX_IMAGE_PIXELS} pixels", got=self.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteeringInput:
    """A drawn path for the gripper, and what it was drawn on.

    points_N2: float32 (N, 2), points (x, y) in pixels of camera `image` at `width` x `height`. revision: grows with every
    change a person makes; `author`: who. ttl_ms: how long after sending it may still steer.
    """

    points_N2: NDArray[np.float32]
    image: str
    width: int
    height: int
    revision: int = 1
    author: str = ""
    ttl_ms: float = 60_000.0

    def __post_init__(self) -> None:
        shape = self.points_N2.shape
        require(len(shape) == 2 and shape[1] == 2 and shape[0] >= 1, "steering has points (x, y), at least one", got=shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edit:
    """What a person changed in the model's thought, from which it goes on: depth codes (100,), trace (N, 2) of 0..255, or both."""

    depth_codes_G: NDArray[np.int64] | None = None
    trace_N2: NDArray[np.int64] | None = None
    revision: int = 1
    author: str = ""

    def __post_init__(self) -> None:
        require(self.depth_codes_G is not None or self.trace_N2 is not None, "an edit changes depth, trace or both")
        if self.depth_codes_G is not None:
            require(self.depth_codes_G.shape == (DEPTH_CELLS,), f"depth codes must be ({DEPTH_CELLS},)", got=self.depth_codes_G.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hello:
    """Cell -> service, first: who I am and what body I have. `epoch` counts this cell's connections, from 1.

    strategies: how this cell joins chunks (`docs/protocol.md`). accepts_parts: whether PART messages may be sent. replan_hz:
    how often a second it means to ask, which is what the service reserves for it; 0 where it does not say.
    """

    cell: str
    epoch: int
    embodiment: EmbodimentSpec
    protocol: int = PROTOCOL_VERSION
    software: str = ""
    expected_contract_id: str = ""
    strategies: tuple[str, ...] = ()
    accepts_parts: bool = False
    replan_hz: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ready:
    """Service -> cell: you may ask. The whole contract travels, so that the cell can check it for itself.

    lease_s: for how long, from now, the session is promised (0: until it ends). levels: reasoning level -> measured
    {"p50_ms", "p95_ms"} of an answer alone. conversions: every difference that the service converts, as a sentence.
    """

    session_id: str
    epoch: int
    model_version: str
    contract: PolicyContract
    max_message_bytes: int = MAX_MESSAGE_BYTES
    lease_s: float = 0.0
    levels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    conversions: tuple[str, ...] = ()
    bundle_digest: str = ""
    min_interval_ms: float = 0.0
    max_in_flight: int = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observe:
    """Cell -> service: what I see; answer within `deadline_ms` of sending.

    age_ms: camera, or "proprio", -> age when sent. encoded: cameras that are sent compressed, in place of an entry of
    `observation.images`. level: wanted reasoning level, "" for the service's choice. previous_chunk_id, consumed: the last
    chunk and how many of its rows were executed since. committed_DA: float32 (D, A), rows that will be executed whatever the
    answer says; the answer begins with them. `observation.steering` does not travel; `steering` does.
    """

    session_id: str
    epoch: int
    seq: int
    episode_id: str
    step: int
    deadline_ms: float
    observation: Observation
    age_ms: Mapping[str, float] = field(default_factory=dict)
    encoded: Mapping[str, EncodedImage] = field(default_factory=dict)
    level: str = ""
    previous_chunk_id: str = ""
    consumed: int = 0
    committed_DA: NDArray[np.float32] | None = None
    steering: SteeringInput | None = None
    edit: Edit | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Service -> cell, before the chunk: a part of the answer that is already said; `field` is "depth" or "trace"."""

    session_id: str
    epoch: int
    seq: int
    field: str
    depth_codes_G: NDArray[np.int64] | None = None
    trace_N2: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """Service -> cell: what to do, why (depth tokens, trace), by whom, and until when.

    actions_KA: float32 (K, A) in the contract's units. expires_ms: from the moment the observation was taken; after
    that no row may be executed. depth_codes_G and trace_N2 are None where the model was told not to reason. level: the
    reasoning level served. committed: the first rows that equal what was committed. flags: what was applied or cheapened
    ("steering:rev3", "steering:expired", "level:action"). guard, counts: as in `types.Decision`. applied_revision: of the
    steering or edit that this chunk follows, 0 without.
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
    level: str = ""
    bundle_digest: str = ""
    committed: int = 0
    flags: tuple[str, ...] = ()
    guard: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    applied_revision: int = 0


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
class Control:
    """Both ways, outside the order of questions and answers.

    kind: one of `CONTROL_KINDS`. CANCEL gives request `seq` up. RESET forgets the episode so far. HOLD stops and waits, KILL
    stops for good, DRAIN ends after this episode (all from the service). LEASE asks for, and answers with, `value` seconds
    more. PING is answered by PONG with the same seq and value.
    """

    kind: str
    session_id: str = ""
    epoch: int = 0
    seq: int = 0
    value: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class End:
    """Cell -> service: this episode is over; what was queued for it is dropped."""

    session_id: str
    epoch: int
    episode_id: str
    stop_reason: str
    success: bool = False


Message = Hello | Ready | Observe | Part | Chunk | Reject | Control | End


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


def decode_message(data: strict_msgpack.Buffer, *, max_bytes: int = MAX_MESSAGE_BYTES, quick: bool = False) -> Message:
    """Bytes -> one of our messages. Raises WireError, and nothing else, for any other bytes.

    quick: raise `strict_msgpack.NotQuick` (a WireError) instead of reading what takes longer than an ordinary OBSERVE does, tens of
    microseconds: an event loop may wait for that, since handing the message to a thread costs as much. Arrays are views of
    `data`, which must not change while they live. Compressed pictures stay compressed.
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
        sound = isinstance(value, list | tuple) and len(value) == 3 and all(type(n) is int and 0 < n <= 2**16 for n in value)
        packing.expect(sound, "a picture's shape [H, W, 3]", value)
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
