"""Chunks follow each other by what was consumed, never by what a clock says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_core.spec.errors import SpecError
from model_core.spec.execution.chunking import targets_KA
from serving.workcell.motion.chunk_curve import ChunkRef
from serving.workcell.motion.latency_estimate import DelayWindow
from serving.workcell.motion.scheduler import STRATEGIES, Scheduler, ScheduleSettings
from serving.workcell.robot.strict_driver import simple_body

K, S = 8, 4
NOWHERE = np.zeros(4, np.float32)


def make(strategy: str = "async", mode: str = "delta", **changes: int) -> Scheduler:
    settings_ = {"chunk_length": K, "execute_horizon": S, "max_prefix_rows": K - 1, **changes}
    return Scheduler(simple_body(mode=mode), ScheduleSettings(strategy=strategy, **settings_))


def ref(seq: int, expires_at_s: float = 1e9) -> ChunkRef:
    return ChunkRef(chunk_id=f"c{seq}", session_id="s", epoch=1, seq=seq, contract_id="k", model_version="m", expires_at_s=expires_at_s)


def rows(first: float = 0.0, step: float = 0.1) -> NDArray[np.float32]:
    """Row k says first + k * step in every dimension."""
    return np.repeat((first + step * np.arange(K, dtype=np.float32))[:, None], 4, axis=1).astype(np.float32)


def ask(scheduler: Scheduler, seq: int):
    question = scheduler.draft(NOWHERE)
    scheduler.sent(seq, question)
    return question


def run(scheduler: Scheduler, steps: int) -> list[int]:
    """Rows that were executed in so many control steps; -1 for a hold."""
    done = []
    for _ in range(steps):
        scheduler.stepped()
        command = scheduler.next()
        done.append(-1 if command is None else command.row)
    return done


def test_a_first_answer_twenty_times_slower_skips_nothing() -> None:
    """lerobot#4223: the body stood still while the first answer was made, so its first row is the first one executed."""
    scheduler = make()
    ask(scheduler, 1)
    assert run(scheduler, 21) == [-1] * 21
    installed = scheduler.install(1, rows(), ref(1), is_warm_up=True)
    assert (installed.reason, installed.first, installed.consumed) == ("", 0.0, 0.0)
    assert run(scheduler, 3) == [0, 1, 2]
    assert scheduler.predicted == 0  # and it is not believed for the next one either


def test_skips_exactly_what_was_executed_meanwhile() -> None:
    scheduler = make()
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1))
    run(scheduler, 4)
    assert scheduler.wants_chunk()
    ask(scheduler, 2)
    assert run(scheduler, 3) == [4, 5, 6]
    assert scheduler.install(2, rows(), ref(2)).first == 3.0
    assert run(scheduler, 2) == [3, 4]


def test_holding_consumes_nothing() -> None:
    scheduler = make()
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1))
    run(scheduler, 6)
    ask(scheduler, 2)
    assert run(scheduler, 7) == [6, 7, -1, -1, -1, -1, -1]
    assert scheduler.install(2, rows(), ref(2)).first == 2.0


def test_delay_follows_a_ramp_and_comes_back() -> None:
    """F5: 50 -> 800 ms at 20 Hz and back; the estimate recovers after one window."""
    window = DelayWindow()
    for delay in (1, 2, 4, 8, 12, 16, 16, 16):
        window.add(delay)
    assert window.predict(99) == 16
    for _ in range(9):
        window.add(1)
    assert window.predict(99) == 1
    window.add(60)  # one 3 s spike
    assert window.predict(99) == 1
    assert window.predict(0) == 0


def test_prediction_is_capped_and_zero_before_anything_was_measured() -> None:
    window = DelayWindow()
    assert window.predict(5) == 0
    window.add(50)
    assert window.predict(5) == 5
    window.forget()
    assert window.predict(5) == 0


def test_asks_earlier_as_answers_take_longer() -> None:
    def executed_when_asked(delay: int) -> int:
        scheduler = make()
        ask(scheduler, 1)
        scheduler.install(1, rows(), ref(1), is_warm_up=True)
        for seq in range(2, 8):
            steps = 0
            while not scheduler.wants_chunk():
                run(scheduler, 1)
                steps += 1
            ask(scheduler, seq)
            run(scheduler, delay)
            scheduler.install(seq, rows(), ref(seq))
        while not scheduler.wants_chunk():
            run(scheduler, 1)
        return int(scheduler.draft(NOWHERE).previous_consumed)

    assert executed_when_asked(0) == 4
    assert executed_when_asked(2) == 2


def test_an_overtaken_chunk_is_dropped() -> None:
    scheduler = make(execute_horizon=K)
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1))
    ask(scheduler, 2)
    run(scheduler, K)
    assert "longer than it lasts" in scheduler.install(2, rows(), ref(2)).reason
    assert scheduler.tally.overtaken == 1


def test_an_answer_that_nobody_asked_for_is_dropped() -> None:
    scheduler = make()
    assert scheduler.install(7, rows(), ref(7)).reason == "nobody asked for it"
    ask(scheduler, 1)
    ask(scheduler, 2)  # a newer question replaces it
    assert scheduler.install(1, rows(), ref(1)).reason == "nobody asked for it"
    assert scheduler.install(2, rows(), ref(2)).reason == ""


def test_a_new_instruction_voids_older_answers_and_may_finish_some_rows() -> None:
    scheduler = make()
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1))
    run(scheduler, 1)
    question = ask(scheduler, 2)
    scheduler.bump(keep_rows=2)
    assert not scheduler.is_waiting
    assert scheduler.install(2, rows(), ref(2)).reason == "nobody asked for it"
    assert run(scheduler, 4) == [1, 2, -1, -1]
    assert question.revision == 0
    assert scheduler.revision == 1
    ask(scheduler, 3)
    scheduler.install(3, rows(), ref(3))
    scheduler.bump()
    assert run(scheduler, 1) == [-1]


def test_sync_stands_still_between_chunks() -> None:
    scheduler = make("sync")
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1))
    assert run(scheduler, 6) == [0, 1, 2, 3, -1, -1]
    assert scheduler.wants_chunk()
    ask(scheduler, 2)
    run(scheduler, 5)
    assert scheduler.install(2, rows(), ref(2)).first == 0.0


def prefix_in_motion(delay: int = 2) -> Scheduler:
    """Two rows of a chunk are executed, and answers are known to take `delay` rows."""
    scheduler = make("prefix")
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1), is_warm_up=True)
    scheduler.delays.add(delay)
    run(scheduler, 2)
    return scheduler


def test_prefix_commits_the_rows_that_will_be_executed() -> None:
    scheduler = prefix_in_motion()
    question = scheduler.draft(NOWHERE)
    assert question.predicted == len(question.committed_DA) == 2
    scheduler.sent(9, question)
    expected = [scheduler.next(), scheduler.next()]
    got = np.stack([c.action_A for c in expected if c is not None])
    assert np.array_equal(got, question.committed_DA)
    answer = rows(0.9)
    answer[:2] = question.committed_DA
    installed = scheduler.install(9, answer, ref(9), committed=2)
    assert (installed.reason, installed.first, installed.is_bent) == ("", 2.0, False)


def test_a_model_that_takes_no_committed_rows_is_joined_by_bending() -> None:
    scheduler = make("prefix", max_prefix_rows=0)
    ask(scheduler, 1)
    scheduler.install(1, rows(), ref(1), is_warm_up=True)
    scheduler.delays.add(2)
    run(scheduler, 2)
    question = scheduler.draft(NOWHERE)
    assert (question.predicted, len(question.committed_DA)) == (2, 0)
    scheduler.sent(9, question)
    run(scheduler, 2)
    installed = scheduler.install(9, rows(0.9), ref(9))
    assert (installed.reason, installed.first, installed.is_bent) == ("", 2.0, True)


def test_an_answer_that_breaks_its_prefix_is_discarded() -> None:
    scheduler = prefix_in_motion()
    question = scheduler.draft(NOWHERE)
    scheduler.sent(9, question)
    run(scheduler, 2)
    assert "rows that were committed" in scheduler.install(9, rows(-0.9), ref(9), committed=2).reason
    assert scheduler.tally.prefix_broken == 1


def test_more_executed_than_committed_is_bent_and_never_jumped() -> None:
    scheduler = prefix_in_motion()
    question = scheduler.draft(NOWHERE)
    scheduler.sent(9, question)
    run(scheduler, 4)
    answer = rows(0.9)
    answer[:2] = question.committed_DA
    installed = scheduler.install(9, answer, ref(9), committed=2)
    assert (installed.reason, installed.is_bent) == ("", True)


@pytest.mark.parametrize("mode", ["absolute", "delta", "velocity"])
def test_blending_joins_place_and_velocity(mode: str) -> None:
    scheduler = make("blend", mode)
    ask(scheduler, 1)
    scheduler.install(1, rows(0.0, 0.05), ref(1))
    last = [scheduler.next() for _ in range(3)]
    ask(scheduler, 2)
    last += [scheduler.next(), scheduler.next()]
    scheduler.install(2, rows(0.6, -0.05), ref(2))
    values = [float(c.action_A[0]) for c in last if c is not None]
    joined = [float(c.action_A[0]) for c in (scheduler.next() for _ in range(6)) if c is not None]
    plain = [float(v) for v in rows(0.6, -0.05)[2:, 0]]
    jump = abs(plain[0] - values[-1])
    assert abs(joined[0] - values[-1]) < 0.45 * jump
    if mode == "absolute":  # velocity: the first step goes on as the old one did, roughly
        assert abs((joined[0] - values[-1]) - 0.05) < 0.5 * abs((plain[0] - values[-1]) - 0.05)
    assert joined[-1] == pytest.approx(plain[-1], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["absolute", "delta", "velocity"]),
    old=st.lists(st.floats(-1, 1, width=32), min_size=K, max_size=K),
    new=st.lists(st.floats(-1, 1, width=32), min_size=K, max_size=K),
    executed=st.integers(1, K - 1),
)
def test_a_bent_row_never_leaves_the_body_s_range(mode: str, old: list[float], new: list[float], executed: int) -> None:
    scheduler = make("blend", mode)
    ask(scheduler, 1)
    scheduler.install(1, np.repeat(np.array(old, np.float32)[:, None], 4, axis=1), ref(1))
    ask(scheduler, 2)
    run(scheduler, executed)
    scheduler.install(2, np.repeat(np.array(new, np.float32)[:, None], 4, axis=1), ref(2))
    while (command := scheduler.next()) is not None:
        assert np.abs(command.action_A).max() <= 1.0


def test_the_gripper_is_never_blended() -> None:
    scheduler = make("blend", "absolute")
    ask(scheduler, 1)
    scheduler.install(1, rows(0.0, 0.0), ref(1))
    scheduler.next()
    ask(scheduler, 2)
    scheduler.next()
    scheduler.install(2, rows(0.8, 0.0), ref(2))
    command = scheduler.next()
    assert command is not None
    assert command.action_A[3] == pytest.approx(0.8)
    assert command.action_A[0] < 0.7


@pytest.mark.parametrize("mode", ["delta", "velocity"])
def test_stretching_changes_the_pace_and_not_the_way(mode: str) -> None:
    scheduler = make("async", mode)
    ask(scheduler, 1)
    scheduler.install(1, rows(0.1, 0.1), ref(1))
    total = np.zeros(4)
    while (command := scheduler.next(0.3)) is not None:
        total += command.action_A
    assert total[:3] == pytest.approx(rows(0.1, 0.1).sum(axis=0)[:3], abs=1e-4)


def test_stretched_poses_lie_on_the_same_curve() -> None:
    scheduler = make("async", "absolute")
    ask(scheduler, 1)
    scheduler.install(1, rows(0.1, 0.1), ref(1))
    values = []
    while (command := scheduler.next(0.25)) is not None:
        values.append(float(command.action_A[0]))
    assert len(values) == 4 * K
    assert np.all(np.diff(values) > 0)
    assert values[3::4] == pytest.approx(rows(0.1, 0.1)[:, 0].tolist(), abs=1e-5)


def test_relative_rows_count_from_where_the_observation_was_taken() -> None:
    body = simple_body(mode="relative")
    places = targets_KA(rows(0.1, 0.1), body, np.array([0.5, 0.0, -0.5, 0.3], np.float32))
    assert places[0].tolist() == pytest.approx([0.6, 0.1, -0.4, 0.1])
    assert targets_KA(rows(), simple_body(), np.zeros(4, np.float32)) is not None


def test_ensembling_is_for_absolute_poses_only() -> None:
    with pytest.raises(SpecError, match="absolute"):
        make("ensemble", "delta")
    scheduler = make("ensemble", "absolute", execute_horizon=K)
    ask(scheduler, 1)
    scheduler.install(1, rows(0.0, 0.1), ref(1))
    scheduler.next()
    ask(scheduler, 2)
    scheduler.install(2, rows(0.3, 0.1), ref(2))  # its row 0 is the old row 1
    command = scheduler.next()
    assert command is not None
    assert float(command.action_A[0]) == pytest.approx(0.2, abs=0.01)
    assert float(command.action_A[3]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_length": 0},
        {"execute_horizon": 9},
        {"execute_horizon": -5},
        {"chunk_length": True},
        {"blend_rows": 2.7},
        {"strategy": "fast"},
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        ScheduleSettings(**{"chunk_length": K, "execute_horizon": S, **changes})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from([s for s in STRATEGIES if s != "ensemble"]),
    delays=st.lists(st.integers(0, 25), min_size=1, max_size=12),
    scale=st.sampled_from([1.0, 0.5, 0.3]),
    lost=st.sets(st.integers(0, 12)),
)
def test_whatever_the_network_does_rows_come_in_order_and_none_from_standstill_is_skipped(
    strategy: str, delays: list[int], scale: float, lost: set[int]
) -> None:
    scheduler = make(strategy)
    executed: list[tuple[int, int]] = []
    seq, consumed = 0, 0.0
    for index, delay in enumerate(delays):
        for _ in range(K):
            if scheduler.wants_chunk():
                break
            scheduler.stepped()
            command = scheduler.next(scale)
            executed += [] if command is None else [(command.ref.seq, command.row)]
        seq += 1
        question = ask(scheduler, seq)
        was_still, consumed = scheduler.rows_left <= 0, 0.0
        for _ in range(delay):
            scheduler.stepped()
            command = scheduler.next(scale)
            if command is not None:
                consumed += command.scale
                executed.append((command.ref.seq, command.row))
        if index in lost:
            scheduler.lost(seq)
            continue
        answer = rows()
        answer[: len(question.committed_DA)] = question.committed_DA
        installed = scheduler.install(seq, answer, ref(seq), committed=len(question.committed_DA))
        if not installed.reason:
            assert math.isclose(installed.first, consumed, abs_tol=1e-6)
            assert not (was_still and installed.first > 0)
        assert scheduler.rows_left <= K
        assert 0 <= scheduler.predicted <= S
    assert executed == sorted(executed)
