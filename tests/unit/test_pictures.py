"""Pictures: right places, right colours, equal bytes."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from components.drawing.images import PREDICTED_RGB, TRUE_RGB, depth_image, example_sheet, overlay, png_bytes, rollout_strip, save_png
from model_core.spec.errors import SpecError
from model_core.spec.types import Trace
from tests.report_data import panels

GREY = np.full((80, 80, 3), 120, np.uint8)


def line(*points):
    return Trace(points_N2=np.array(points, np.int64))


def near(picture, color, y, x):
    return np.abs(picture[y, x].astype(int) - color).max() < 30


def test_overlay_draws_each_trace_where_it_is_and_in_its_colour():
    picture = overlay(GREY, predicted=line((0, 64), (255, 64)), true=line((0, 191), (255, 191)), side=240)
    assert picture.shape == (240, 240, 3)
    assert near(picture, PREDICTED_RGB, 60, 120)
    assert near(picture, TRUE_RGB, 179, 120)
    assert near(picture, (120, 120, 120), 120, 120)


def test_overlay_marks_the_end_not_the_start_as_full():
    picture = overlay(GREY, predicted=line((64, 128), (191, 128)), side=240)
    assert near(picture, PREDICTED_RGB, 120 - 5, 179)
    assert not near(picture, PREDICTED_RGB, 120 - 4, 60)


def test_overlay_leaves_the_given_picture_alone():
    before = GREY.copy()
    overlay(GREY, predicted=line((0, 0), (255, 255)))
    assert (before == GREY).all()


def test_depth_is_brighter_the_nearer_all_along_the_ramp():
    ramp = depth_image(np.linspace(0.5, 3.0, 100)[None, :])
    lightness = ramp[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) <= 0).all()
    assert lightness[0] - lightness[-1] > 180


def test_depth_scale_can_be_shared_between_maps():
    one = depth_image(np.array([[1.0]]), near=0.0, far=2.0)
    two = depth_image(np.array([[1.0, 2.0]]), near=0.0, far=2.0)
    assert (one[0, 0] == two[0, 0]).all()
    flat = depth_image(np.full((4, 4), 0.7))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_rollout_strip_shows_first_and_last_and_at_most_so_many():
    shown = panels(20)
    short, long = rollout_strip(shown[:2]), rollout_strip(shown, most=6)
    assert short.width < long.width
    assert rollout_strip(shown, most=6).size == rollout_strip(shown[:6], most=6).size
    ends = rollout_strip([shown[0], shown[-1]], most=6)
    left, right = np.asarray(long)[:, :180], np.asarray(long)[:, -180:]
    assert (left == np.asarray(ends)[:, :180]).all()
    assert (right[30:200] == np.asarray(ends)[30:200, -180:]).all()
    with pytest.raises(SpecError, match="at least one panel"):
        rollout_strip([])


def test_rollout_strip_grows_by_a_row_only_when_depth_was_said():
    with_depth = rollout_strip(panels(3))
    without = rollout_strip([replace(panel, depth_HW=None, true_depth_HW=None) for panel in panels(3)])
    assert without.height < with_depth.height


def test_pictures_that_are_not_square_are_shown_whole():
    wide = np.zeros((60, 120, 3), np.uint8)
    wide[:, 100:] = 255
    strip = rollout_strip([replace(panels(1)[0], image_HW3=wide, predicted=None, true=None)])
    assert (np.asarray(strip) == 255).all(axis=-1).any()


def test_equal_inputs_give_equal_bytes(tmp_path):
    assert png_bytes(example_sheet(panels(4))) == png_bytes(example_sheet(panels(4)))
    path = save_png(example_sheet(panels(4)), tmp_path / "a" / "sheet.png")
    assert path.read_bytes() == png_bytes(example_sheet(panels(4)))
    with Image.open(path) as image:
        assert image.info == {}
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
