"""The policy answers or refuses; it never raises for what a robot or a model does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model_core.checkpoint import Checkpoint
from model_core.policy import PolicyOptions, ReasoningPolicy
from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.types import LEVELS, DecisionRequest, Observation, RefusalCode, Trace
from tests.tiny_arm_data import make_samples, make_small_contract, make_small_model

CONTRACT = make_small_contract()
MODEL, LAYOUT = make_small_model(CONTRACT)
SAMPLES = make_samples(4, seed=2)


@cache
def the_policy() -> ReasoningPolicy:
    return ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(model_version="tiny/1"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def see(row: int = 0, **changes) -> Observation:
    observation = Observation(
        images={"front": SAMPLES["images_NVHW3"][row, 0]}, proprio_P=SAMPLES["proprio_NP"][row], instruction="go there"
    )
    return replace(observation, **changes)


def test_a_full_decision():
    decision = the_policy().decide(see())
    assert decision.refusal is None
    assert decision.contract_id == CONTRACT.contract_id
    assert decision.model_version == "tiny/1"
    assert decision.chunk.actions_KA.shape == (4, 4)
    assert decision.chunk.control_hz == CONTRACT.embodiment.control_hz
    assert decision.reasoning.depth.codes_G.shape == (100,)
    assert 1 <= len(decision.reasoning.trace.points_N2) <= 5
    assert set(decision.timing_ms) == {"vision", "prefill", "depth", "trace", "action"}


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_levels_say_what_they_promise(level):
    reasoning = ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(reasoning=level)).decide(see()).reasoning
    assert (reasoning.depth is not None) == (level in ("full", "reuse-depth"))
    assert (reasoning.trace is not None) == (level != "action")


def test_unknown_level():
    with pytest.raises(SpecError, match=r"trace\+action"):
        ReasoningPolicy(MODEL, LAYOUT, CONTRACT, PolicyOptions(reasoning="loud"))


def test_many_equal_one_by_one():
    seen = [see(row) for row in range(4)]
    for together, alone in zip(the_policy().decide_many(seen), [the_policy().decide(one) for one in seen], strict=True):
        assert np.array_equal(together.chunk.actions_KA, alone.chunk.actions_KA)


def test_actions_are_in_physical_units():
    scaled = replace(CONTRACT, stats=replace(CONTRACT.stats, q01=(-0.5, -0.5, -0.5, -1.0), q99=(0.5, 0.5, 0.5, 1.0)))
    full, half = (ReasoningPolicy(MODEL, LAYOUT, contract).decide(see()).chunk.actions_KA for contract in (CONTRACT, scaled))
    assert np.allclose(half[:, :3], full[:, :3] / 2, atol=1e-6)
    assert np.allclose(half[:, 3], full[:, 3])


def test_steering_is_obeyed_and_shown():
    trace = Trace(points_N2=np.array([[5, 6], [200, 210]]))
    decision = the_policy().decide(see(steering=trace))
    assert np.array_equal(decision.reasoning.trace.points_N2, trace.points_N2)
    assert decision.reasoning.depth is None
    deaf = ReasoningPolicy(MODEL, LAYOUT, replace(CONTRACT, reasoning=replace(CONTRACT.reasoning, steering=False)))
    assert deaf.decide(see(steering=trace)).refusal.code is RefusalCode.CONTRACT


def test_edit_and_continue():
    own = the_policy().decide(see()).reasoning
    again = the_policy().answer([DecisionRequest(observation=see(), depth=own.depth, trace=own.trace)])[0]
    assert np.array_equal(again.reasoning.bins_KA, own.bins_KA)
    refused = the_policy().answer([DecisionRequest(observation=see(), trace=own.trace)])[0]
    assert refused.refusal.code is RefusalCode.CONTRACT
    assert "depth before it" in refused.refusal.reason


IMAGE = SAMPLES["images_NVHW3"][0, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {}}, "cameras"),
        ({"images": {"front": IMAGE, "wrist": IMAGE}}, "cameras"),
        ({"images": {"front": IMAGE[:16]}}, "expected 32x32x3 uint8, got 16x32x3"),
        ({"images": {"front": IMAGE.astype(np.float32)}}, "float32"),
        ({"proprio_P": np.zeros(3, np.float32)}, "expected 4 numbers"),
        ({"proprio_P": np.array([0, 0, np.nan, 0], np.float32)}, "NaN"),
        ({"proprio_P": np.array([0, 0, 0, 9], np.float32)}, "far outside"),
        ({"instruction": "dance"}, "does not know the word"),
        ({"instruction": ""}, "empty"),
        ({"instruction": "go " * 9}, "at most 8"),
        ({"instruction": "go there" * 50}, "at most 200 characters"),
        ({"proprio_P": "nonsense"}, "expected 4 numbers"),
        ({"images": {"front": "nonsense"}}, "could not be read"),
    ],
)
def test_broken_observations_are_refused_and_their_neighbours_answered(changes, words):
    broken, fine = the_policy().decide_many([see(**changes), see(1)])
    assert broken.chunk is None
    assert broken.refusal.code is RefusalCode.CONTRACT
    assert words in broken.refusal.reason
    assert np.array_equal(fine.chunk.actions_KA, the_policy().decide(see(1)).chunk.actions_KA)


def test_a_failing_model_is_a_refusal():
    model, layout = make_small_model(CONTRACT, seed=1)
    with torch.no_grad():
        model.lm_head.weight[layout.vocabulary.depth.start + 5] = torch.nan
    assert ReasoningPolicy(model, layout, CONTRACT).decide(see()).refusal.code is RefusalCode.NONFINITE
    del model.model.vision_backbone.image_vit
    decisions = ReasoningPolicy(model, layout, CONTRACT).decide_many([see(), see(1), see(images={})])
    assert [d.refusal.code for d in decisions] == [RefusalCode.INTERNAL] * 2 + [RefusalCode.CONTRACT]
    assert "vision" not in decisions[0].refusal.reason  # details are in our log, never on the wire


def test_a_checkpoint_answers_at_a_level_that_it_was_trained_at() -> None:
    taught = replace(CONTRACT, reasoning=replace(CONTRACT.reasoning, levels=("trace+action", "action")))
    checkpoint = Checkpoint(model=MODEL, contract=taught, language=LAYOUT, depth_codec=None)
    policy = ReasoningPolicy.of(checkpoint)
    assert policy.reasoning == "trace+action"
    assert policy.decide(see()).chunk is not None
    with pytest.raises(CheckpointError, match=r"not trained at level 'full'. Fix: ask for one of trace\+action, action"):
        ReasoningPolicy.of(checkpoint, reasoning="full")
