"""The inference thread: order, joining between blocks, leaving, failing. The model is the stub, stepped by gates."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from model_core.spec.types import DecisionRequest, RefusalCode
from serving.gateway.inference.active_round import is_lasting, is_out_of_memory
from serving.gateway.inference.inference_thread import InferenceThread
from serving.gateway.inference.pending_request import PendingRequest, PendingResult
from serving.gateway.inference.served_model import ServedModel
from serving.gateway.inference.service_times import ServiceTimes
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions, stub_contract
from tests.fakes import make_observation
from tests.loopback import wait_until

SERVED = ServedModel(contract=stub_contract(), model_version="m")


@pytest.fixture
def policy() -> StubPolicy:
    return StubPolicy()


def running(policy: StubPolicy, **settings: object) -> InferenceThread:
    engine = InferenceThread(policy, SERVED, **settings)  # type: ignore[arg-type]
    engine.start()
    return engine


@pytest.fixture
def engine(policy: StubPolicy) -> Iterator[InferenceThread]:
    engine = running(policy)
    yield engine
    engine.stop(1.0)


def ask(
    engine: InferenceThread, value: int = 1, *, within_s: float = 5.0, levels: tuple[str, ...] = ("",), **changes: object
) -> PendingRequest:
    request = DecisionRequest(observation=make_observation(value=value), **changes)  # type: ignore[arg-type]
    return engine.submit(request, time.monotonic() + within_s, levels)


def answer(ticket: PendingRequest) -> PendingResult:
    return ticket.future.result(5)


def code(ticket: PendingRequest) -> RefusalCode:
    refusal = answer(ticket).decision.refusal
    assert refusal is not None, answer(ticket)
    return refusal.code


class Stepper:
    """Lets the stub run one block at a time."""

    def __init__(self, policy: StubPolicy) -> None:
        self._entered, self._go = threading.Semaphore(0), threading.Semaphore(0)
        policy.fault = self._pass

    def _pass(self, _: Sequence[DecisionRequest]) -> None:
        self._entered.release()
        assert self._go.acquire(timeout=10)

    def entered(self) -> None:
        assert self._entered.acquire(timeout=5)

    def go(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self._go.release()


def test_the_earliest_deadline_is_answered_first(policy: StubPolicy) -> None:
    steps, done = Stepper(policy), []
    engine = running(policy, max_batch=1)
    first = ask(engine)
    steps.entered()
    late, early = ask(engine, 2, within_s=9.0), ask(engine, 3, within_s=6.0)
    for name, ticket in (("late", late), ("early", early), ("first", first)):
        ticket.future.add_done_callback(lambda _, name=name: done.append(name))
    steps.go(3)
    for ticket in (first, late, early):
        assert answer(ticket).decision.chunk is not None
    assert done == ["first", "early", "late"]
    engine.stop(1.0)


def test_requests_join_a_running_round_and_leave_it_when_they_are_done(policy: StubPolicy, engine: InferenceThread) -> None:
    policy.blocks = 4
    steps = Stepper(policy)
    long = ask(engine, 1)
    steps.entered()
    short = ask(engine, 2, levels=("action",))  # one block instead of four
    steps.go()
    steps.entered()
    steps.go()
    chunk = answer(short).decision.chunk
    assert chunk is not None
    np.testing.assert_array_equal(chunk.actions_KA, expected_actions(make_observation(value=2), policy.contract))
    assert not long.future.done()
    steps.go(2)
    assert answer(long).batch == 2
    assert policy.calls == [1, 2, 1, 1]


@pytest.mark.parametrize("prefill_s", [0.0, 0.04, 0.3])
def test_a_crowd_that_joins_delays_who_is_running_by_about_one_block(prefill_s: float) -> None:
    """On a clock of its own: a block takes 0.1 s, and every row that joins it `prefill_s` more."""
    now, blocks, known = [0.0], [], set()
    policy = StubPolicy(blocks=60, sleep=lambda _: None)
    steps = threading.Semaphore(0)

    def block(requests: Sequence[DecisionRequest]) -> None:
        assert steps.acquire(timeout=10)
        fresh = {id(request.observation) for request in requests} - known
        known.update(fresh)
        now[0] += 0.1 + prefill_s * len(fresh)
        blocks.append((len(requests), len(fresh), 0.1 + prefill_s * len(fresh)))

    policy.fault = block
    engine = running(policy, clock=lambda: now[0])

    def submit(value: int) -> PendingRequest:
        return engine.submit(DecisionRequest(observation=make_observation(value=value)), now[0] + 1000.0)

    def pass_blocks(count: int) -> None:
        before = len(blocks)
        for _ in range(count):
            steps.release()
        wait_until(lambda: len(blocks) >= before + count)

    held = [submit(1)]
    pass_blocks(3)
    held.append(submit(2))
    pass_blocks(4)
    held += [submit(value) for value in range(3, 17)]
    pass_blocks(20)
    assert max(rows for rows, _, _ in blocks) == 16
    crowd = [(fresh, seconds) for _, fresh, seconds in blocks[7:]]
    assert max(seconds for _, seconds in crowd) <= 0.1 + max(0.1, prefill_s) + 1e-9
    assert sum(fresh for fresh, _ in crowd) == 14
    if prefill_s == 0.0:
        assert len([fresh for fresh, _ in crowd if fresh]) <= 2  # what costs nothing is not put off
    for _ in range(200):
        steps.release()
    assert all(answer(ticket).decision.refusal is None for ticket in held)
    engine.stop(1.0)


def test_who_gives_up_is_told_at_once_and_leaves_at_the_next_block(policy: StubPolicy, engine: InferenceThread) -> None:
    policy.blocks = 8
    steps = Stepper(policy)
    ticket = ask(engine)
    steps.entered()
    ticket.refuse(RefusalCode.CANCELLED, "gone", now=0.0)
    assert code(ticket) is RefusalCode.CANCELLED
    steps.go()
    wait_until(lambda: engine.rows == 0)
    assert policy.calls == [1]  # the other seven blocks were not run


def test_a_deadline_that_passes_in_the_round_ends_the_work(policy: StubPolicy, engine: InferenceThread) -> None:
    policy.blocks, policy.service_s = 100, 2.0
    ticket = ask(engine, within_s=0.1)
    assert code(ticket) is RefusalCode.DEADLINE
    wait_until(lambda: engine.rows == 0)
    assert len(policy.calls) < 50
    assert engine.missed == 1


def test_what_waits_too_long_is_never_run(policy: StubPolicy) -> None:
    steps = Stepper(policy)
    engine = running(policy, max_batch=1)
    first = ask(engine)
    steps.entered()
    second = ask(engine, within_s=0.05)
    time.sleep(0.1)
    steps.go()
    assert code(second) is RefusalCode.DEADLINE
    assert answer(first).decision.chunk is not None
    assert policy.calls == [1]
    engine.stop(1.0)


def test_what_has_waited_too_long_to_be_met_is_not_begun(policy: StubPolicy) -> None:
    times, steps = ServiceTimes(), Stepper(policy)
    times.add_baseline("", 1, 0.01)
    engine = running(policy, max_batch=1, times=times)
    first = ask(engine)
    steps.entered()
    second = ask(engine, within_s=0.5)
    times.add_baseline("", 1, 10.0)  # it turns out to take longer than was thought
    times.add = lambda *_, **__: None  # type: ignore[method-assign]
    steps.go()
    assert code(second) is RefusalCode.DEADLINE
    assert second.joined_at == 0.0
    assert answer(first).decision.chunk is not None
    third = ask(engine, within_s=0.5)  # to an idle engine: it tries
    steps.go()
    assert answer(third).decision.chunk is not None
    engine.stop(1.0)


def test_a_queue_that_is_full_refuses_with_a_hint(policy: StubPolicy) -> None:
    steps = Stepper(policy)
    engine = running(policy, max_batch=1, max_queue=2)
    ask(engine)
    steps.entered()
    tickets = [ask(engine) for _ in range(3)]
    assert code(tickets[2]) is RefusalCode.OVERLOAD
    assert answer(tickets[2]).retry_after_ms > 0
    steps.go(3)
    assert answer(tickets[1]).decision.chunk is not None
    engine.stop(1.0)


def test_busy_and_slow_means_refused_or_cheaper_before_it_waits(policy: StubPolicy) -> None:
    times = ServiceTimes()
    times.add_baseline("", 1, 10.0)
    times.add_baseline("action", 1, 0.01)
    policy.blocks = 4
    steps = Stepper(policy)
    engine = running(policy, times=times)
    ask(engine)
    steps.entered()
    refused = ask(engine, within_s=1.0)
    assert refused.future.done()
    assert code(refused) is RefusalCode.DEADLINE  # alone it would need ten seconds as well
    cheaper = ask(engine, within_s=1.0, levels=("", "action"))
    steps.go(2)
    assert (answer(cheaper).level, answer(cheaper).cheaper) == ("action", True)
    steps.go(4)
    engine.stop(1.0)


def test_the_one_that_breaks_the_round_is_found_and_the_others_are_answered(policy: StubPolicy, engine: InferenceThread) -> None:
    poison = 13

    def fault(rows: Sequence[DecisionRequest]) -> None:
        if any(row.observation.images["front"][0, 0, 0] == poison for row in rows):
            raise ValueError("a shape that nobody thought of")

    steps = Stepper(policy)
    first = ask(engine, 1)
    steps.entered()
    policy.fault = fault
    tickets = [ask(engine, value) for value in (2, poison, 3)]
    steps.go()
    assert answer(first).decision.chunk is not None
    assert code(tickets[1]) is RefusalCode.INTERNAL
    for ticket, value in ((tickets[0], 2), (tickets[2], 3)):
        chunk = answer(ticket).decision.chunk
        assert chunk is not None
        np.testing.assert_array_equal(chunk.actions_KA, expected_actions(make_observation(value=value), policy.contract))
    assert engine.broken == ""


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def raise_once(error: Exception) -> Callable[[Sequence[DecisionRequest]], None]:
    left = [error]

    def fault(_: Sequence[DecisionRequest]) -> None:
        if left:
            raise left.pop()

    return fault


def test_out_of_memory_refuses_the_round_and_shrinks_it(policy: StubPolicy, engine: InferenceThread) -> None:
    policy.fault = raise_once(OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    ticket = ask(engine)
    assert code(ticket) is RefusalCode.OVERLOAD
    assert answer(ticket).retry_after_ms > 0
    assert engine.broken == ""
    assert engine.capacity == 8
    assert answer(ask(engine)).decision.chunk is not None
    for _ in range(260):  # and grows again when nothing has happened for a while
        answer(ask(engine))
    assert engine.capacity == 16


def test_a_lost_device_ends_the_engine_and_refuses_everything(policy: StubPolicy, engine: InferenceThread) -> None:
    policy.fault = raise_once(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert code(ask(engine)) is RefusalCode.NOT_READY
    wait_until(lambda: engine.broken)
    assert code(ask(engine)) is RefusalCode.NOT_READY


def test_failures_of_our_own_policy_reach_the_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoding engine behind its guard: memory runs out, then one row is poison, then the device is lost."""
    import torch

    from model_core.policy import PolicyOptions, ReasoningPolicy
    from model_core.spec.execution.guard import Guarded
    from model_core.spec.types import Observation
    from tests.engine_data import CONTRACT, LAYOUT, MODEL, SAMPLES, make_engine

    torch.set_num_threads(1)
    ours = ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(reasoning="action"), engine=make_engine())
    engine = InferenceThread(Guarded(policy=ours, contract=CONTRACT), SERVED)

    def observation(row: int) -> Observation:
        frame = SAMPLES["images_NVHW3"][row, 0]
        return Observation(images={"front": frame}, proprio_P=SAMPLES["proprio_NP"][row], instruction="go there")

    def put(row: int) -> PendingRequest:
        return engine.submit(DecisionRequest(observation=observation(row)), time.monotonic() + 30)

    honest, told = ours.engine.features, []

    def features(prompt):
        if len(told) == 0:
            told.append("memory")
            raise OutOfMemoryError("CUDA out of memory")
        if len(told) == 2:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if np.array_equal(prompt.images[0, 0].numpy(), SAMPLES["images_NVHW3"][3, 0]):
            raise ValueError("a shape that nobody thought of")
        return honest(prompt)

    monkeypatch.setattr(ours.engine, "features", features)
    engine_first = put(0)
    engine.start()
    assert code(engine_first) is RefusalCode.OVERLOAD
    assert engine.capacity == 8
    tickets = [put(row) for row in (1, 3, 2)]
    assert code(tickets[1]) is RefusalCode.INTERNAL
    for ticket, row in ((tickets[0], 1), (tickets[2], 2)):
        chunk = answer(ticket).decision.chunk
        assert chunk is not None
        expected = (
            ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(reasoning="action"), engine=make_engine()).decide(observation(row)).chunk
        )
        assert expected is not None
        np.testing.assert_array_equal(chunk.actions_KA, expected.actions_KA)
    told.append("device")
    assert code(put(1)) is RefusalCode.NOT_READY
    wait_until(lambda: engine.broken)


def test_what_is_said_after_the_engine_was_given_up_is_not_delivered(policy: StubPolicy, engine: InferenceThread) -> None:
    steps, parts = Stepper(policy), []
    ticket = ask(engine, on_part=lambda name, _: parts.append(name))
    steps.entered()
    engine.abandon("it hangs")
    assert code(ticket) is RefusalCode.NOT_READY
    steps.go()
    time.sleep(0.05)
    assert parts == []


def test_errors_are_told_apart() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OutOfMemoryError())
    assert not is_out_of_memory(ValueError("shape"))
    assert is_lasting(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_lasting(ValueError("shape"))
