"""Loss, curriculum, batches: what is learnt, and that it can be learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config.train_config import CurriculumConfig, TrainConfig
from components.data.frozen_dataset import load_split, read_frozen
from components.training.plan import curriculum_of
from components.training.tiny_model import BatchMaker, TinyArm
from model_core.spec.errors import DatasetError, SpecError
from model_core.tiny import TinySize, pooled_patches
from model_core.tokenization.compact.layout import Field, ReasoningMode
from model_core.training import Curriculum, LossConfig, answer_loss, shift_images, smooth_targets, token_losses
from tests.tiny_arm_data import SMALL, make_small_contract, recorded_rows, write_small_frozen

GOLDEN_CURRICULUM = CurriculumConfig(no_depth_until=0.0, full=0.4, no_depth=0.3, trace_given=0.2, action_only=0.1)
GOLDEN = Path(__file__).parents[1] / "golden" / "tiny_loss_curve.json"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("frozen") / "data", make_small_contract())


def make_arm(frozen: Path, **changes) -> TinyArm:
    return TinyArm(TrainConfig(network=SMALL, steps=100, warmup_steps=5, global_batch=16, micro_batch=16, **changes), frozen)


def curve(arm: TinyArm, steps: int, *, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.AdamW(arm.module.parameters(), lr=rate, betas=(0.9, 0.95))
    losses = []
    for step in range(steps):
        batch = arm.batch(np.arange(16) + 16 * (step % 3), seed=0, step=step + 50, micro=0)
        loss, _ = arm.loss(arm.module, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def test_golden_loss_curve(frozen):
    expected = json.loads(GOLDEN.read_text())["loss"]
    assert curve(make_arm(frozen, curriculum=GOLDEN_CURRICULUM), 8) == pytest.approx(expected, rel=2e-3)


@pytest.fixture(scope="module")
def padded(tmp_path_factory) -> Path:
    """The samples of `frozen`, where some chunks reach past the end of their episode."""
    return write_small_frozen(tmp_path_factory.mktemp("padded") / "data", make_small_contract(), padded=True)


def test_golden_loss_curve_of_data_with_ends_of_episodes(padded):
    expected = json.loads(GOLDEN.read_text())["loss_with_padding"]
    assert curve(make_arm(padded, curriculum=GOLDEN_CURRICULUM), 8) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("head", ["causal", "both", "parallel"])
@pytest.mark.parametrize("mode", list(ReasoningMode))
def test_actions_past_the_end_of_an_episode_count_nothing_and_all_others_what_they_did(frozen, padded, head, mode):
    rows = np.arange(12)
    whole = make_arm(frozen, action_head=head)._train.batch(rows, mode)
    arm = make_arm(padded, action_head=head)
    batch = arm._train.batch(rows, mode)
    assert torch.equal(batch.ids_BL, whole.ids_BL)
    recorded = recorded_rows(12, 4)
    for mine, before in ((batch.targets.get(Field.ACTION), whole.targets.get(Field.ACTION)), (batch.block, whole.block)):
        assert (mine is None) == (before is None)
        if mine is None or before is None:
            continue
        kept = np.concatenate([np.arange(16) < 4 * n for n in recorded])  # the tokens of a sample stand in order, four a row
        for name in ("places_N", "codes_N", "shares_N"):
            assert torch.equal(getattr(mine, name), getattr(before, name)[kept])
    for field in (Field.DEPTH, Field.TRACE):
        if field in whole.targets:
            assert torch.equal(batch.targets[field].shares_N, whole.targets[field].shares_N)


@pytest.mark.parametrize("head", ["causal", "both", "parallel"])
def test_what_stands_past_the_end_of_an_episode_changes_neither_loss_nor_gradient(padded, head):
    arm = make_arm(padded, action_head=head)
    split = load_split(padded, "train")
    assert split.is_padded_NK is not None
    other = replace(split, actions_NKA=np.where(split.is_padded_NK[..., None], -0.9, split.actions_NKA).astype(np.float32))
    found = []
    for data in (split, other):
        maker = BatchMaker(data, arm.layout, arm.contract, head=head)
        arm.module.zero_grad()
        loss, _ = arm.loss(arm.module, maker.batch(np.arange(12), ReasoningMode.FULL))
        loss.backward()
        norm = torch.stack([p.grad.double().norm() for p in arm.module.parameters() if p.grad is not None]).norm()
        found.append((float(loss), float(norm)))
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    unmarked = BatchMaker(replace(other, is_padded_NK=None), arm.layout, arm.contract, head=head)
    assert float(arm.loss(arm.module, unmarked.batch(np.arange(12), ReasoningMode.FULL))[0]) != pytest.approx(found[0][0], rel=1e-3)


def test_committed_rows_leave_a_recorded_row_to_predict(padded):
    arm = make_arm(padded, committed_rows=3)
    rows = np.arange(0, 48, 3)  # all near the end
    for step in range(20):
        batch = arm._train.batch(rows, ReasoningMode.ACTION, draw=(0, step, 0))
        learned_B = np.bincount(batch.targets[Field.ACTION].places_N.numpy() // batch.ids_BL.shape[1], minlength=16)
        assert (learned_B >= 4).all()
        assert (learned_B <= 4 * recorded_rows(48, 4)[rows]).all()
        loss, _ = arm.loss(arm.module, batch)
        assert torch.isfinite(loss)


def test_the_loss_falls_and_the_picture_is_used(frozen):
    arm = make_arm(frozen, curriculum=CurriculumConfig(no_depth_until=1.0))
    losses = curve(arm, 40)
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_equal_slices_average_to_the_batch(frozen):
    arm = make_arm(frozen)
    rows = np.arange(12)
    whole, parts = arm.loss(arm.module, arm._train.batch(rows, ReasoningMode.FULL))
    thirds = [arm.loss(arm.module, arm._train.batch(rows[i : i + 4], ReasoningMode.FULL))[0] for i in (0, 4, 8)]
    assert float(sum(thirds) / 3) == pytest.approx(float(whole), rel=1e-5)
    assert float(whole) == pytest.approx(sum(float(parts[f"loss_{name}"]) for name in ("depth", "trace", "action")), rel=1e-6)


def test_weights_of_fields_and_samples(frozen):
    from model_core.training import training_batch

    arm = make_arm(frozen)
    batch = arm._train.batch(np.arange(4), ReasoningMode.FULL)
    _, parts = answer_loss(arm.module, batch, arm.layout, LossConfig())
    total, _ = answer_loss(arm.module, batch, arm.layout, LossConfig(weights=(0.0, 2.0, 0.5)))
    assert float(total) == pytest.approx(2 * float(parts["loss_trace"]) + 0.5 * float(parts["loss_action"]), rel=1e-5)
    split = arm._train.split
    tokens = arm.layout.batch(
        mode=ReasoningMode.ACTION,
        words_BW=arm.layout.instruction_table(split.instructions)[split.instruction_idx_N[:2]],
        proprio_bins_BP=np.zeros((2, 4), np.int64),
        bins_BKA=arm._train._bins_NKA[:2],
    )

    def of(weights: list[float]) -> float:
        weighted = training_batch(arm.layout, tokens, split.images_NVHW3[:2], ReasoningMode.ACTION, np.array(weights))
        return float(answer_loss(arm.module, weighted, arm.layout, LossConfig())[0])

    assert of([1.0, 1.0]) == pytest.approx((of([2.0, 0.0]) + of([0.0, 2.0])) / 2, rel=1e-5)


def test_a_given_trace_is_not_learnt(frozen):
    arm = make_arm(frozen)
    batch = arm._train.batch(np.arange(4), ReasoningMode.STEERED)
    assert set(batch.targets) == {Field.ACTION}
    assert set(arm._train.batch(np.arange(4), ReasoningMode.TRACE_ACTION).targets) == {Field.TRACE, Field.ACTION}


def test_committed_rows_are_given_as_somebody_executed_them_and_not_learnt(frozen):
    arm = make_arm(frozen, committed_rows=2)
    assert (arm.contract.max_prefix_rows, make_arm(frozen).contract.max_prefix_rows) == (2, 0)
    action = arm.layout.vocabulary.action.start - 1
    wanted_NKA, executed_NKA = arm._train._bins_NKA, arm._train._executed_NKA
    seen, sources = set(), set()
    for step in range(20):
        rows = np.arange(16) + 16 * (step % 3)
        batch = arm._train.batch(rows, ReasoningMode.ACTION, draw=(0, step, 0))
        said_BKA = batch.ids_BL[:, arm.layout.prompt_length :].numpy() - action  # the last value is predicted and never read
        learnt_B = np.bincount(batch.targets[Field.ACTION].places_N.numpy() // batch.ids_BL.shape[1], minlength=16)
        for n, row in enumerate(rows):
            given = 4 - learnt_B[n] // 4
            seen.add(given)
            assert np.array_equal(said_BKA[n][4 * given :], wanted_NKA[row, given:].ravel()[:-1])
            if given:
                said = said_BKA[n][: 4 * given]
                (places,) = np.nonzero((executed_NKA[:, :given].reshape(len(executed_NKA), -1) == said).all(1))
                assert len(places)
                sources.add("its own" if row in places else "another's")
    assert (seen, sources) == ({0, 1, 2}, {"its own", "another's"})
    again = [arm._train.batch(np.arange(16), ReasoningMode.FULL, draw=(7, 1, 0)).ids_BL for _ in range(2)]
    assert torch.equal(again[0], again[1])
    assert torch.equal(
        arm._train.batch(np.arange(16), ReasoningMode.FULL).ids_BL, make_arm(frozen)._train.batch(np.arange(16), ReasoningMode.FULL).ids_BL
    )


def test_committed_rows_need_a_causal_head_rows_to_learn_and_what_was_executed(frozen, tmp_path):
    with pytest.raises(SpecError, match="causal"):
        make_arm(frozen, committed_rows=2, action_head="parallel")
    with pytest.raises(SpecError, match="4 rows"):
        make_arm(frozen, committed_rows=4)
    split = replace(load_split(frozen, "train"), executed_NKA=None)
    with pytest.raises(DatasetError, match="freeze again"):
        BatchMaker(split, make_arm(frozen).layout, make_small_contract(), committed_rows=1)


def test_padding_changes_nothing(frozen):
    """Sample 0 has a trace of one point; beside a sample with five points its row is padded."""
    arm = make_arm(frozen)
    alone = float(arm.loss(arm.module, arm._train.batch(np.array([0, 0]), ReasoningMode.FULL))[0])
    other = float(arm.loss(arm.module, arm._train.batch(np.array([4, 4]), ReasoningMode.FULL))[0])
    both = float(arm.loss(arm.module, arm._train.batch(np.array([0, 4]), ReasoningMode.FULL))[0])
    assert both == pytest.approx((alone + other) / 2, rel=1e-5)


def test_gaussian_targets():
    table = smooth_targets(257, 2.0)
    assert torch.allclose(table.sum(1), torch.ones(257))
    assert table[256, 256] == 1.0
    assert float(table[:256, 256].max()) == 0.0
    assert int(table[100].argmax()) == 100
    assert table[100, 102] == pytest.approx(float(table[100, 100]) * np.exp(-0.5))
    near = torch.full((1, 256), -10.0)
    near[0, 101] = 10.0
    far = torch.full((1, 256), -10.0)
    far[0, 200] = 10.0
    codes = torch.tensor([100])
    assert token_losses(near, codes, 2.0) < token_losses(far, codes, 2.0)
    assert token_losses(near, codes, 0.0) == pytest.approx(float(token_losses(far, codes, 0.0)))
    assert token_losses(near, codes, 2.0, z_loss=1e-2) > token_losses(near, codes, 2.0)


def test_curriculum_is_a_pure_function_of_seed_and_step():
    curriculum = Curriculum()
    modes = [curriculum.mode_at(step, 400, seed=1) for step in range(400)]
    assert set(modes[:140]) == {ReasoningMode.TRACE_ACTION}
    later = modes[140:]
    assert abs(later.count(ReasoningMode.FULL) / len(later) - 0.5) < 0.12
    assert later.count(ReasoningMode.STEERED) > 10
    assert modes[399] == curriculum.mode_at(399, 400, seed=1)
    assert modes != [curriculum.mode_at(step, 400, seed=2) for step in range(400)]
    with pytest.raises(SpecError, match="add up to 1"):
        Curriculum(mixture={ReasoningMode.FULL: 0.5})
    assert (
        curriculum_of(CurriculumConfig(full=1.0, no_depth=0.0, trace_given=0.0, action_only=0.0, no_depth_until=0.0)).mode_at(0, 5, 0)
        is ReasoningMode.FULL
    )


def test_batches_are_a_pure_function_of_what_is_asked(frozen):
    first, second = make_arm(frozen, augment_shift_px=2), make_arm(frozen, augment_shift_px=2)
    indices = np.array([5, 1, 7])
    a, b = (arm.batch(indices, seed=3, step=80, micro=1) for arm in (first, second))
    assert torch.equal(a.images_BVHW3, b.images_BVHW3)
    assert torch.equal(a.ids_BL, b.ids_BL)
    other = first.batch(indices, seed=3, step=81, micro=1)
    assert not torch.equal(a.images_BVHW3, other.images_BVHW3)


def test_shifted_pictures_carry_their_trace():
    images = np.zeros((1, 1, 9, 9, 3), np.uint8)
    images[0, 0, 4, 4] = 255
    trace = np.array([[[128, 128], [250, 10], [-1, -1], [-1, -1], [-1, -1]]], np.int16)
    moved, points = shift_images(images, trace, np.array([[2, -1]]))
    assert np.argwhere(moved[0, 0, :, :, 0])[0].tolist() == [3, 6]
    assert points[0, 0].tolist() == [192, 96]
    assert points[0, 1].tolist() == [255, 0]
    assert (points[0, 2:] == -1).all()


def test_pooled_windows_tile_the_grid(frozen):
    arm = make_arm(frozen)
    windows = pooled_patches(arm.layout)
    assert sorted(windows.flatten().tolist()) == list(range(16))
    assert windows[0].tolist() == [0, 1, 4, 5]


def test_validation_and_export(frozen, tmp_path):
    from model_core.checkpoint import load_checkpoint

    arm = make_arm(frozen)
    with torch.no_grad():
        numbers = arm.validate(arm.module)
    assert {"validation_loss", "validation_loss_action", "validation_accuracy_depth"} <= set(numbers)
    arm.export(arm.module.state_dict(), tmp_path / "checkpoint")
    again = load_checkpoint(tmp_path / "checkpoint")
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in arm.module.state_dict().items())
    other = make_arm(frozen, seed=5, init_from=str(tmp_path / "checkpoint"))
    assert torch.equal(other.module.lm_head.weight, arm.module.lm_head.weight)


def test_damaged_frozen_data_is_refused(tmp_path):
    contract = make_small_contract()
    folder = write_small_frozen(tmp_path / "data", contract)
    shard = folder / "shards" / "train-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"train-00001.*damaged"):
        load_split(folder, "train")
    assert len(load_split(folder, "validation")) == 8
    shard.unlink()
    with pytest.raises(DatasetError, match="missing"):
        load_split(folder, "train")
    (folder / "contract.json").write_text(json.dumps(make_small_contract(chunk_length=2).to_json()))
    with pytest.raises(DatasetError, match="freeze again"):
        read_frozen(folder)


def test_samples_keep_their_order_over_shards(frozen):
    split = load_split(frozen, "train")
    assert len(split) == 48
    maker = BatchMaker(split, make_arm(frozen).layout, make_small_contract())
    assert len(maker) == 48
    assert np.array_equal(split.instruction_idx_N, np.arange(48) % 2)


def test_network_field_is_checked():
    assert TinySize.of("tiny") == TinySize()
    with pytest.raises(SpecError, match="wdith"):
        TinySize.of({"wdith": 3})
    with pytest.raises(SpecError, match="tiny"):
        TinySize.of("huge")
