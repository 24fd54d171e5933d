"""Data sets that LeRobot 0.3.3 and 0.4.4 wrote: what its own reader gave of them, ours gives bit for bit.

Run: .venv/bin/python -m pytest tests/unit/test_public_writers.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.lerobot.reader import DatasetReader
from model_core.spec.episode import CameraGeometry, Episode

FOLDER = Path(__file__).parents[1] / "data" / "public_writers"
SETS = ("v21", "v21_images", "v30", "v30_images")
STEP_7 = np.array([0.01] * 3 + [0.08] * 3 + [1.0])  # of an action of 1 in the sets of 0.3.3


def episodes(name: str, *, images: bool = True) -> list[Episode]:
    return list(DatasetReader(FOLDER / name).episodes(images=images))


def test_every_number_and_pixel_is_what_the_writers_own_reader_gives():
    for name in SETS:
        given = json.loads((FOLDER / f"{name}.json").read_text())
        read = episodes(name)
        assert DatasetReader(FOLDER / name).fps == given["fps"], name
        assert [_as_given(one) for one in read] == [_without_samples(one) for one in given["episodes"]], name


def test_the_samples_of_numbers_are_those_of_the_digests():
    for name in SETS:
        given = json.loads((FOLDER / f"{name}.json").read_text())["episodes"]
        for one, stated in zip(episodes(name, images=False), given, strict=True):
            assert one.actions_TA[0].tolist() == pytest.approx(stated["first_action"], abs=1e-9)
            assert one.proprio_TP[-1].tolist() == pytest.approx(stated["last_state"], abs=1e-9)


@pytest.mark.parametrize(("name", "step_7"), [("v21", STEP_7), ("v30", np.ones(7))])
def test_states_are_the_sum_of_the_steps_before(name: str, step_7: np.ndarray):
    for one in episodes(name, images=False):
        told_T7 = one.actions_TA * step_7
        moved_T7 = np.diff(one.proprio_TP, axis=0)
        assert np.allclose(moved_T7[:, :6], told_T7[:-1, :6], rtol=0, atol=1e-6)


def test_the_tool_centre_is_seen_where_the_calibration_puts_it():
    cameras = json.loads((FOLDER / "v30_calibration.json").read_text())["cameras"]
    beside = []
    for one in episodes("v30")[:6]:
        for name, document in cameras.items():
            pixels_T3 = _geometry(document).project(one.proprio_TP[:, :3])
            for frame_HW3, (u, v, _) in zip(one.images[name], pixels_T3, strict=True):
                # fingers are white and yellow: the only bright red and green of the scene
                rows, columns = np.nonzero((frame_HW3[..., 0] > 190) & (frame_HW3[..., 1] > 170))
                beside.append(np.hypot(columns.mean() - u, rows.mean() - v))
    assert np.median(beside) < 3.0  # pixels; the fingers stand some 1 to 3 cm above the tool centre
    assert np.max(beside) < 8.0


def test_the_named_block_decides_where_the_arm_goes():
    ends = {one.instruction: [] for one in episodes("v30", images=False)}
    for one in episodes("v30", images=False):
        ends[one.instruction].append(one.proprio_TP[-1, 1])
    assert sorted(ends) == ["grasp the blue block", "grasp the red block"]
    assert max(ends["grasp the red block"]) < 0 < min(ends["grasp the blue block"])


def _as_given(one: Episode) -> dict[str, Any]:
    columns = {"observation.state": one.proprio_TP, "action": one.actions_TA, "timestamp": one.timestamps_T}
    return {
        "length": len(one),
        "task": one.instruction,
        "columns": {name: _sha256(column.astype("<f4")) for name, column in columns.items()},
        "frames": {name: _sha256(frames) for name, frames in one.images.items()},
    }


def _without_samples(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in ("first_action", "last_state")}


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _geometry(document: dict[str, Any]) -> CameraGeometry:
    return CameraGeometry(
        width=document["width"],
        height=document["height"],
        intrinsics_33=np.array(document["intrinsics"]),
        world_to_camera_44=np.array(document["world_to_camera"]),
    )
