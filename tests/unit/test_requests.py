"""A plain policy, lifted: the same answers, and a refusal for what it cannot do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_core.spec.execution.requests import LiftedPolicy, as_request_policy
from model_core.spec.types import DecisionRequest, DepthTokens, Refusal, RefusalCode, Trace
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions
from tests.fakes import EchoPolicy, make_observation


def first_numbers(decisions: list) -> list[int]:
    return [round(float(d.chunk.actions_KA[0, 0]) * 255) for d in decisions]


def test_a_lifted_policy_answers_as_before() -> None:
    policy = EchoPolicy()
    lifted = as_request_policy(policy)
    assert isinstance(lifted, LiftedPolicy)
    assert first_numbers(lifted.answer([DecisionRequest(observation=make_observation(value=v)) for v in (3, 9)])) == [3, 9]
    assert first_numbers([lifted.decide(make_observation(value=4))]) == [4]
    assert policy.calls == [2, 1]


def test_a_policy_that_takes_requests_is_left_alone() -> None:
    policy = StubPolicy()
    assert as_request_policy(policy) is policy


def test_a_round_answers_what_joined_at_its_next_step() -> None:
    policy = EchoPolicy()
    together = as_request_policy(policy).open_round(2)
    keys = [together.join(DecisionRequest(observation=make_observation(value=v))) for v in (1, 2, 3)]
    left = together.join(DecisionRequest(observation=make_observation(value=4)))
    together.leave(left)
    together.leave(left)
    assert together.active == 3
    first = together.step()
    assert [key for key, _ in first] == keys[:2]
    assert first_numbers([d for _, d in first]) == [1, 2]
    assert [key for key, _ in together.step()] == keys[2:]
    assert together.active == 0
    assert together.step() == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"level": "action"}, "level 'action'"),
        ({"depth": DepthTokens(codes_G=np.zeros(100, np.int64))}, "edited depth"),
        ({"trace": Trace(points_N2=np.zeros((1, 2), np.int64))}, "edited depth"),
        ({"committed_DA": np.zeros((1, 4), np.float32)}, "committed rows"),
    ],
)
def test_what_a_plain_policy_cannot_do_is_refused_for_that_request_alone(asked: dict, told: str) -> None:
    policy = EchoPolicy()
    plain = DecisionRequest(observation=make_observation(value=5))
    refused, answered = as_request_policy(policy).answer([replace(plain, **asked), plain])
    assert isinstance(refused.refusal, Refusal)
    assert refused.refusal.code is RefusalCode.CONTRACT
    assert told in refused.refusal.reason
    assert first_numbers([answered]) == [5]
    assert policy.calls == [1]


def test_parts_come_before_the_answer_and_cancelled_work_is_not_done() -> None:
    policy = EchoPolicy()
    heard: list[str] = []
    request = DecisionRequest(observation=make_observation(), on_part=lambda name, _: heard.append(name))
    lifted = as_request_policy(policy)
    lifted.answer([request])
    assert heard == ["depth", "trace"]
    given_up = lifted.answer([replace(request, is_cancelled=lambda: True)])[0]
    assert given_up.refusal is not None
    assert given_up.refusal.code is RefusalCode.CANCELLED
    assert policy.calls == [1]


def test_the_stub_says_who_asked() -> None:
    policy = StubPolicy(blocks=4)
    one, other = make_observation(value=1), make_observation(value=2)
    first, second = policy.answer([DecisionRequest(observation=one, level="action"), DecisionRequest(observation=other)])
    assert first.chunk is not None
    assert second.chunk is not None
    np.testing.assert_array_equal(first.chunk.actions_KA, expected_actions(one, policy.contract))
    np.testing.assert_array_equal(second.chunk.actions_KA, expected_actions(other, policy.contract))
    assert (first.level, second.level) == ("action", "full")
    assert policy.calls == [2, 1, 1, 1]  # the cheaper row leaves after its first block
