"""Who is admitted, at which level, and what is forgotten: pure, on a clock of the test's own."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.spec.types import Decision, DecisionRequest, Observation
from serving.gateway.inference.admission import Load, Reservations, admit, cheaper_levels, needed_s
from serving.gateway.inference.service_times import BATCH_SIZES, FEW_JOINS, ServiceTimes, interpolated, quantile
from serving.gateway.inference.stub_policy import StubPolicy, stub_contract
from serving.gateway.inference.warm_up import WarmUpBudget, synthetic_observation, warm_up
from tests.fakes import EchoPolicy


def times_of(**seconds: float) -> ServiceTimes:
    times = ServiceTimes(window_s=60)
    for level, value in seconds.items():
        times.add_baseline("" if level == "own" else level, 1, value)
    return times


def test_a_single_slow_answer_does_not_count_among_few() -> None:
    assert quantile([5.0], 0.95) == 5.0
    assert quantile([0.1, 9.0], 0.95) == 0.1
    assert quantile([0.1] * 10 + [9.0], 0.95) == 0.1
    assert quantile([0.1] * 18 + [9.0] * 3, 0.95) == 9.0


def test_what_can_be_met_is_admitted_at_the_level_that_was_asked() -> None:
    times = times_of(own=0.2, action=0.05)
    times.add_baseline("", 2, 0.25)
    verdict = admit(times, Load(capacity=4, running=[("", 0.0)]), ("", "action"), 0.3)
    assert (verdict.level, verdict.needed_s) == ("", 0.25)


def test_what_cannot_be_met_is_served_cheaper_or_not_at_all() -> None:
    times = times_of(own=0.2, action=0.05)
    busy = Load(capacity=4, running=[("", 0.0)])
    assert admit(times, busy, ("", "action"), 0.15).level == "action"
    refused = admit(times, busy, ("",), 0.15)
    assert refused.level is None
    assert refused.needed_s > 0.15
    assert admit(times, busy, ("", "action"), 0.0).level is None


def test_an_idle_engine_always_tries() -> None:
    times = times_of(own=5.0)
    assert admit(times, Load(capacity=4), ("",), 0.1).level == ""
    assert admit(times_of(own=5.0, action=3.0), Load(capacity=4), ("", "action"), 0.1).level == "action"


def test_a_full_round_is_waited_for_in_waves() -> None:
    times = times_of(own=1.0)
    times.add_baseline("", 2, 1.0)
    full = Load(capacity=2, running=[("", 0.4), ("", 0.9)])
    assert needed_s(times, full, "") == pytest.approx(1.1)  # the row that is nearly done leaves in 0.1 s
    assert needed_s(times, Load(capacity=2, running=full.running, ahead=1), "") == pytest.approx(1.6)
    assert needed_s(times, Load(capacity=2, running=full.running, ahead=2), "") == pytest.approx(2.1)


def test_the_rest_of_a_running_block_is_waited_for() -> None:
    times = times_of(own=0.5)
    times.add_block(0.4, now=0.0)
    assert needed_s(times, Load(capacity=8, running=[("", 0.1)], block_for_s=0.1), "") == pytest.approx(0.3 + 1.0)


def test_so_many_join_a_running_round_that_those_in_it_wait_about_one_block_more() -> None:
    times = ServiceTimes()
    assert times.joins_per_block == FEW_JOINS  # nobody knows yet
    times.add_block(9.0, 0.0)  # an empty round says nothing of either
    for second in range(5):
        times.add_block(0.1, float(second), 0)
    assert times.joins_per_block == FEW_JOINS
    for joined in (1, 2, 4):
        times.add_block(0.1 + 0.03 * joined, 5.0, joined)
    assert times.joins_per_block == 3
    times.forget(now=100.0)
    assert times.joins_per_block == FEW_JOINS
    for seconds, joined in ((0.1, 0), (0.1, 4)):
        times.add_block(seconds, 100.0, joined)
    assert times.joins_per_block == BATCH_SIZES[-1]  # joining costs nothing
    for _ in range(9):
        times.add_block(5.0, 100.0, 2)
    assert times.joins_per_block == 1  # it costs more than a block, but nobody is kept out for ever


def test_who_has_to_wait_for_others_to_join_is_told_so() -> None:
    times = times_of(own=1.0)
    times.add_baseline("", 16, 1.0)
    times.add_block(0.2, now=0.0)
    assert needed_s(times, Load(capacity=16, running=[("", 0.0)], ahead=3, joins=2), "") == pytest.approx(1.2)
    assert needed_s(times, Load(capacity=16, running=[("", 0.0)], ahead=1, joins=2), "") == pytest.approx(1.0)
    assert needed_s(times, Load(capacity=16, ahead=3, joins=2), "") == pytest.approx(1.0)  # an empty round takes everybody in


def test_a_bad_minute_is_forgotten_and_the_baseline_counts_again() -> None:
    times = times_of(own=0.1)
    for second in range(10):
        times.add("", 1, 3.0, now=float(second))
    assert times.p95("", 1) == 3.0
    times.forget(now=30.0)
    assert times.p95("", 1) == 3.0
    times.forget(now=100.0)
    assert times.p95("", 1) == 0.1


def test_unmeasured_batches_are_estimated_from_their_neighbours() -> None:
    times = ServiceTimes()
    assert times.p95("", 4) == 0.0
    assert times.capacity_per_s("") == math.inf
    times.add_baseline("", 1, 0.1)
    times.add_baseline("", 8, 0.4)
    assert times.p95("", 4) == pytest.approx(0.1 + 0.3 * 3 / 7)
    assert times.p95("", 16) == pytest.approx(0.4 + 0.3 * 8 / 7)  # as steep as before, and less than two batches of eight
    assert times.capacity_per_s("") == pytest.approx(20.0)


CURVES = st.dictionaries(st.sampled_from(BATCH_SIZES), st.floats(0.001, 10.0), min_size=1)


@given(curve=CURVES, rows=st.integers(1, 16))
def test_a_size_that_nobody_measured_is_between_its_neighbours_and_never_more_than_the_same_work_again(
    curve: dict[int, float], rows: int
) -> None:
    seconds = interpolated(curve, rows)
    smaller, larger = [s for b, s in curve.items() if b <= rows], [s for b, s in curve.items() if b >= rows]
    assert seconds >= max(smaller, default=0.0) - 1e-9
    assert rows <= max(curve) or seconds <= max(curve.values()) * rows / max(curve) + 1e-9
    assert not larger or seconds <= max([*smaller, *larger]) + 1e-9
    assert seconds <= interpolated(curve, rows + 1) + 1e-9


@given(fixed=st.floats(0.0, 1.0), per_row=st.floats(0.001, 0.1), sizes=st.sets(st.sampled_from(BATCH_SIZES), min_size=2))
def test_a_batch_that_costs_so_much_a_row_is_read_off_exactly(fixed: float, per_row: float, sizes: set[int]) -> None:
    times = ServiceTimes()
    for size in sizes:
        times.add_baseline("", size, fixed + per_row * size)
    for rows in (b for b in BATCH_SIZES if b >= min(sizes)):
        assert times.p95("", rows) == pytest.approx(fixed + per_row * rows)


def test_what_could_be_met_is_no_longer_refused_for_want_of_a_measurement() -> None:
    times = times_of(own=0.11)
    crowd = Load(capacity=16, running=[("", 0.0)] * 7)
    assert admit(times, crowd, ("",), 0.3).level is None  # one size says nothing of eight rows but: eight times the work
    times.add_baseline("", 2, 0.12)
    assert admit(times, crowd, ("",), 0.3).level == ""
    assert needed_s(times, crowd, "") == pytest.approx(0.18)
    assert admit(times, crowd, ("",), 0.17).level is None


def test_a_size_that_costs_more_than_its_neighbours_let_expect_is_promised_only_until_it_has_happened() -> None:
    times = times_of(own=0.1)
    times.add_baseline("", 2, 0.11)
    assert times.p95("", 8) == pytest.approx(0.17)
    for second in range(3):
        times.add("", 8, 0.4, now=float(second))
    assert times.p95("", 8) == 0.4
    assert 0.11 < times.p95("", 4) < 0.4
    assert times.p95("", 16) > 0.6
    times.forget(now=1000.0)
    assert times.p95("", 8) == 0.4  # kept: it is better than any estimate
    for second in range(3):
        times.add("", 8, 9.0, now=2000.0 + second)
    assert times.p95("", 8) == 9.0
    times.forget(now=3000.0)
    assert times.p95("", 8) == pytest.approx(0.11 * 4)  # a bad minute is not: no more than the same work in batches of two


def test_an_engine_that_has_become_slow_is_so_at_every_size() -> None:
    times = times_of(own=0.1)
    times.add_baseline("", 4, 0.2)
    times.add("", 1, 5.0, now=0.0)
    assert times.p95("", 4) == 0.2  # one slow answer says nothing of four rows
    for second in range(3):
        times.add("", 1, 0.5, now=float(second))
    assert times.p95("", 1) == 0.5
    assert times.p95("", 4) >= 0.5
    assert times.p95("", 8) >= 0.5
    times.forget(now=100.0)
    assert times.p95("", 4) == 0.2


def test_an_engine_that_is_faster_than_before_anybody_asked_is_so_at_smaller_sizes() -> None:
    times = times_of(own=0.3)
    times.add_baseline("", 4, 0.5)
    for second in range(3):
        times.add("", 4, 0.1, now=float(second))
    assert times.p95("", 1) == 0.1
    assert times.p95("", 2) == 0.1


def test_sessions_reserve_a_share_of_the_measured_capacity() -> None:
    desk = Reservations(share=0.75)
    assert desk.refuses("a", 10.0, 20.0) == ""
    desk.hold("a", 10.0)
    assert "promised already" in desk.refuses("b", 6.0, 20.0)
    assert desk.refuses("a", 15.0, 20.0) == ""  # in place of what it holds
    assert desk.refuses("b", 0.0, 20.0) == ""  # who reserves nothing is not refused
    desk.free("a")
    assert desk.refuses("b", 6.0, 20.0) == ""
    assert desk.total_per_s == 0


def test_cheaper_levels_are_those_that_contract_and_policy_know() -> None:
    everything = {"full": True, "reuse-depth": True, "trace+action": True, "action": True}
    assert cheaper_levels("", ("full", "trace+action", "action"), everything, "full") == ("", "trace+action", "action")
    assert cheaper_levels("", ("full", "trace+action", "action"), {**everything, "action": False}, "full") == ("", "trace+action")
    assert cheaper_levels("full", tuple(everything), everything, "full") == ("full",)  # a named level is not changed
    assert cheaper_levels("", tuple(everything), everything, "") == ("",)


def test_warming_up_measures_levels_and_batches_but_not_the_first_answer() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    slow_first = StubPolicy(service_s=0.1, per_row_s=0.01, blocks=4, sleep=sleep, contract=stub_contract())
    slow_first.fault = lambda rows: sleep(2.0) if len(slow_first.calls) == 1 else None
    times = ServiceTimes()
    seen = synthetic_observation(slow_first.contract)
    found = warm_up(slow_first, slow_first.contract, seen, times, WarmUpBudget(seconds=60, max_batch=8), clock=lambda: clock[0])
    assert (found.own, found.works) == ("full", {"full": True, "reuse-depth": True, "trace+action": True, "action": True})
    assert times.p95("", 1) == pytest.approx(0.14)
    assert times.p95("action", 1) == pytest.approx(0.035)
    assert times.p95("", 8) == pytest.approx(0.1 + 4 * 0.08)
    assert times.p95("action", 8) == pytest.approx(0.035 * 0.42 / 0.14)
    assert set(times.profile()) == {"full", "reuse-depth", "trace+action", "action"}


def test_warming_up_goes_by_what_batches_cost_and_not_by_what_single_rows_would() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    policy = StubPolicy(service_s=1.0, per_row_s=0.01, blocks=1, sleep=sleep, contract=stub_contract())
    times = ServiceTimes()
    warm_up(
        policy,
        policy.contract,
        synthetic_observation(policy.contract),
        times,
        WarmUpBudget(seconds=21, max_batch=16),
        clock=lambda: clock[0],
    )
    assert clock[0] <= 21
    assert times.baseline("", 8) == pytest.approx(1.08)
    assert times.baseline("", 16) is None
    assert times.p95("", 16) == pytest.approx(1.16)


def test_warming_up_keeps_its_budget_and_finds_what_a_plain_policy_cannot_do() -> None:
    from model_core.spec.execution.requests import as_request_policy

    policy, clock = EchoPolicy(), [0.0]
    times = ServiceTimes()

    def tick() -> float:
        clock[0] += 1.0
        return clock[0]

    seen = synthetic_observation(policy.contract)
    found = warm_up(as_request_policy(policy), policy.contract, seen, times, WarmUpBudget(seconds=3, max_batch=16), clock=tick)
    assert found.works == {"full": True, "reuse-depth": False, "trace+action": False, "action": False}
    assert len(policy.calls) < 6


def test_warming_up_shows_no_frame_twice() -> None:
    seen: list[Observation] = []

    class Watched(StubPolicy):
        def answer(self, requests: Sequence[DecisionRequest]) -> list[Decision]:
            seen.extend(request.observation for request in requests)
            return super().answer(requests)

    policy = Watched(contract=stub_contract())
    rng = np.random.default_rng(0)
    frame = synthetic_observation(policy.contract)
    frame = replace(frame, images={name: rng.integers(0, 256, image.shape, dtype=np.uint8) for name, image in frame.images.items()})
    warm_up(policy, policy.contract, frame, ServiceTimes(), WarmUpBudget(seconds=60, max_batch=4))
    assert len(seen) > 15
    assert len({tuple(image.tobytes() for image in one.images.values()) for one in seen}) == len(seen)


def test_measuring_and_asking_from_two_threads() -> None:
    times, done = times_of(own=0.1), threading.Event()

    def measure() -> None:
        for step in range(3000):
            times.add(("", "full", "action")[step % 3], 1 + step % 16, 0.01, now=float(step))
            times.add_block(0.01, now=float(step))
        done.set()

    writer = threading.Thread(target=measure)
    writer.start()
    asked = 0
    while not done.is_set() or asked == 0:
        times.forget(now=float(asked))
        assert times.p95("", 4) >= 0
        times.profile()
        times.capacity_per_s("")
        assert times.block_s >= 0
        asked += 1
    writer.join()
