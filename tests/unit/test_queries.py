"""The parallel action block: who sees whom, what is learnt, and that causal training does not notice it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.config.train_config import CurriculumConfig, TrainConfig
from components.training.tiny_model import TinyArm
from model_core.network.queries import ActionHead, action_head_of, block_visibility
from model_core.spec.errors import CheckpointError
from model_core.tokenization.compact.layout import Field, ReasoningMode
from model_core.training import TrainingBatch, hidden_states
from tests.tiny_arm_data import SMALL, make_small_contract, write_small_frozen

ACTIONS = 16
MODES = (ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.STEERED, ReasoningMode.ACTION)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("frozen") / "data", make_small_contract())


def make_arm(frozen: Path, head: Any, **changes) -> TinyArm:
    return TinyArm(
        TrainConfig(network=SMALL, action_head=head, steps=100, warmup_steps=5, global_batch=16, micro_batch=16, **changes), frozen
    )


def hidden(arm: TinyArm, batch: TrainingBatch) -> torch.Tensor:
    with torch.no_grad():
        return hidden_states(arm.module, batch.images_BVHW3, batch.ids_BL, batch.slots_BL, arm.layout, batch.visible_B1LL)


def test_visibility():
    kept = torch.tensor([[True, True, True, False], [True, True, True, True]])
    spelt = torch.tensor([[False, False, True, False], [False, False, False, True]])
    seen = block_visibility(kept, new=3, queries=2, actions_BT=spelt)[:, 0].int().tolist()
    assert seen[0] == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]]
    assert seen[1] == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 1]]


@pytest.mark.parametrize("mode", MODES)
def test_causal_tokens_do_not_notice_placeholders(frozen, mode):
    """Rows 0..4 have traces of 1..5 points, so padding is in play."""
    causal, both = make_arm(frozen, "causal"), make_arm(frozen, "both")
    rows = np.arange(5)
    plain, mixed = causal._train.batch(rows, mode), both._train.batch(rows, mode)
    length = plain.ids_BL.shape[1]
    assert mixed.ids_BL.shape[1] == length + ACTIONS
    real = plain.slots_BL.gt(0) | (torch.arange(length) == 0)
    assert torch.allclose(hidden(causal, plain)[real], hidden(both, mixed)[:, :length][real], atol=1e-5)
    assert set(mixed.targets) == set(plain.targets)
    for kind, wanted in plain.targets.items():
        assert torch.equal(wanted.codes_N, mixed.targets[kind].codes_N)


@pytest.mark.parametrize("mode", MODES)
def test_placeholders_see_no_spelt_action_and_no_padding(frozen, mode):
    """The block says the same where actions are encoded before it and where they are not, and whatever the actions are."""
    both, alone = make_arm(frozen, "both"), make_arm(frozen, "parallel")
    rows = np.arange(5)
    mixed, block = both._train.batch(rows, mode), alone._train.batch(rows, mode)
    said, expected = hidden(both, mixed)[:, -ACTIONS:], hidden(alone, block)[:, -ACTIONS:]
    assert torch.allclose(said, expected, atol=1e-5)
    ids = mixed.ids_BL.clone()
    actions = both.layout.vocabulary.action
    spelt = (ids >= actions.start) & (ids < actions.stop)
    assert int(spelt.sum()) >= 5 * (ACTIONS - 1)
    ids[spelt] = actions.start + 7
    ids[:, :-ACTIONS][mixed.slots_BL[:, :-ACTIONS] == 0] = actions.start  # the first picture token's slot, and padding's
    ids[:, 0] = mixed.ids_BL[:, 0]
    assert torch.equal(hidden(both, replace(mixed, ids_BL=ids))[:, -ACTIONS:], said)


def test_placeholders_see_everything_before_the_actions_and_each_other(frozen):
    """By derivative: what a placeholder says depends on every token that it reads, and on nothing else."""
    arm = make_arm(frozen, "both")
    batch = arm._train.batch(np.arange(1), ReasoningMode.FULL)
    x_BLD = arm.module.embed(batch.ids_BL, arm.module.encode_images(batch.images_BVHW3, _windows(arm))).detach().requires_grad_()
    h_BLD = arm.module.trunk(x_BLD, batch.slots_BL, batch.visible_B1LL)
    (gradient,) = torch.autograd.grad(h_BLD[0, -ACTIONS].square().sum(), x_BLD)
    touched = gradient[0].abs().sum(-1) > 0
    slots = batch.slots_BL[0]
    spelt = (slots >= arm.layout.slots[Field.ACTION].start) & (torch.arange(len(slots)) < len(slots) - ACTIONS)
    assert torch.equal(touched, ~spelt)


def _windows(arm: TinyArm) -> torch.Tensor:
    from model_core.tiny import pooled_patches

    return pooled_patches(arm.layout)[None]


def test_a_row_of_a_batch_says_what_it_says_alone(frozen):
    arm = make_arm(frozen, "parallel")
    together = hidden(arm, arm._train.batch(np.arange(5), ReasoningMode.FULL))[:, -ACTIONS:]
    for row in range(5):
        alone = hidden(arm, arm._train.batch(np.array([row]), ReasoningMode.FULL))[0, -ACTIONS:]
        assert torch.allclose(alone, together[row], atol=1e-5), row


def test_parts_of_the_loss(frozen):
    rows = np.arange(6)
    parts = {}
    for head in ActionHead:
        arm = make_arm(frozen, head.value)
        loss, parts[head] = arm.loss(arm.module, arm._train.batch(rows, ReasoningMode.FULL))
        names = [name for name in parts[head] if name.startswith("loss_")]
        assert float(loss.detach()) == pytest.approx(sum(float(parts[head][name]) for name in names), rel=1e-6)
    assert "loss_action_block" not in parts[ActionHead.CAUSAL]
    assert "loss_action_block" not in parts[ActionHead.PARALLEL]
    both = parts[ActionHead.BOTH]
    assert float(both["loss_action"]) == pytest.approx(float(parts[ActionHead.CAUSAL]["loss_action"]), rel=1e-5)
    assert float(both["loss_action_block"]) == pytest.approx(float(parts[ActionHead.PARALLEL]["loss_action"]), rel=1e-5)


def test_equal_slices_average_to_the_batch(frozen):
    arm = make_arm(frozen, "both")
    whole = float(arm.loss(arm.module, arm._train.batch(np.arange(12), ReasoningMode.FULL))[0].detach())
    thirds = [float(arm.loss(arm.module, arm._train.batch(np.arange(i, i + 4), ReasoningMode.FULL))[0].detach()) for i in (0, 4, 8)]
    assert sum(thirds) / 3 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("head", ["parallel", "both"])
def test_the_block_learns(frozen, head):
    arm = make_arm(frozen, head, curriculum=CurriculumConfig(no_depth_until=1.0))
    optimizer = torch.optim.AdamW(arm.module.parameters(), lr=3e-3, betas=(0.9, 0.95))
    name = "loss_action_block" if head == "both" else "loss_action"
    said = []
    for step in range(25):
        loss, parts = arm.loss(arm.module, arm.batch(np.arange(16) + 16 * (step % 3), seed=0, step=step, micro=0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        said.append(float(parts[name]))
    assert np.mean(said[-3:]) < 0.85 * np.mean(said[:3])


def test_the_head_is_written_down(frozen):
    for head in ActionHead:
        arm = make_arm(frozen, head.value)
        assert action_head_of(arm.module.config) is head
    causal = make_arm(frozen, "causal").module
    assert "action_head" not in causal.config.to_json()  # a causal checkpoint keeps its bytes
    assert all(torch.equal(a, b) for a, b in zip(causal.parameters(), make_arm(frozen, "both").module.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="sideways"):
        action_head_of(replace(causal.config, extras={"action_head": "sideways"}))


def test_a_checkpoint_says_its_kind(frozen, tmp_path):
    from model_core.checkpoint import load_checkpoint, write_checkpoint
    from model_core.inspection import inspect_checkpoint

    kinds = {}
    for head in ActionHead:
        arm = make_arm(frozen, head.value)
        arm.export(arm.module.state_dict(), tmp_path / head)
        kinds[head] = load_checkpoint(tmp_path / head).contract.reasoning.kind
        assert inspect_checkpoint(tmp_path / head).architecture["actions"].startswith(head.value)
    assert kinds == {ActionHead.CAUSAL: "causal", ActionHead.PARALLEL: "parallel", ActionHead.BOTH: "causal"}
    parallel, causal = make_arm(frozen, "parallel"), make_arm(frozen, "causal")
    with pytest.raises(CheckpointError, match="kind of policy is parallel"):
        write_checkpoint(tmp_path / "mixed", state=parallel.module.state_dict(), config=parallel.module.config, contract=causal.contract)


def test_flops_count_the_placeholders(frozen):
    cost = {head: make_arm(frozen, head.value).flops_at(90) for head in ActionHead}
    assert cost[ActionHead.PARALLEL] == cost[ActionHead.CAUSAL] < cost[ActionHead.BOTH]
