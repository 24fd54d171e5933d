"""A person's corrections: they take precedence frame by frame, name who made them, and a wrong line is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from components.data.annotators.corrections import read_corrections
from components.data.annotators.interface import GripperTrack
from model_core.spec.errors import DatasetError, SpecError

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
