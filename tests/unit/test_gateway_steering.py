"""Steering and editing: right picture, right size, inside, fresh, and the last word to one author."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_core.spec.protocol.wire import Edit, SteeringInput
from model_core.spec.types import RefusalCode
from model_core.tokenization.trace import resampled
from serving.gateway.sessions.steering import MAX_DRAWN_POINTS, SessionSteering, SteeringRefused
from tests.fakes import make_contract

SIZES = {"front": (16, 16)}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guide(clock: Clock) -> SessionSteering:
    return SessionSteering(make_contract(), clock)


def drawn(points: list[tuple[float, float]] | None = None, **changes: object) -> SteeringInput:
    points_N2 = np.array(points or [(0, 0), (15, 15)], np.float32)
    return replace(SteeringInput(points_N2=points_N2, image="front", width=16, height=16, revision=1, author="ann"), **changes)


def refused(guide: SessionSteering, steering: SteeringInput | None = None, edit: Edit | None = None) -> tuple[RefusalCode, str]:
    with pytest.raises(SteeringRefused) as caught:
        guide.take(steering, edit, SIZES)
    return caught.value.refusal.code, caught.value.refusal.reason


def test_pixels_become_the_range_of_a_trace(guide: SessionSteering) -> None:
    taken = guide.take(drawn([(0, 0), (7.5, 15), (15, 0)], revision=3), None, SIZES)
    assert taken.steering is not None
    assert taken.steering.points_N2.tolist() == [[0, 0], [128, 255], [255, 0]]
    assert (taken.flags, taken.applied_revision) == (("steering:rev3",), 3)


def test_a_long_drawing_keeps_its_ends_and_shape(guide: SessionSteering) -> None:
    line = [(i / 10, 2.0) for i in range(151)]
    taken = guide.take(drawn(line), None, SIZES)
    assert taken.steering is not None
    assert len(taken.steering.points_N2) == 5
    assert taken.steering.points_N2[:, 0].tolist() == [0, 64, 128, 191, 255]
    corner = resampled(np.array([(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)]), 5)
    assert corner.tolist() == [[0, 0], [5, 0], [10, 0], [10, 5], [10, 10]]


def test_what_lies_ahead_is_followed_and_the_same_revision_may_bring_less_of_it(guide: SessionSteering) -> None:
    for ahead in ([(0, 0), (15, 15)], [(15, 0), (15, 15)]):
        taken = guide.take(drawn(ahead_N2=np.array(ahead, np.float32), revision=2), None, SIZES)
        assert taken.steering is not None
        assert taken.steering.points_N2.tolist() == [[17 * x, 17 * y] for x, y in ahead]
        assert taken.applied_revision == 2


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"ahead_N2": np.array([[0, 16.0]], np.float32)}, RefusalCode.CONTRACT, "what lies ahead of the steering leaves the image"),
        ({"ahead_N2": np.array([[np.inf, 3.0]], np.float32)}, RefusalCode.NONFINITE, "what lies ahead of the steering holds NaN"),
        ({"image": "wrist"}, RefusalCode.CONTRACT, "takes it on 'front'"),
        ({"width": 640, "height": 480}, RefusalCode.CONTRACT, "640x480"),
        ({"points_N2": np.array([[0, 16.0]], np.float32)}, RefusalCode.CONTRACT, "leaves the image"),
        ({"points_N2": np.array([[-1.0, 3.0]], np.float32)}, RefusalCode.CONTRACT, "leaves the image"),
        ({"points_N2": np.array([[np.nan, 3.0]], np.float32)}, RefusalCode.NONFINITE, "NaN"),
        ({"points_N2": np.zeros((MAX_DRAWN_POINTS + 1, 2), np.float32)}, RefusalCode.TOO_LARGE, "points"),
        ({"revision": 0}, RefusalCode.CONTRACT, "revision"),
    ],
)
def test_steering_that_does_not_fit_is_refused_with_its_reason(guide: SessionSteering, changes: dict, code: RefusalCode, told: str) -> None:
    found, reason = refused(guide, drawn(**changes))
    assert found is code
    assert told in reason


def test_the_same_revision_may_come_with_every_observation_but_not_changed(guide: SessionSteering) -> None:
    assert guide.take(drawn(), None, SIZES).applied_revision == 1
    assert guide.take(drawn(), None, SIZES).applied_revision == 1
    assert "other content" in refused(guide, drawn([(1, 1), (2, 2)]))[1]
    assert guide.take(drawn([(1, 1), (2, 2)], revision=2), None, SIZES).applied_revision == 2


def test_a_lower_or_equal_revision_never_takes_over(guide: SessionSteering) -> None:
    guide.take(drawn(revision=5), None, SIZES)
    for author, revision in (("bob", 5), ("bob", 4), ("ann", 4)):
        code, reason = refused(guide, drawn(author=author, revision=revision))
        assert code is RefusalCode.STALE_OBS
        assert "not newer than revision 5 of 'ann'" in reason
    assert guide.take(drawn(author="bob", revision=6), None, SIZES).applied_revision == 6
    refused(guide, drawn(revision=5))  # the one who was overtaken


def test_a_refused_drawing_is_not_remembered(guide: SessionSteering) -> None:
    refused(guide, drawn(image="wrist", revision=9))
    assert guide.take(drawn(revision=1), None, SIZES).applied_revision == 1


def test_what_is_too_old_is_left_out_and_said_so(guide: SessionSteering, clock: Clock) -> None:
    assert guide.take(drawn(ttl_ms=500.0), None, SIZES).steering is not None
    clock.now = 0.6
    late = guide.take(drawn(ttl_ms=500.0), None, SIZES)
    assert (late.steering, late.flags, late.applied_revision) == (None, ("steering:expired",), 0)
    assert guide.take(drawn(revision=2, ttl_ms=0.0), None, SIZES).flags == ("steering:expired",)


def test_a_cell_that_counts_the_life_of_a_drawing_down_gets_all_of_it_and_no_more(guide: SessionSteering, clock: Clock) -> None:
    flags = []
    for clock.now in (0.0, 0.3, 0.6, 0.9, 0.99):
        flags.append(guide.take(drawn(ttl_ms=1e3 * (1.0 - clock.now)), None, SIZES).flags)
    assert flags == [("steering:rev1",)] * 5
    clock.now = 1.01
    assert guide.take(drawn(ttl_ms=9000.0), None, SIZES).flags == ("steering:expired",)  # it is no longer life that is asked for


def test_authors_are_bounded_and_a_new_episode_begins_anew(guide: SessionSteering) -> None:
    for revision in range(1, 17):
        guide.take(drawn(author=f"author-{revision}", revision=revision), None, SIZES)
    assert refused(guide, drawn(author="one-more", revision=17))[0] is RefusalCode.TOO_LARGE
    guide.reset()
    assert guide.take(drawn(author="one-more"), None, SIZES).applied_revision == 1


def test_an_edit_is_checked_and_handed_on(guide: SessionSteering) -> None:
    codes_G, trace_N2 = np.arange(100, dtype=np.int64), np.array([[1, 2]], np.int64)
    taken = guide.take(None, Edit(depth_codes_G=codes_G, trace_N2=trace_N2, revision=4, author="ann"), SIZES)
    assert taken.is_edit
    assert taken.depth is not None
    assert taken.trace is not None
    assert (taken.flags, taken.applied_revision) == (("edit:rev4",), 4)
    wrong = Edit(depth_codes_G=np.full(100, 128), revision=5, author="ann")
    assert "depth codes must be 0..127" in refused(guide, edit=wrong)[1]
    assert "0..255" in refused(guide, edit=Edit(trace_N2=np.array([[300, 0]]), revision=5, author="ann"))[1]
    assert refused(guide, edit=Edit(depth_codes_G=codes_G, revision=3, author="bob"))[0] is RefusalCode.STALE_OBS


def test_steering_and_edit_together_contradict_each_other(guide: SessionSteering) -> None:
    edit = Edit(trace_N2=np.array([[1, 2]], np.int64), revision=1)
    assert "contradict" in refused(guide, drawn(), edit)[1]


def test_a_policy_without_steering_takes_none(clock: Clock) -> None:
    contract = make_contract()
    guide = SessionSteering(replace(contract, reasoning=replace(contract.reasoning, steering=False)), clock)
    assert refused(guide, drawn())[0] is RefusalCode.CONTRACT
    assert guide.take(None, None, SIZES).flags == ()
