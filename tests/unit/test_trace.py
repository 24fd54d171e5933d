import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.spec.errors import SpecError
from model_core.spec.types import Trace
from model_core.tokenization.trace import STEERING_RGB, draw_overlay, future_indices, future_trace, future_traces, to_pixels, to_range
from tests import strategies


@given(strategies.traces(), st.integers(256, 2000), st.integers(256, 2000))
def test_range_and_pixels_are_inverse(trace, width, height):
    pixels = to_pixels(trace.points_N2, width=width, height=height)
    assert np.array_equal(to_range(pixels, width=width, height=height), trace.points_N2)


@given(st.integers(2, 640), st.integers(2, 480), st.data())
def test_pixels_survive_to_within_half_a_step(width, height, data):
    pixel = np.array([[data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))]])
    back = to_pixels(to_range(pixel, width=width, height=height), width=width, height=height)
    assert (np.abs(back - pixel) <= np.array([width - 1, height - 1]) / 255 / 2 + 1e-9).all()


def test_corners_of_a_wide_image():
    assert to_range(np.array([[0, 0], [639, 479], [320, 240]]), width=640, height=480).tolist() == [[0, 0], [255, 255], [128, 128]]


@pytest.mark.parametrize("point", [[-1.0, 5.0], [80.0, 5.0], [np.nan, 5.0], [5.0, np.inf]])
def test_points_outside_raise(point):
    with pytest.raises(SpecError, match="inside"):
        to_range(np.array([point]), width=80, height=80)


def test_future_indices_are_those_of_the_release():
    assert future_indices(1).tolist() == [0]
    assert future_indices(5).tolist() == [0, 1, 2, 3, 4]
    assert future_indices(12).tolist() == [0, 2, 5, 8, 11]
    assert future_indices(101).tolist() == [0, 25, 50, 75, 100]


def test_future_trace_starts_now_and_ends_at_the_end():
    track = np.stack([np.arange(30.0), np.arange(30.0) * 2], axis=1)
    valid = np.ones(30, bool)
    traces = future_traces(track, valid, width=256, height=256)
    assert [len(t.points_N2) for t in traces if t is not None][-6:] == [5, 5, 4, 3, 2, 1]
    assert traces[3] is not None
    assert traces[3].points_N2[0].tolist() == [3, 6]
    assert traces[3].points_N2[-1].tolist() == [29, 58]


def test_unseen_points_are_skipped_and_never_invented():
    track = np.stack([np.arange(6.0), np.arange(6.0)], axis=1)
    track[[0, 4, 5]] = np.nan
    valid = np.array([False, True, True, True, False, False])
    assert [p[0] for p in future_trace(track, valid, 0, width=256, height=256).points_N2] == [1, 2, 3]
    assert future_trace(track, valid, 5, width=256, height=256).points_N2.tolist() == [[3, 3]]
    assert future_trace(track, np.zeros(6, bool), 2, width=256, height=256) is None


def test_overlay_is_cyan_and_two_pixels_thick():
    image = np.full((60, 100, 3), 90, np.uint8)
    drawn = draw_overlay(image, Trace(points_N2=np.array([[26, 128], [230, 128]])))
    row = round(128 * 59 / 255)
    assert drawn[row, 50].tolist() == list(STEERING_RGB)
    column = drawn[:, 50].astype(int)
    covered = (column[:, 1] - 90).sum() / (255 - 90)
    assert covered == pytest.approx(2.0, abs=0.05)
    assert (image == 90).all()
    assert (drawn[row - 5] == 90).all()
    assert (drawn[row, :5] == 90).all()


def test_overlay_thickness_and_single_points():
    image = np.zeros((64, 64, 3), np.uint8)
    line = Trace(points_N2=np.array([[20, 20], [200, 150], [200, 150]]))
    thin, thick = draw_overlay(image, line), draw_overlay(image, line, thickness=3)
    assert thick.sum() > thin.sum() > 0
    assert np.array_equal(draw_overlay(image, Trace(points_N2=np.array([[9, 9]]))), image)
    with pytest.raises(SpecError):
        draw_overlay(image.astype(np.float32), line)
