"""Traces in LeRobot's language column: the type as the format states it, and what is written is read back."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.lerobot.columns.language_traces import COLUMN, event_type, read_traces, trace_rows, with_rows
from model_core.spec.errors import DatasetError

SIZE = (48, 64)
TRACE = np.full((3, 5, 2), -1, np.int16)
TRACE[0, :5] = [[0, 0], [255, 255], [10, 200], [128, 7], [33, 44]]
TRACE[1, :1] = [[254, 1]]


def column(rows) -> pa.ChunkedArray:
    return pa.chunked_array([with_rows(None, rows)])


def test_the_type_is_that_of_the_format():
    struct = event_type().value_type
    assert [field.name for field in struct] == ["role", "content", "style", "camera", "tool_calls"]
    assert [field.nullable for field in struct] == [False, True, True, True, True]
    assert all(struct.field(n).type == pa.string() for n in ("role", "content", "style", "camera"))
    assert pa.types.is_list(struct.field("tool_calls").type)


def test_traces_survive_a_parquet_file_and_name_their_camera(tmp_path):
    rows = trace_rows(TRACE, "front", SIZE)
    assert rows[2] == []
    assert (rows[0][0]["style"], rows[0][0]["camera"], rows[0][0]["role"]) == ("trace", "observation.images.front", "assistant")
    assert json.loads(rows[0][0]["content"]) == {
        "points": [[0, 0], [63, 47], [2.471, 36.863], [31.624, 1.29], [8.153, 8.11]],
        "size": [64, 48],
    }
    pq.write_table(pa.table({COLUMN: column(rows)}), tmp_path / "t.parquet")
    read = read_traces(pq.read_table(tmp_path / "t.parquet")[COLUMN], "front", SIZE)
    np.testing.assert_array_equal(read.trace_T52, TRACE)
    assert read.is_known_T.tolist() == [True, True, False]
    assert read.thinned == 0


def test_other_rows_stay_and_a_camera_is_replaced_only_by_itself():
    other = {"role": "user", "content": "what is it?", "style": "vqa", "camera": "observation.images.front", "tool_calls": None}
    both = with_rows(column([[other], [], []]), trace_rows(TRACE, "front", SIZE))
    both = with_rows(pa.chunked_array([both]), trace_rows(TRACE, "side", SIZE))
    again = with_rows(pa.chunked_array([both]), trace_rows(TRACE[::-1].copy(), "front", SIZE))
    assert [[(row["style"], row["camera"][-5:]) for row in frame] for frame in again.to_pylist()] == [
        [("vqa", "front"), ("trace", ".side")],
        [("trace", ".side"), ("trace", "front")],
        [("trace", "front")],
    ]
    np.testing.assert_array_equal(read_traces(pa.chunked_array([again]), "side", SIZE).trace_T52, TRACE)
    with pytest.raises(DatasetError, match="has 3 frames, expected 2"):
        with_rows(column([[], [], []]), [[], []])


def test_a_longer_trace_is_thinned_and_counted():
    row = trace_rows(TRACE, "front", SIZE)[0][0]
    long = {**row, "content": json.dumps({"points": [[n, n] for n in range(9)], "size": [64, 48]})}
    read = read_traces(column([[long]]), "front", SIZE)
    assert read.thinned == 1
    np.testing.assert_array_equal(read.trace_T52[0, :, 0], np.rint(np.array([0, 2, 4, 6, 8]) * 255 / 63))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"camera": None}, "names no camera"),
        ({"content": "to the left"}, "no trace that can be read"),
        ({"content": '{"points": [[1, 2]], "size": [640, 480]}'}, "images of .640, 480."),
        ({"content": '{"points": [], "size": [64, 48]}'}, "expected points"),
    ],
)
def test_what_cannot_be_a_trace_of_this_camera_is_refused(change, reason):
    row = trace_rows(TRACE, "front", SIZE)[0][0] | change
    with pytest.raises(DatasetError, match=f"frame 1.*{reason}"):
        read_traces(column([[], [row]]), "front", SIZE)
    with pytest.raises(DatasetError, match="2 traces of camera"):
        read_traces(column([trace_rows(TRACE, "front", SIZE)[0] * 2]), "front", SIZE)
