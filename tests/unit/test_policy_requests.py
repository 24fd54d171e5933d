"""Requests of a policy: levels, edits, committed rows, drafts, parts, cancellation; answered in rounds, never raising."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model_core.policy import PolicyOptions, ReasoningPolicy
from model_core.spec.execution.guard import Guarded
from model_core.spec.types import LEVELS, Decision, DecisionRequest, DepthTokens, Observation, RefusalCode, RequestPolicy, Trace
from model_core.tokenization.action_codec import ActionCodec
from tests.engine_data import CONTRACT, LAYOUT, MODEL, SAMPLES, make_engine


@cache
def plain_policy() -> ReasoningPolicy:
    return ReasoningPolicy(MODEL, LAYOUT, CONTRACT, engine=make_engine(speculate=False))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def policy() -> ReasoningPolicy:
    """One of its own for every test: an engine learns from each answer how far drafts are worth feeding."""
    return ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(model_version="tiny/1"), engine=make_engine())


def see(row: int = 0, **changes) -> Observation:
    observation = Observation(
        images={"front": SAMPLES["images_NVHW3"][row, 0]}, proprio_P=SAMPLES["proprio_NP"][row], instruction="go there"
    )
    return replace(observation, **changes)


def request(row: int = 0, **fields) -> DecisionRequest:
    return DecisionRequest(observation=see(row), **fields)


def same(one: Decision, other: Decision) -> bool:
    assert one.chunk is not None, one.refusal
    assert other.chunk is not None, other.refusal
    return np.array_equal(one.chunk.actions_KA, other.chunk.actions_KA)


def test_it_takes_requests(policy):
    taken: RequestPolicy = policy
    assert taken.answer([]) == []
    decision = taken.answer([request()])[0]
    assert decision.level == "full"
    assert decision.counts["forwards"] >= 1
    assert {"vision", "prefill", "depth", "trace", "action"} == set(decision.timing_ms)


@pytest.mark.parametrize("level", ["trace+action", "action"])
def test_a_request_names_its_level(policy, level):
    decision = policy.answer([request(level=level)])[0]
    assert decision.level == level
    assert decision.reasoning.depth is None
    assert same(decision, ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(reasoning=level), engine=make_engine()).decide(see()))


def test_a_level_that_the_contract_has_not_is_refused(policy):
    contract = replace(CONTRACT, reasoning=replace(CONTRACT.reasoning, levels=("full",)))
    policy = ReasoningPolicy(MODEL, LAYOUT, contract, engine=make_engine())
    refusal = policy.answer([request(level="action")])[0].refusal
    assert refusal.code is RefusalCode.CONTRACT
    assert "answers at full" in refusal.reason
    assert policy.answer([request(level="loud")])[0].refusal.code is RefusalCode.CONTRACT


@pytest.mark.parametrize("consumed", [0, 1, 4, 400])
def test_the_last_decision_never_changes_the_next(policy, consumed):
    last = policy.decide(see(0))
    with_drafts = policy.answer([request(1, previous=last, consumed=consumed)])[0]
    assert same(with_drafts, plain_policy().decide(see(1)))
    assert with_drafts.counts["drafted.depth"] > 0


def test_the_same_frame_again_costs_few_forwards(policy):
    last = plain_policy().decide(see(0))
    again = policy.answer([request(0, previous=last)])[0]
    assert same(again, last)
    assert again.counts["forwards"] < 10
    assert again.counts["accepted.depth"] == again.counts["drafted.depth"]


def test_a_refusal_or_a_foreign_decision_is_no_draft_and_no_harm(policy):
    refused = policy.decide(see(images={}))
    foreign = policy.decide(see(2))
    foreign = replace(
        foreign,
        reasoning=replace(foreign.reasoning, bins_KA=np.full((9, 2), 700), depth=DepthTokens(codes_G=np.full(100, 200), num_codes=256)),
    )
    for previous in (refused, foreign):
        assert same(policy.answer([request(1, previous=previous)])[0], plain_policy().decide(see(1)))


def test_reuse_of_depth_is_served_where_it_is_verified_and_told_otherwise(policy):
    last = policy.decide(see(0))
    again = policy.answer([request(0, level="reuse-depth", previous=last)])[0]
    assert again.level == "reuse-depth"
    assert again.counts["reused.depth"] == 100
    assert np.array_equal(again.reasoning.depth.codes_G, last.reasoning.depth.codes_G)
    strange = replace(last, reasoning=replace(last.reasoning, depth=DepthTokens(codes_G=np.arange(100) % 128)))
    anew = policy.answer([request(0, level="reuse-depth", previous=strange)])[0]
    assert anew.level == "full"
    assert "reused.depth" not in anew.counts
    assert same(anew, last)
    assert policy.answer([request(0, level="reuse-depth")])[0].level == "full"  # nothing to reuse yet


def test_edits_are_gone_on_from(policy):
    own = policy.decide(see()).reasoning
    edited = DepthTokens(codes_G=(own.depth.codes_G + 1) % 128)
    trace = Trace(points_N2=np.array([[1, 2], [3, 4]]))
    both = policy.answer([request(depth=edited, trace=trace)])[0].reasoning
    assert np.array_equal(both.depth.codes_G, edited.codes_G)
    assert np.array_equal(both.trace.points_N2, trace.points_N2)
    only = policy.answer([request(level="trace+action", trace=trace)])[0].reasoning
    assert np.array_equal(only.trace.points_N2, trace.points_N2)
    assert policy.answer([request(level="action", trace=trace)])[0].refusal.code is RefusalCode.CONTRACT


def test_a_steered_request_says_so(policy):
    decision = policy.answer([DecisionRequest(observation=see(steering=Trace(points_N2=np.array([[5, 6]]))))])[0]
    assert decision.level == "trace+action"
    assert decision.reasoning.depth is None


def test_committed_rows_come_back(policy):
    earlier = policy.decide(see(3)).chunk.actions_KA
    decision = policy.answer([request(1, committed_DA=earlier[1:3])])[0]
    assert np.allclose(decision.chunk.actions_KA[:2], earlier[1:3], atol=2 / 255)
    assert same(decision, plain_policy().answer([request(1, committed_DA=earlier[1:3])])[0])
    free = policy.decide(see(1))
    assert np.array_equal(decision.reasoning.depth.codes_G, free.reasoning.depth.codes_G)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_committing_what_it_would_say_changes_nothing_also_at_the_highest_value(policy, rows):
    own = policy.decide(see(1))
    again = policy.answer([request(1, committed_DA=own.chunk.actions_KA[:rows])])[0]
    assert same(again, own)
    extreme = replace(own, reasoning=replace(own.reasoning, bins_KA=np.tile([256, 255, 1, 128], (len(own.reasoning.bins_KA), 1))))
    rows_DA = ActionCodec(stats=CONTRACT.stats).decode(extreme.reasoning.bins_KA)[1 : rows + 1]
    told, _ = policy.question(request(1, committed_DA=rows_DA, previous=extreme, consumed=1))
    assert np.array_equal(told.committed_DA, extreme.reasoning.bins_KA[1 : rows + 1])
    alone, _ = policy.question(request(1, committed_DA=rows_DA))
    assert np.array_equal(alone.committed_DA, np.tile([256, 256, 1, 128], (rows, 1)))


@pytest.mark.parametrize(
    ("rows_DA", "says"),
    [
        (np.zeros((4, 4)), "at most 3 actions"),
        (np.zeros((1, 7)), "actions of 4"),
        (np.zeros(4), "actions of 4"),
        (np.full((1, 4), np.nan), "NaN"),
        (np.full((2, 4), 3.0), "outside what this policy predicts"),
    ],
)
def test_committed_rows_that_it_could_not_have_said_are_refused(policy, rows_DA, says):
    refusal = policy.answer([request(committed_DA=rows_DA.astype(np.float32))])[0].refusal
    assert refusal.code is RefusalCode.CONTRACT
    assert says in refusal.reason


def test_requests_of_all_kinds_together_equal_each_alone(policy):
    last = policy.decide(see(0))
    asked = [request(row, level=LEVELS[row % 4], previous=last if row % 3 else None, consumed=row % 4) for row in range(8)]
    asked[5] = DecisionRequest(observation=see(5, instruction="dance"))
    for one, decision in zip(asked, policy.answer(asked), strict=True):
        alone = policy.answer([one])[0]
        if decision.chunk is None:
            assert decision.refusal.code is alone.refusal.code is RefusalCode.CONTRACT
        else:
            assert same(decision, alone)


# ---- rounds


def finish(together) -> dict[int, Decision]:
    found: dict[int, Decision] = {}
    while together.active:
        found.update(together.step())
    return found


def test_a_round_takes_what_comes_and_a_bad_request_harms_nobody(policy):
    together = Guarded(policy=policy, contract=CONTRACT).open_round(4)
    good, bad = together.join(request(1)), together.join(DecisionRequest(observation=see(images={})))
    assert together.active == 2
    late = None
    found: dict[int, Decision] = {}
    while together.active:
        found.update(together.step())
        late = together.join(request(2)) if late is None else late
    assert found[bad].refusal.code is RefusalCode.CONTRACT
    assert same(found[good], plain_policy().decide(see(1)))
    assert same(found[late], plain_policy().decide(see(2)))


def test_leaving_a_round(policy):
    together = policy.open_round(2)
    kept, gone, broken = together.join(request(1)), together.join(request(2)), together.join(DecisionRequest(observation=see(images={})))
    together.leave(gone)
    together.leave(broken)
    together.leave(12345)
    assert set(finish(together)) == {kept}


def test_cancelled_requests_are_refused():
    asked = []

    def given_up() -> bool:
        asked.append(True)
        return len(asked) > 3

    cancelled, fine = plain_policy().answer([request(0, is_cancelled=given_up), request(1)])
    assert cancelled.refusal.code is RefusalCode.CANCELLED
    assert same(fine, plain_policy().decide(see(1)))
    unsure, also_fine = plain_policy().answer([request(0, is_cancelled=lambda: 1 / 0), request(1)])
    assert same(unsure, plain_policy().decide(see(0)))
    assert same(also_fine, fine)


def test_parts_are_streamed_and_a_deaf_listener_does_no_harm(policy):
    told = []
    decision = policy.answer([request(on_part=lambda field, value: told.append((field, value)))])[0]
    assert [field for field, _ in told] == ["depth", "trace"]
    assert np.array_equal(told[0][1].codes_G, decision.reasoning.depth.codes_G)

    def deaf(field, value):
        raise RuntimeError("not listening")

    assert same(policy.answer([request(on_part=deaf)])[0], decision)


def test_a_round_outlives_a_failing_model_and_leaves_the_requests_to_who_runs_it(monkeypatch):
    policy = ReasoningPolicy(MODEL, LAYOUT, CONTRACT, engine=make_engine())
    together = policy.open_round(3)
    for row in range(2):
        together.join(request(row))
    together.step()
    memory = together._round._cache
    bad = together.join(DecisionRequest(observation=see(images={})))
    with monkeypatch.context() as broken:
        broken.setattr(policy.engine.runner, "run", out_of_memory)
        with pytest.raises(MemoryError):
            together.step()
        assert set(finish(together)) == {bad}  # a refusal that is known already is not lost
        assert policy.answer([request(0)])[0].refusal.retryable
    again = together.join(request(0))
    assert same(finish(together)[again], plain_policy().decide(see(0)))
    assert together._round._cache is memory  # not a second one beside it, which would be the next failure


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("rows", [1, 2])
def test_the_service_hears_of_a_failing_machine(monkeypatch, rows):
    """What `InferenceThread` knows to do with a failure reaches it through guard and round."""
    policy = ReasoningPolicy(MODEL, LAYOUT, CONTRACT, engine=make_engine())
    together = Guarded(policy=policy, contract=CONTRACT).open_round(2)
    for row in range(rows):
        together.join(request(row))
    monkeypatch.setattr(policy.engine, "features", out_of_memory)
    with pytest.raises(MemoryError):
        together.step()
    assert together.active == 0
