"""The audit file: one episode of one workcell, as an MCAP file whose records are chained by their hashes.

    record = JSON message {"n": 3, "kind": "decision", "previous": SHA-256 of record 2, "t": seconds since "begin", ...}

    begin     who, with which model, under which contract (the whole document, once), and the tip of the file before
    decision  what was seen, asked and answered, or why nothing was answered
    executed  one control step: which row of which chunk, as answered and as sent to the driver
    event     a change of state, an operator's word, something lost
    end       how the episode went
    seal      how many of everything; the last record of a file that was closed

The first `previous` is 64 zeros. A camera frame is no record: it is a `foxglove.CompressedImage` (Protobuf) message on a channel of
its own, named by the SHA-256 of the message in the decision that saw it. So a viewer shows it, and it can be taken out when
space is short while the chain still holds. The chain proves that nothing was changed, left out or moved *within* a file, as long
as one later hash is known from elsewhere (the next file's `before`, the index, a printout): it holds no key.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np

from model_core.spec.errors import WireError
from model_core.spec.narrowing import is_mapping, is_sequence

AUDIT_FORMAT = 1
PROFILE = "actwright-audit"
SUFFIX = ".mcap"
THINNED = "actwright.thinned"  # MCAP metadata: images were taken out to make room
NO_HASH = "0" * 64


class Kind(enum.StrEnum):
    """What a record is about."""

    BEGIN = "begin"
    DECISION = "decision"
    EXECUTED = "executed"
    EVENT = "event"
    END = "end"
    SEAL = "seal"


def topic_of(kind: Kind) -> str:
    """The channel of a kind of record."""
    return f"/actwright/{kind.value}"


def camera_topic(camera: str) -> str:
    """The channel of a camera's frames."""
    return f"/camera/{camera}"


def trace_topic(camera: str) -> str:
    """The channel of what is drawn onto a camera's frames."""
    return f"/camera/{camera}/trace"


def digest(data: bytes) -> str:
    """The link of the chain: SHA-256 (hex) of a message's bytes."""
    return hashlib.sha256(data).hexdigest()


def time_ns(wall_ns: int, t: float) -> int:
    """The log time of a record: one reading of the wall clock when the file began, then the cell's monotonic clock."""
    return max(wall_ns + round(round(t, 6) * 1e9), 0)


def encode_record(n: int, kind: Kind, previous: str, t: float, body: Mapping[str, Any]) -> bytes:
    """One record as canonical JSON. `t`: seconds since the file began. Values as `plain` allows."""
    document = {**plain(body), "n": n, "kind": kind.value, "previous": previous, "t": round(t, 6)}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def plain(value: Any) -> Any:
    """Dataclasses, arrays and maps as JSON values; float32 with its shortest digits, NaN and inf (of a refused chunk) as words."""
    if value is None or isinstance(value, bool | int | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        scalar = cast("np.generic[Any]", value)
        return _real(float(str(scalar))) if scalar.dtype == np.float32 else plain(scalar.item())
    if isinstance(value, float):
        return _real(value)
    if is_mapping(value):
        return {str(key): plain(item) for key, item in value.items()}
    if is_sequence(value):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    raise WireError(f"an audit record cannot hold {type(value).__name__}")


def _real(value: float) -> float | str:
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def record_schema(kind: Kind) -> bytes:
    """JSON Schema of a kind of record, as viewers want it: the links are listed, the rest is free."""
    links = {"n": {"type": "integer"}, "kind": {"const": kind.value}, "previous": {"type": "string"}, "t": {"type": "number"}}
    return json.dumps({"title": f"actwright.{kind.value}", "type": "object", "properties": links}, sort_keys=True).encode()
