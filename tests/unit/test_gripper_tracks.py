"""Gripper tracks before traces are made of them, and where each label came from."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import GripperTrack
from components.data.labelling.provenance import ProvenanceTable, provenance_of, record_of, write_points
from components.data.labelling.traces import refined, trace_labels
from model_core.spec.errors import DatasetError, SpecError

SIZE = (100, 100)


def track(x_T: list[float], confidence_T: list[float] | None = None, **more) -> GripperTrack:
    x = np.array(x_T, np.float64)
    sure = np.ones(len(x), np.float32) if confidence_T is None else np.array(confidence_T, np.float32)
    points = np.stack([x, np.where(np.isnan(x), np.nan, 50.0)], axis=1)
    return GripperTrack(points_T2=points, visible_T=~np.isnan(x), confidence_T=sure, **more)


def test_nothing_is_changed_unasked():
    given = track([1, 90, 2, np.nan, 3], [1, 1, 0.1, 0, 1])
    found = refined(given, AnnotateConfig(), SIZE)
    assert found.track is given
    assert not (found.unsure_T | found.outlier_T).any()


def test_unsure_points_and_outliers_abstain_and_the_rest_keeps_its_trace():
    given = track([10, 12, 90, 16, 18, np.nan, 22], [1, 1, 1, 1, 0.2, 0, 1])
    cfg = AnnotateConfig(min_confidence=0.5, max_jump=0.2)
    found = refined(given, cfg, SIZE)
    assert np.flatnonzero(found.unsure_T).tolist() == [4]
    assert np.flatnonzero(found.outlier_T).tolist() == [2]
    assert found.track.visible_T.tolist() == [True, True, False, True, False, False, True]
    assert found.track.confidence_T.tolist() == [1, 1, 0, 1, 0, 0, 1]
    assert np.isnan(found.track.points_T2[2]).all()
    traces = trace_labels(found.track, SIZE, 5, "v")
    assert traces.shape == (7, 5, 2)
    assert traces[2, :, 0].tolist()[:2] == [round(16 * 255 / 99), round(22 * 255 / 99)]  # what is to come and sure


def test_a_point_with_too_little_around_it_is_no_outlier():
    assert not refined(track([10, np.nan, np.nan, np.nan, 90]), AnnotateConfig(max_jump=0.1), SIZE).outlier_T.any()


def test_smoothing_keeps_both_ends_and_a_straight_line():
    cfg = AnnotateConfig(smooth_frames=3)
    assert refined(track([10, 20, 30, 40]), cfg, SIZE).track.points_T2[:, 0].tolist() == [10, 20, 30, 40]
    assert refined(track([10, 20, 60, 40]), cfg, SIZE).track.points_T2[:, 0].tolist() == [10, 30, 40, 40]
    assert refined(track([10, np.nan, 60, 40]), cfg, SIZE).track.points_T2[[0, 2, 3], 0].tolist() == [10, 50, 40]
    with pytest.raises(SpecError, match="smooth_frames must be odd"):
        AnnotateConfig(smooth_frames=2)


def test_an_episode_with_too_few_sure_points_is_rejected_with_the_numbers():
    cfg = AnnotateConfig(min_confidence=0.5, max_abstained=0.5)
    assert refined(track([1, 2, np.nan, np.nan]), cfg, SIZE).track.visible_T.sum() == 2
    message = r"3 of 4 frames have no sure gripper point \(not seen 2, low confidence 1, outliers 0\); annotate.max_abstained allows 50%"
    with pytest.raises(DatasetError, match=message):
        refined(track([1, 2, np.nan, np.nan], [1, 0.1, 0, 0]), cfg, SIZE)
    with pytest.raises(DatasetError, match="not found in any frame"):
        trace_labels(track([np.nan] * 3), SIZE, 5, "v")


class Weighted:
    version = "pointing/1:m:abc?prompt=p"
    provenance = {"weights": "abc", "prompt": "p"}


def test_each_label_names_who_made_it(tmp_path):
    table = ProvenanceTable()
    own = table.number(record_of(Weighted(), {"camera": "front"}))
    person = table.number(record_of(Weighted(), {"camera": "front"}) | {"reviewer": "kim"})
    table.add("e-0", "points", [own, own, person, own])
    table.add("e-1", "points", [own])
    assert table.number(record_of(Weighted(), {"camera": "front"})) == own
    table.write(tmp_path / "provenance.json")
    document = json.loads((tmp_path / "provenance.json").read_text())
    assert len(document["records"]) == 2
    found = [provenance_of(document, "e-0", "points", frame) for frame in range(4)]
    assert [one["reviewer"] for one in found] == ["", "", "kim", ""]
    assert (found[0]["weights"], found[0]["prompt"], found[0]["parameters"]) == ("abc", "p", {"camera": "front"})
    with pytest.raises(KeyError, match="e-1 has no points label of frame 1"):
        provenance_of(document, "e-1", "points", 1)
    with pytest.raises(SpecError, match="who corrected it"):
        track([1, 2], by_T=("kim",))


def test_points_of_every_frame_are_told(tmp_path):
    cfg = AnnotateConfig(min_confidence=0.5)
    write_points(tmp_path, {"e-0": refined(track([1, 2], [1, 0.2]), cfg, SIZE), "e-1": refined(track([np.nan, 3]), cfg, SIZE)})
    found = pq.read_table(tmp_path).to_pydict()
    assert found["episode_id"] == ["e-0", "e-0", "e-1", "e-1"]
    assert found["frame_index"] == [0, 1, 0, 1]
    assert found["is_unsure"] == [False, True, False, False]
    assert found["is_visible"] == [True, False, False, True]
