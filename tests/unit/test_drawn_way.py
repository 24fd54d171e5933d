"""What of a drawn line lies still ahead: pure, and as a cell sends it while its arm goes along the line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.execution.drawn_way import way_ahead
from model_core.spec.protocol.steering_input import drawing
from model_core.spec.protocol.wire import SteeringInput
from serving.workcell.control.controlled_robot import Body
from serving.workcell.control.operator_input import OperatorInput
from serving.workcell.motion.limits import widest_limits
from tests.drawn_arm import BODY, DrawnArm, DrawnCell, to_pixel, to_place

LINE = np.array([[10.0, 50.0], [50.0, 50.0], [50.0, 10.0]])  # 80 pixels: to the right, then up
PIXELS = st.tuples(st.floats(0, 90), st.floats(0, 90))


@pytest.mark.parametrize(
    ("gripper", "passed", "way", "now"),
    [
        ((10, 50), 0.0, [(10, 50), (10, 50), (30, 50), (50, 50), (50, 10)], 0.0),
        ((30, 50), 0.0, [(30, 50), (30, 50), (50, 50), (50, 30), (50, 10)], 0.25),
        ((30, 46), 0.0, [(30, 46), (34, 50), (50, 50), (50, 30), (50, 10)], 0.25),  # beside it: joins as far ahead as it is away
        ((10, 50), 0.5, [(10, 50), (20, 40), (30, 30), (40, 20), (50, 10)], 0.5),  # pushed back: what is passed stays passed
        ((50, 10), 0.9, [(50, 10)] * 5, 1.0),
        ((50, 2), 0.9, [(50, 2), (50, 4), (50, 6), (50, 8), (50, 10)], 1.0),  # beyond the end: back to it
        (None, 0.5, [(50, 50), (50, 40), (50, 30), (50, 20), (50, 10)], 0.5),
    ],
)
def test_the_way_begins_at_the_gripper_and_drops_what_it_has_passed(
    gripper: tuple[int, int] | None, passed: float, way: list[tuple[int, int]], now: float
) -> None:
    found = way_ahead(LINE, None if gripper is None else np.array(gripper), passed)
    assert found.passed == pytest.approx(now, abs=0.005)
    assert found.points_N2.dtype == np.float32
    length = np.linalg.norm(np.diff(found.points_N2, axis=0), axis=1).sum()
    assert length == pytest.approx(np.linalg.norm(np.diff(np.array(way, float), axis=0), axis=1).sum(), abs=1.0)
    assert all(np.linalg.norm(found.points_N2 - point, axis=1).min() < 1 for point in (way[0], way[-1]))
    assert len(found.points_N2) == 5


def test_a_loop_is_gone_round_and_the_way_back_is_not_skipped() -> None:
    square = np.array([[10, 10], [50, 10], [50, 50], [10, 50], [10, 11]], float)
    there_and_back = np.array([[10, 10], [60, 10], [10, 10]], float)
    for line in (square, there_and_back):
        passed, told = 0.0, []
        for x, y in _along(line, 2.0):
            passed = way_ahead(line, np.array([x, y + 1.0]), passed).passed
            told.append(passed)
        steps = np.diff([0.0, *told])
        assert told[0] < 0.02
        assert steps.max() < 0.05
        assert told[-1] > 0.98


@settings(max_examples=40)
@given(st.lists(PIXELS, min_size=1, max_size=8), st.lists(PIXELS, min_size=1, max_size=8))
def test_progress_never_goes_back_and_the_end_stays_the_drawn_one(
    line: list[tuple[float, float]], grippers: list[tuple[float, float]]
) -> None:
    passed, line_N2 = 0.0, np.array(line)
    for gripper in grippers:
        way = way_ahead(line_N2, np.array(gripper), passed)
        assert passed <= way.passed <= 1.0
        assert np.isfinite(way.points_N2).all()
        assert len(way.points_N2) >= 5
        assert np.allclose(way.points_N2[0], gripper, atol=1e-3)
        assert np.allclose(way.points_N2[-1], line_N2[-1], atol=1e-3)
        passed = way.passed


def test_a_cell_sends_what_lies_ahead_and_the_arm_arrives(tmp_path: Path) -> None:
    drawn_cell = DrawnCell(tmp_path)
    cell, service = drawn_cell.cell, drawn_cell.service
    assert cell.begin(1) is None
    end, corner = np.array([20.0, 20.0]), np.array([20.0, 76.0])
    cell.steer(drawing([drawn_cell.pixel_2.tolist(), corner.tolist(), end.tolist()], BODY, "front"))
    seen = [drawn_cell.pixel_2]
    for _ in range(60):
        drawn_cell.step()
        seen.append(drawn_cell.pixel_2)
    sent = [one.steering for one in service.heard_observes if one.steering is not None]
    assert len(sent) > 5
    left = [float(np.linalg.norm(np.diff(one.ahead_N2, axis=0), axis=1).sum()) for one in sent if one.ahead_N2 is not None]
    assert len(left) == len(sent)
    assert all(after <= before + 1 for before, after in pairwise(left))
    assert np.linalg.norm(seen[-1] - end) < 3
    assert min(np.linalg.norm(np.array(seen) - corner, axis=1)) < 6
    cell.close()


def test_a_gripper_that_the_cell_cannot_place_on_the_image_leaves_the_drawing_as_it_is() -> None:
    arm, wishes = DrawnArm(), OperatorInput()
    body = Body(arm, widest_limits(BODY))
    line = drawing([[48, 76], [20, 20]], BODY, "front")
    wishes.tell("steering", line)
    wishes.take(0.0)

    def sent(where: Body) -> SteeringInput:
        told = wishes.steering(0.1, where.gripper_2)
        assert told is not None
        assert np.array_equal(told.points_N2, line.points_N2)
        return told

    arm.place_2 = np.array([9.0, 0.0])  # out of view
    assert sent(body).ahead_N2 is None
    without = Body(_Unlocated(), widest_limits(BODY))  # type: ignore[arg-type]
    assert sent(without).ahead_N2 is None
    arm.place_2 = to_place(np.array([34.0, 48.0]))
    halfway = sent(body).ahead_N2
    assert halfway is not None
    assert np.allclose(halfway[0], [34, 48], atol=0.01)
    arm.place_2 = np.array([9.0, 0.0])
    after = sent(body).ahead_N2
    assert after is not None
    assert np.allclose(after[0], [34, 48], atol=0.3)  # where it had come to
    assert np.allclose(to_pixel(to_place(after[-1])), [20, 20])


class _Unlocated:
    """A robot without calibration."""

    embodiment, task, instruction = BODY, "slide", "go"

    def reset(self, seed: int) -> None: ...

    def observe(self) -> None: ...

    def act(self, action_A: np.ndarray) -> None: ...

    def close(self) -> None: ...


def _along(line_N2: np.ndarray, step: float) -> np.ndarray:
    """Places along a line, `step` pixels apart."""
    along_N = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line_N2, axis=0), axis=1))])
    at_S = np.append(np.arange(0.0, along_N[-1], step), along_N[-1])
    return np.stack([np.interp(at_S, along_N, line_N2[:, axis]) for axis in range(2)], axis=1)
