"""Traces as LeRobot's language column `language_events` holds them: rows of style "trace" (data sets of version 3.1).

A row is {role, content, style, camera, tool_calls}; it stands on the frame where its trace begins and names its camera as
"observation.images.NAME", which that style must. The format leaves the form of `content` open; ours is JSON: {"points": [[x, y], ...],
"size": [width, height]}, pixels of that camera's images. Rows of other styles are kept and passed over.
Source of the schema: huggingface/lerobot, src/lerobot/datasets/language.py at 1683197862cb32aab1f9a0cfc0b2a7a2f5bdd047.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.data.lerobot import layout
from model_core.spec.errors import DatasetError
from model_core.spec.types import TRACE_MAX_POINTS
from model_core.tokenization.trace import to_pixels, to_range

if TYPE_CHECKING:
    import pyarrow as pa

    from components.data.lerobot.reader import DatasetReader

COLUMN, STYLE, ROLE = "language_events", "trace", "assistant"
FEATURE: Mapping[str, Any] = {"dtype": "language", "shape": [1], "names": None}  # of the column in meta/info.json


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadTraces:
    """What a column holds of one camera. trace_T52: 0..255, -1 after the last point, and everywhere in a frame without a trace.

    is_known_T: whether a frame has one. thinned: traces with more than 5 points, of which evenly spaced ones were taken.
    """

    trace_T52: NDArray[np.int16]
    is_known_T: NDArray[np.bool_]
    thinned: int


def event_type(call: pa.DataType | None = None) -> pa.ListType[Any]:
    """The Arrow type of the column. call: of one tool call (default: Arrow's JSON)."""
    import pyarrow as pa

    text = pa.string()
    fields = [pa.field("role", text, nullable=False), pa.field("content", text), pa.field("style", text), pa.field("camera", text)]
    return pa.list_(pa.struct([*fields, pa.field("tool_calls", pa.list_(call or pa.json_()))]))


def trace_rows(trace_T52: NDArray[np.int16], camera: str, size: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """One list of rows a frame, with its trace. camera: our name. size: (height, width) of its images."""
    height, width = size
    rows: list[list[dict[str, Any]]] = []
    for trace_52 in trace_T52:
        points_N2 = to_pixels(trace_52[trace_52[:, 0] >= 0], width=width, height=height)
        content = json.dumps({"points": np.round(points_N2, 3).tolist(), "size": [width, height]}, separators=(",", ":"))
        row = {"role": ROLE, "content": content, "style": STYLE, "camera": f"{layout.IMAGE_PREFIX}{camera}", "tool_calls": None}
        rows.append([row] if len(points_N2) else [])
    return rows


def with_rows(column: pa.ChunkedArray | None, rows: Sequence[Sequence[Mapping[str, Any]]]) -> pa.Array:
    """The column with these rows added to each frame's; traces that it had of the same camera are replaced.

    Raises `DatasetError` where it has another number of frames.
    """
    import pyarrow as pa

    before: list[Any] = [[] for _ in rows] if column is None else column.to_pylist()
    if len(before) != len(rows):
        raise DatasetError(f"column {COLUMN} has {len(before)} frames, expected {len(rows)}")
    cameras = {row["camera"] for frame in rows for row in frame}
    merged = [
        [*(row for row in old or () if not (row["style"] == STYLE and row["camera"] in cameras)), *new]
        for old, new in zip(before, rows, strict=True)
    ]
    # Arrow makes no nested JSON from Python values: texts first, then the same texts as JSON
    plain = pa.array(merged, event_type(pa.string()))
    calls, struct = plain.values.field("tool_calls"), event_type().value_type
    as_json = pa.ListArray.from_arrays(calls.offsets, pa.ExtensionArray.from_storage(pa.json_(), calls.values), mask=calls.is_null())
    parts = [as_json if field.name == "tool_calls" else plain.values.field(field.name) for field in struct]
    return pa.ListArray.from_arrays(plain.offsets, pa.StructArray.from_arrays(parts, fields=list(struct)))


def read_traces(column: pa.ChunkedArray, camera: str, size: tuple[int, int]) -> ReadTraces:
    """The traces of one camera. size: (height, width) of its images, which the content must state too.

    Raises `DatasetError` naming the frame for a trace without a camera, two of one camera, or content that is not ours.
    """
    frames = column.to_pylist()
    trace_T52 = np.full((len(frames), TRACE_MAX_POINTS, 2), -1, np.int16)
    is_known_T = np.zeros(len(frames), bool)
    thinned = 0
    for t, rows in enumerate(frames):
        traces = [row for row in rows or () if row["style"] == STYLE]
        if any(not row["camera"] for row in traces):
            raise DatasetError(f"{COLUMN}, frame {t}: a trace names no camera, which its style must. Fix: export the data set again")
        mine = [row for row in traces if row["camera"] == f"{layout.IMAGE_PREFIX}{camera}"]
        if len(mine) > 1:
            raise DatasetError(f"{COLUMN}, frame {t}: {len(mine)} traces of camera {camera!r}, expected one. Fix: remove the others")
        if mine:
            points_N2 = _points(mine[0]["content"], size, t)
            thinned += len(points_N2) > TRACE_MAX_POINTS
            if len(points_N2) > TRACE_MAX_POINTS:
                points_N2 = points_N2[np.linspace(0, len(points_N2) - 1, TRACE_MAX_POINTS).astype(np.int64)]
            trace_T52[t, : len(points_N2)] = to_range(points_N2, width=size[1], height=size[0])
            is_known_T[t] = True
    return ReadTraces(trace_T52=trace_T52, is_known_T=is_known_T, thinned=thinned)


def _points(content: str | None, size: tuple[int, int], t: int) -> NDArray[np.float64]:
    where = f"{COLUMN}, frame {t}"
    try:
        document = json.loads(content or "")
        points_N2 = np.asarray(document["points"], np.float64)
        stated = tuple(document["size"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f'{where}: content {str(content)[:60]!r} is no trace that can be read; expected {{"points": [[x, y]], "size": [w, h]}}'
        ) from error
    if points_N2.ndim != 2 or points_N2.shape[1:] != (2,) or not len(points_N2):
        raise DatasetError(f"{where}: expected points of two numbers, got an array of {points_N2.shape}")
    if stated != (size[1], size[0]):
        raise DatasetError(f"{where}: the trace is of images of {stated}, the camera's are {size[1]}x{size[0]} (width, height)")
    return points_N2


def column_of(reader: DatasetReader, index: int) -> pa.ChunkedArray[Any]:
    """The column of one episode of a set. Raises `DatasetError` where its file has none."""
    import pyarrow.parquet as pq

    row = reader.rows[index]
    path = reader.root / layout.file_path(reader.info, "data_path", *reader.table.file_of(row.start))
    if COLUMN not in pq.read_schema(path).names:
        raise DatasetError(f"{reader.name} has no column {COLUMN}, so no traces. Fix: name a set that has it, or another point annotator")
    return pq.read_table(path, columns=[COLUMN])[COLUMN].slice(reader.table.place_in_file(row.start), row.length)
