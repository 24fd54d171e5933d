"""The numbers of one episode on one time axis, and as few bytes that a browser reads without parsing them.

    bytes = length of the header (4) | header: JSON, padded with spaces to a multiple of 4 | the arrays, float32; all little endian

The header says of each array where it begins (`at`, in numbers from the end of the header) and its `shape`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """A vector over time. names: of its D dimensions. times_N: seconds. values_ND: in the units of the robot; NaN where there is none."""

    names: tuple[str, ...]
    times_N: NDArray[np.float64]
    values_ND: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened. kind: hold, refusal, clip or person. start_s, end_s: equal for a moment. text: for people."""

    kind: str
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signals:
    """frames: camera -> (N,) seconds of its frames. series: "state", "action", "executed". depth: cameras that have depth.

    traces: camera -> (N, 5, 2) of its frames, 0..255 from the left and upper border of the image to the others, -1 after the last point.
    """

    frames: Mapping[str, NDArray[np.float64]]
    series: Mapping[str, Series]
    marks: Sequence[Mark] = ()
    traces: Mapping[str, NDArray[np.int16]] = field(default_factory=dict[str, NDArray[np.int16]])
    depth: Sequence[str] = ()


def packed(signals: Signals) -> bytes:
    """The signals as bytes."""
    arrays: list[NDArray[np.float32]] = []
    reached = 0

    def place(values: NDArray[Any]) -> dict[str, Any]:
        nonlocal reached
        arrays.append(np.ascontiguousarray(values, "<f4"))
        at, reached = reached, reached + values.size
        return {"at": at, "shape": list(values.shape)}

    header = {
        "frames": {camera: place(times_N) for camera, times_N in signals.frames.items()},
        "series": {
            name: {"names": list(one.names), "times": place(one.times_N), "values": place(one.values_ND)}
            for name, one in signals.series.items()
        },
        "traces": {camera: place(trace_N52) for camera, trace_N52 in signals.traces.items()},
        "marks": [{"kind": m.kind, "start_s": m.start_s, "end_s": m.end_s, "text": m.text} for m in signals.marks],
        "depth": list(signals.depth),
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + b"".join(array.tobytes() for array in arrays)


def unpacked(data: bytes) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The header and all numbers, one after the other; for readers in Python."""
    length = int.from_bytes(data[:4], "little")
    return json.loads(data[4 : 4 + length]), np.frombuffer(data, "<f4", offset=4 + length)


def spans(flags_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where the flags are set, as (first, end) with the end left out."""
    edges_N = np.flatnonzero(np.diff(np.r_[False, flags_T, False].astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges_N.reshape(-1, 2)]
