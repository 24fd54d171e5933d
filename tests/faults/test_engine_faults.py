"""F14 and F27 at the service: a model that answers nonsense, raises, hangs or dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.request import urlopen

import numpy as np
import pytest

from model_core.spec.protocol.wire import Chunk, Reject
from model_core.spec.types import ActionChunk, Decision, DecisionRequest, RefusalCode
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.operations.limits import GatewayLimits
from tests.faults.peer import CONTRACT, greeted, is_own_answer, stub_service
from tests.faults.verdicts import covers
from tests.loopback import wait_until

K, A = CONTRACT.chunk_length, len(CONTRACT.embodiment.action)


class Unchecked:
    """A chunk that skipped the checks of `ActionChunk`, as a broken model's would."""

    def __init__(self, actions_KA: np.ndarray) -> None:
        self.actions_KA, self.control_hz = actions_KA, CONTRACT.embodiment.control_hz


def with_value(value: float) -> np.ndarray:
    actions_KA = np.zeros((K, A), np.float32)
    actions_KA[3, 1] = value
    return actions_KA


BAD = {
    "NaN": (with_value(np.nan), {RefusalCode.NONFINITE}),
    "Inf": (with_value(np.inf), {RefusalCode.NONFINITE}),
    "1e9": (with_value(1e9), {RefusalCode.UNSAFE}),
    "empty": (np.zeros((0, A), np.float32), {RefusalCode.UNSAFE, RefusalCode.PARSE}),
    "short": (np.zeros((K - 1, A), np.float32), {RefusalCode.UNSAFE, RefusalCode.PARSE}),
    "long": (np.zeros((K + 1, A), np.float32), {RefusalCode.UNSAFE, RefusalCode.PARSE}),
    "narrow": (np.zeros((K, A - 1), np.float32), {RefusalCode.UNSAFE, RefusalCode.PARSE}),
    "wide": (np.zeros((K, A + 1), np.float32), {RefusalCode.UNSAFE, RefusalCode.PARSE}),
}


@covers("F14", I3="nothing that is not finite, in shape and in range leaves the service", I8="the next answer is a good one")
@pytest.mark.parametrize("name", BAD)
def test_a_model_that_answers_nonsense_is_refused_not_repaired(name: str) -> None:
    actions_KA, codes = BAD[name]
    policy = StubPolicy(contract=CONTRACT)
    with stub_service(policy) as (address, _), greeted(address) as peer:
        policy.change = lambda decision: replace(decision, chunk=Unchecked(actions_KA))  # type: ignore[arg-type]
        answer = peer.ask(1)
        assert isinstance(answer, Reject), answer
        assert answer.code in codes
        policy.change = lambda decision: decision
        assert is_own_answer(peer.ask(2, value=3), 3, 2)


@covers("F14", I3="denormal numbers are finite and inside the limits: they are served as they are")
def test_denormals_are_numbers() -> None:
    policy = StubPolicy(contract=CONTRACT)
    tiny = np.full((K, A), 1e-42, np.float32)
    with stub_service(policy) as (address, _), greeted(address) as peer:
        policy.change = lambda decision: replace(decision, chunk=ActionChunk(actions_KA=tiny, control_hz=CONTRACT.embodiment.control_hz))
        answer = peer.ask(1)
        assert isinstance(answer, Chunk)
        assert np.isfinite(answer.actions_KA).all()


def raising(error: BaseException) -> Callable[[Sequence[DecisionRequest]], None]:
    def fault(_: Sequence[DecisionRequest]) -> None:
        raise error

    return fault


@covers("F27", I8="out of memory, a CUDA error, any exception: one INTERNAL without a word of the inside, and the service goes on")
@pytest.mark.parametrize(
    "error",
    [MemoryError("secret /etc/x"), RuntimeError("CUDA error: secret /etc/x"), ValueError("secret /etc/x")],
    ids=lambda e: type(e).__name__,
)
def test_an_engine_that_raises_costs_one_answer(error: Exception) -> None:
    policy = StubPolicy(contract=CONTRACT)
    with stub_service(policy) as (address, gateway), greeted(address) as peer:
        policy.fault = raising(error)
        answer = peer.ask(1)
        assert isinstance(answer, Reject)
        assert answer.code in {RefusalCode.INTERNAL, RefusalCode.NOT_READY, RefusalCode.OVERLOAD}
        assert "secret" not in f"{answer.reason}{answer.details}"
        policy.fault = None
        wait_until(lambda: gateway.is_ready)
        # A session that outlived the engine's restart may have to shake hands again: a new one must be served in any case.
        with greeted(address, "cell-b") as other:
            assert is_own_answer(other.ask(1, value=3), 3, 1)


@covers("F27", I8="a hung kernel makes the service unready and its cells hear a refusal within their deadline", I2="no late answer is sent")
def test_a_hung_engine_is_unready_and_nobody_waits_for_it() -> None:
    policy = StubPolicy(contract=CONTRACT)
    with stub_service(policy, GatewayLimits(warm_up_s=0.0, hung_s=0.4)) as (address, gateway), greeted(address) as peer:
        policy.gate = threading.Event()
        began = time.monotonic()
        answer = peer.ask(1, deadline_ms=300)
        assert isinstance(answer, Reject)
        assert time.monotonic() - began < 5.0
        # Unready for as long as it takes to load another engine, which for the stub is next to nothing.
        wait_until(lambda: not gateway.is_ready or b"restarts_total 1" in urlopen(f"http://{address}/metrics").read())
        policy.gate.set()
        policy.gate = None
        wait_until(lambda: gateway.is_ready, timeout_s=20)
        with greeted(address, "cell-b") as other:
            assert is_own_answer(other.ask(1, value=4), 4, 1)


@covers("F27", I1="a batch whose length does not fit its questions gives nobody a chunk")
def test_a_decision_for_nobody_is_given_to_nobody() -> None:
    policy = StubPolicy(contract=CONTRACT)

    def lost(decision: Decision) -> Decision:
        raise KeyError("row 7")

    with stub_service(policy) as (address, _), greeted(address) as peer:
        policy.change = lost
        assert isinstance(peer.ask(1), Reject)
        policy.change = lambda decision: decision
        assert is_own_answer(peer.ask(2, value=9), 9, 2)
