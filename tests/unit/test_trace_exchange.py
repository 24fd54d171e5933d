"""Traces go out of an annotation into a LeRobot set and come in again as labels; nothing is taken for a trace that is none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config.data_config import AnnotateConfig
from components.config.records import Silent
from components.data.annotators.interface import frames_of
from components.data.annotators.open import open_annotator
from components.data.export.export import export_lerobot
from components.data.export.trace_labels import read_trace_labels
from components.data.inspection.reporting.inspect import inspect_folder
from components.data.labelling.traces import refined, trace_labels
from components.data.labels import EpisodeLabels, write_labels
from components.data.lerobot.columns.language_traces import COLUMN, column_of
from components.data.lerobot.reader import DatasetReader
from model_core.spec.errors import DatasetError
from tests.episodes import episode, write_dataset

SIZE = (32, 32)


def traces_of(number: int, length: int) -> np.ndarray:
    """Traces of 1 to 5 points, none of which follows from the points of other frames."""
    rng = np.random.default_rng([3, number])
    made = rng.integers(0, 256, (length, 5, 2)).astype(np.int16)
    for t in range(length):
        made[t, 1 + t % 5 :] = -1
    return made


def write_annotation(folder, made, *, camera="front"):
    """What an annotation leaves of these traces, episode id -> (T, 5, 2)."""
    labels = {name: EpisodeLabels(codes_TG=np.zeros((len(t), 100), np.uint8), trace_T52=t) for name, t in made.items()}
    write_labels(folder / "labels", labels, {"points": "test"})
    (folder / "provenance.json").write_text(json.dumps({"records": [{"parameters": {"camera": camera}}], "episodes": {}}))
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return DatasetReader(write_dataset(tmp_path_factory.mktemp("sets") / "ours", [episode(n, length=5 + n) for n in range(3)]))


def exported(ours, tmp_path, made, **options):
    labels = read_trace_labels(write_annotation(tmp_path / "labels", made, **options))
    told = export_lerobot(ours, tmp_path / "out", Silent(), format_name="lerobot-v3.0", codec="lossless", traces=labels)
    return told, DatasetReader(tmp_path / "out")


def annotator(folder):
    return open_annotator("points", AnnotateConfig(depth_annotator="truth", point_annotator="traces", point_model=str(folder)))


def labelled(reader, index, cfg=None):
    """The traces that the annotator `traces` labels an episode of the set with."""
    made = annotator(reader.root)
    frames = frames_of(reader.episode(index, images=False), "front", SIZE)
    cfg = cfg or AnnotateConfig(depth_annotator="truth", point_annotator="traces")
    track = refined(made.annotate(frames), cfg, SIZE, frames)
    return trace_labels(track.track, SIZE, cfg.trace_points, made.version)


def test_traces_that_go_out_come_in_as_they_were(ours, tmp_path):
    made = {f"square-{n:04d}": traces_of(n, 5 + n) for n in range(3)}
    told, read = exported(ours, tmp_path, made)
    assert any("traces of front are in the column language_events" in line for line in told.left_out)
    assert read.features[COLUMN] == {"dtype": "language", "shape": [1], "names": None}
    for index, trace_T52 in enumerate(made.values()):
        np.testing.assert_array_equal(labelled(read, index), trace_T52)
        np.testing.assert_array_equal(read.episode(index).images["front"], ours.episode(index).images["front"])
    types = [field.name for field in pq.read_schema(tmp_path / "out/data/chunk-000/file-000.parquet").field(COLUMN).type.value_type]
    assert types == ["role", "content", "style", "camera", "tool_calls"]


def test_the_column_makes_no_fault_of_a_set(ours, tmp_path):
    exported(ours, tmp_path, {f"square-{n:04d}": traces_of(n, 5 + n) for n in range(3)})
    export_lerobot(ours, tmp_path / "plain/out", Silent(), format_name="lerobot-v3.0", codec="lossless")
    found = [
        {result.check.id: len(result.verdict.faults) for result in inspect_folder(folder, None, Silent()).results}
        for folder in (tmp_path / "out", tmp_path / "plain/out")
    ]
    assert found[0] == found[1]


def test_a_set_without_them_has_the_bytes_that_it_always_had(ours, tmp_path):
    export_lerobot(ours, tmp_path / "a", Silent(), format_name="lerobot-v3.0", codec="lossless")
    assert COLUMN not in pq.read_schema(tmp_path / "a/data/chunk-000/file-000.parquet").names
    with pytest.raises(DatasetError, match=r"has no column language_events.*Fix"):
        column_of(DatasetReader(tmp_path / "a"), 0)


def test_episodes_without_labels_have_no_rows_and_are_told(ours, tmp_path):
    told, read = exported(ours, tmp_path, {"square-0001": traces_of(1, 6)})
    assert any("2 episodes have no labels" in line for line in told.left_out)
    assert [len(rows) for rows in column_of(read, 0).to_pylist()] == [0] * 5
    with pytest.raises(DatasetError, match=r"no trace of camera observation.images.front; it has no traces"):
        labelled(read, 0)


@pytest.mark.parametrize(
    ("made", "options", "said"),
    [
        ({"square-0001": traces_of(1, 9)}, {}, r"square-0001 has 6 frames, its labels 9.*annotate this set"),
        ({"other": traces_of(1, 6)}, {}, r"none of 3 episodes is in the labels"),
        ({"square-0001": traces_of(1, 6)}, {"camera": "wrist"}, r"labels are of camera 'wrist', the set has front"),
    ],
)
def test_labels_of_something_else_are_refused_and_nothing_appears(ours, tmp_path, made, options, said):
    with pytest.raises(DatasetError, match=said):
        exported(ours, tmp_path, made, **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DatasetError, match=r"is no finished annotation.*Fix"):
        read_trace_labels(tmp_path)


def test_a_corrected_point_and_a_smoothed_one_make_the_traces_again(ours, tmp_path):
    made = {f"square-{n:04d}": traces_of(n, 5 + n) for n in range(3)}
    _, read = exported(ours, tmp_path, made)
    line = {
        "episode": read.rows[0].episode_id,
        "camera": "front",
        "frame": 2,
        "point": [1, 1],
        "reviewer": "Lee",
        "at": "2026-11-02T09:30:00Z",
    }
    (tmp_path / "points.jsonl").write_text(json.dumps(line) + "\n")
    cfg = AnnotateConfig(depth_annotator="truth", point_annotator="traces", corrections=str(tmp_path / "points.jsonl"))
    corrected = labelled(read, 0, cfg)
    np.testing.assert_array_equal(corrected[2, 0], [8, 8])
    np.testing.assert_array_equal(corrected[0, 2], [8, 8])  # the frame of the correction is the third point that comes
    smoothed = labelled(read, 0, replace(cfg, corrections="", smooth_frames=3))
    assert not np.array_equal(smoothed, made["square-0000"])


def test_a_frame_without_a_trace_has_no_point(ours, tmp_path):
    _, read = exported(ours, tmp_path, {f"square-{n:04d}": traces_of(n, 5 + n) for n in range(3)})
    path = tmp_path / "out/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    kept = [[] if number == 2 else rows for number, rows in enumerate(table[COLUMN].to_pylist())]
    plain = pa.array(kept, pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content", "style", "camera")])))
    pq.write_table(table.set_column(table.column_names.index(COLUMN), COLUMN, plain), path)
    track = annotator(read.root).annotate(frames_of(DatasetReader(tmp_path / "out").episode(0, images=False), "front", SIZE))
    assert track.visible_T.tolist() == [True, True, False, True, True]
    assert np.isnan(track.points_T2[2]).all()
