"""A person's corrections: they take precedence frame by frame, name who made them, and a wrong line is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import AnnotateConfig, VqvaeConfig
from components.data.annotate import annotate
from components.data.annotators.corrections import read_corrections
from components.data.annotators.interface import Frames, GripperTrack
from components.data.labelling.traces import refined
from components.data.labels import read_labels
from model_core.spec.errors import DatasetError, SpecError
from tests.episodes import Tally, episode, write_dataset

LINE = {"episode": "e", "camera": "front", "frame": 1, "point": [5, 6.5], "reviewer": "A. Lee", "at": "2026-11-02T09:30:00Z"}


def written(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "corrections.jsonl"
    path.write_text("\n".join(json.dumps({**LINE, **line}) for line in lines) + "\n")
    return path


def track() -> GripperTrack:
    return GripperTrack(
        points_T2=np.array([[1.0, 1], [2, 2], [np.nan, np.nan], [4, 4]]),
        visible_T=np.array([True, True, False, True]),
        confidence_T=np.array([0.8, 0.8, 0, 0.8], np.float32),
    )


def test_a_correction_replaces_the_annotators_point_and_names_its_reviewer(tmp_path):
    found = read_corrections(written(tmp_path, {"point": [9, 9]}, {}, {"frame": 2}, {"frame": 3, "point": None, "reviewer": "B"}))
    made = found.applied(track(), "e", "front", (10, 12))
    np.testing.assert_array_equal(made.points_T2, [[1, 1], [5, 6.5], [5, 6.5], [np.nan, np.nan]])
    assert made.visible_T.tolist() == [True, True, True, False]
    np.testing.assert_allclose(made.confidence_T, [0.8, 1, 1, 0])
    assert made.by_T == ("", "A. Lee", "A. Lee", "B")
    same = track()
    assert found.applied(same, "e", "side", (10, 12)) is same
    assert found.unused(["other"], ["front"]) == ("corrections of episode 'e', camera 'front' change nothing: these data do not have it",)
    assert found.unused(["e"], ["front", "side"]) == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"at": "2026-11-02T09:30:00"}, "with its zone"),
        ({"at": "yesterday"}, "with its zone"),
        ({"reviewer": " "}, "names its reviewer"),
        ({"frame": -1}, "counted from 0"),
        ({"point": [1]}, "2 values"),
        ({"pointe": [1, 2]}, "did you mean point"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, reason):
    with pytest.raises(SpecError, match=f"line 2.*{reason}"):
        read_corrections(written(tmp_path, {}, line))


def test_frames_and_points_must_be_the_episodes(tmp_path):
    with pytest.raises(DatasetError, match="has 4 frames"):
        read_corrections(written(tmp_path, {"frame": 4})).applied(track(), "e", "front", (10, 12))
    with pytest.raises(DatasetError, match="outside the 12x10 image"):
        read_corrections(written(tmp_path, {"point": [11.6, 3]})).applied(track(), "e", "front", (10, 12))


def test_corrections_take_precedence_over_confidence_outliers_and_smoothing(tmp_path):
    path = written(tmp_path, {"frame": 2, "point": [5, 6]}, {"frame": 3, "point": [11, 9]})
    cfg = AnnotateConfig(corrections=str(path), min_confidence=0.9, smooth_frames=3, max_jump=0.1, max_abstained=0.5)
    frames = Frames(images_THW3=np.zeros((0, 10, 12, 3), np.uint8), size=(10, 12), count=4, camera="front", episode_id="e")
    made = refined(track(), cfg, (10, 12), frames).track
    np.testing.assert_array_equal(made.points_T2[2:], [[5, 6], [11, 9]])
    assert made.visible_T.tolist() == [False, False, True, True]  # the annotator's own were not sure enough
    assert made.by_T == ("", "", "A. Lee", "A. Lee")
    with pytest.raises(DatasetError, match="no sure gripper point"):  # without them nothing is left
        refined(track(), replace(cfg, corrections=""), (10, 12), frames)


def test_a_corrected_data_set_names_the_reviewer_of_each_label(tmp_path):
    one = episode(1)
    root = write_dataset(tmp_path / "raw", [one, episode(2)])
    (tmp_path / "valid.json").write_text(json.dumps({one.episode_id: True, episode(2).episode_id: True}))
    lines = [{"episode": one.episode_id, "frame": n, "point": [3, 4]} for n in range(12)]
    path = written(tmp_path, *lines, {"episode": "gone"})
    cfg = AnnotateConfig(corrections=str(path), vqvae=VqvaeConfig(steps=1, frames=8))
    record = annotate(cfg, root, tmp_path / "valid.json", tmp_path / "out", Tally())
    labels = read_labels(tmp_path / "out" / "labels")
    expected = np.rint(np.array([3, 4]) * 255 / 31)
    assert (labels[one.episode_id].trace_T52[0] == expected).all()
    assert not (labels[episode(2).episode_id].trace_T52[0] == expected).all()
    assert record["notes"] == ["corrections of episode 'gone', camera 'front' change nothing: these data do not have it"]
    assert "A. Lee" in (tmp_path / "out" / "provenance.json").read_text()
