"""Traces: what an episode's gripper points become, and the lines that the published programs draw, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest

from model_core.spec.errors import SpecError
from model_core.spec.types import Trace
from model_core.tokenization.overlays.resizing import area_resized, linear_resized
from model_core.tokenization.overlays.styles import steering_overlay, training_overlay, viewer_overlay
from model_core.tokenization.trace import future_traces, published_future
from tests.golden_road import ROAD, arrays, document

TRACES = document("trace.json")
INDEX = document("overlay/index.json")
TRAINING = [entry["file"] for entry in INDEX if entry["style"] == "training" and "three_numbers" not in entry["file"]]
STEERING = [entry["file"] for entry in INDEX if entry["style"] == "steering"]
VIEWER = [entry["file"] for entry in INDEX if entry["style"] == "viewer"]


def points_of(rows):
    return [tuple(row) if row is not None else None for row in rows]


@pytest.mark.parametrize("case", TRACES["per_frame"], ids=lambda case: f"{len(case['points'])}-{case['k']}")
def test_the_trace_of_every_frame(case):
    points = points_of(case["points"])
    written = [str([list(point) for point in published_future(points, step, length=case["k"])]) for step in range(len(points))]
    assert written == case["trace_text_per_frame"]


@pytest.mark.parametrize("case", TRACES["future"], ids=lambda case: f"{case['start']}-{case['length']}")
def test_the_future_from_a_step_on(case):
    fallback = tuple(case["fallback"]) if case["fallback"] else None
    made = published_future(points_of(case["points"]), case["start"], length=case["length"], fallback=fallback)
    assert [list(point) for point in made] == case["trace"]


@pytest.mark.parametrize("case", [case for case in TRACES["per_frame"] if any(case["points"])], ids=lambda case: f"{len(case['points'])}")
def test_ours_is_the_published_trace_of_a_256_pixel_image_while_points_are_seen(case):
    if max(max(point) for point in case["points"] if point is not None) > 255:
        return
    points = points_of(case["points"])
    track = np.array([point or (np.nan, np.nan) for point in points], float)
    valid = np.array([point is not None for point in points])
    ours = future_traces(track, valid, width=256, height=256, points=case["k"])
    for step, trace in enumerate(ours):
        published = published_future(points, step, length=case["k"])
        if published:
            assert trace is not None
            assert trace.points_N2.tolist() == [list(point) for point in published]


def test_every_recorded_image_is_compared():
    files = {path.name for path in (ROAD / "overlay").glob("*.npz")}
    assert {*TRAINING, *STEERING, *VIEWER, "train_three_numbers_per_point.npz"} == files
    assert len(files) == len(INDEX)


def drawn_traces(found):
    return [found[name] for name in ("trace", "trace_left", "trace_right") if name in found and found[name].size]


@pytest.mark.parametrize("file", TRAINING)
def test_training_style(file):
    found = arrays(f"overlay/{file}")
    before = found["image"].copy()
    assert np.array_equal(training_overlay(found["image"], *drawn_traces(found)), found["out"])
    assert np.array_equal(found["image"], before)


def test_three_numbers_a_point_are_refused():
    """As published the failure is swallowed and the image stays as it is, though the prompt says that a line is drawn."""
    found = arrays("overlay/train_three_numbers_per_point.npz")
    assert np.array_equal(found["image"], found["out"])
    with pytest.raises(SpecError, match=r"\(N, 2\)"):
        training_overlay(found["image"], found["trace"])


@pytest.mark.parametrize("file", STEERING)
def test_steering_style(file):
    found = arrays(f"overlay/{file}")
    height, width = found["image"].shape[:2]
    traces = drawn_traces(found)
    made = steering_overlay(found["resized"], traces[0], width=width, height=height) if traces else found["resized"]
    accepted = [found[name] for name in ("out", "out_opencv5") if name in found]
    assert any(np.array_equal(made, out) for out in accepted)


def test_a_typed_trace_is_drawn_like_its_points():
    image = np.full((48, 80, 3), 90, np.uint8)
    trace = Trace(points_N2=np.array([[0, 0], [255, 255], [20, 200]]))
    made = training_overlay(image, trace)
    assert np.array_equal(made, training_overlay(image, trace.points_N2))
    assert (made != image).any()
    with pytest.raises(SpecError, match="256x256"):
        steering_overlay(image, trace.points_N2, width=80, height=48)


@pytest.mark.parametrize("file", STEERING)
def test_the_frame_that_steering_draws_on(file):
    found = arrays(f"overlay/{file}")
    assert np.array_equal(area_resized(found["image"], width=256, height=256), found["resized"])


@pytest.mark.parametrize("file", VIEWER)
def test_viewer_style(file):
    found = arrays(f"overlay/{file}")
    assert np.array_equal(viewer_overlay(found["image"], found["trace"]), found["out"])


def test_images_of_one_colour_stay_so_at_any_size():
    image = np.full((30, 50, 3), 77, np.uint8)
    for resized in (area_resized, linear_resized):
        for width, height in ((50, 30), (25, 15), (17, 60), (100, 91), (1, 1)):
            made = resized(image, width=width, height=height)
            assert made.shape == (height, width, 3)
            assert (made == 77).all()
        with pytest.raises(SpecError, match="uint8"):
            resized(image.astype(np.float32), width=2, height=2)
        with pytest.raises(SpecError, match="pixels"):
            resized(image, width=0, height=2)
