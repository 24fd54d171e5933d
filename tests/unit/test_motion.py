"""RUN, STRETCH, HOLD, SAFE_STOP: and only a person leaves the last one."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.spec.errors import SpecError
from serving.workcell.motion.motion_state import MotionSettings, MotionState, StateMachine


def test_runs_dry_step_by_step() -> None:
    machine = StateMachine(MotionSettings(stretch_rows=2, safe_stop_after_s=1.0))
    machine.begin(0.0)
    seen = [machine.tick(t / 20, left) for t, left in enumerate([4, 3, 2, 1, 0, 0])]
    assert seen == [MotionState.RUN, MotionState.RUN, MotionState.STRETCH, MotionState.STRETCH, MotionState.HOLD, MotionState.HOLD]
    assert machine.tick(3.0, 0) is MotionState.SAFE_STOP
    assert "held for" in machine.reason
    modes = [mode for mode, _ in groupby([*seen, machine.mode])]
    assert modes == [MotionState.RUN, MotionState.STRETCH, MotionState.HOLD, MotionState.SAFE_STOP]


def test_slows_down_before_it_stops_and_speeds_up_by_steps() -> None:
    machine = StateMachine(MotionSettings(stretch_rows=3, min_scale=0.2, speed_up=0.3))
    machine.begin(0.0)
    scales = []
    for left in (5, 3, 2, 1, 0.5, 8, 8, 8, 8):
        machine.tick(0.0, left)
        scales.append(machine.scale)
    assert scales[0] == 1.0
    assert all(a >= b for a, b in pairwise(scales[:5]))
    assert min(scales) == pytest.approx(0.2)
    assert scales[5] == pytest.approx(0.5)
    assert scales[-1] == 1.0


def test_only_a_named_person_leaves_a_safe_stop_and_nothing_moves_by_it() -> None:
    machine = StateMachine()
    machine.begin(0.0)
    machine.stop(1.0, "watchdog")
    machine.begin(2.0)  # a new episode is no person
    assert machine.tick(3.0, 8) is MotionState.SAFE_STOP
    with pytest.raises(SpecError, match="name"):
        machine.resume(3.0, " ")
    machine.resume(3.0, "anna")
    assert machine.mode is MotionState.HOLD


def test_so_many_refused_chunks_in_a_row_are_a_stop() -> None:
    machine = StateMachine(MotionSettings(max_rejects=3))
    machine.begin(0.0)
    for _ in range(2):
        machine.rejected(0.0, "jump")
    machine.accepted()
    for _ in range(3):
        assert machine.mode is not MotionState.SAFE_STOP
        machine.rejected(0.0, "jump")
    assert machine.mode is MotionState.SAFE_STOP


def test_told_to_hold_it_holds_until_released_and_is_not_lost_by_it() -> None:
    machine = StateMachine(MotionSettings(safe_stop_after_s=1.0))
    machine.begin(0.0)
    machine.hold(0.0, "the service says so")
    assert machine.tick(50.0, 8) is MotionState.HOLD
    machine.release()
    assert machine.tick(50.0, 8) is MotionState.RUN


@given(st.lists(st.tuples(st.sampled_from(["tick", "reject", "stop", "hold", "release", "begin"]), st.floats(0, 9)), max_size=60))
def test_no_way_out_of_safe_stop(events: list[tuple[str, float]]) -> None:
    machine, now = StateMachine(), 0.0
    machine.begin(now)
    for name, number in events:
        now += number
        before = machine.mode
        match name:
            case "tick":
                machine.tick(now, number - 3)
            case "reject":
                machine.rejected(now, "x")
            case "stop":
                machine.stop(now, "x")
            case "hold":
                machine.hold(now, "x")
            case "release":
                machine.release()
            case _:
                machine.begin(now)
        assert before is not MotionState.SAFE_STOP or machine.mode is MotionState.SAFE_STOP
        assert machine.settings.min_scale <= machine.scale <= 1.0
