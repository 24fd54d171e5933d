"""The published loss, its gradients, clipping by group and two optimiser steps, on our network with the weights of the tiny models."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.checkpoints.weights import read_header
from model_core.network.finetuning.loss import IGNORED, LossSums, seen_tokens, token_losses, weighted_sums
from model_core.network.finetuning.optimizer import GROUPS, clip_gradients, group_of, make_adamw, parameter_groups, rate_at, set_rates
from model_core.network.model import MolmoAct
from model_core.spec.errors import SpecError
from tests.golden_road import ROAD, document

FAMILIES = ("tiny_d", "tiny_o")
VARIANTS = ("plain", "weighted", "subsegments")
LOSS_TOLERANCE, GRADIENT_TOLERANCE, UPDATE_TOLERANCE = 1e-5, 1e-4, 1e-6


@cache
def recorded(family: str) -> dict[str, Tensor]:
    return {key: stored.load() for key, stored in read_header(ROAD / "loss" / f"{family}.safetensors")}


def model_of(family: str) -> MolmoAct:
    torch.set_num_threads(1)
    return load_pretrained(ROAD.parent / "model" / family, dtype=torch.float32, attention="eager")


def batch_of(family: str, variant: str) -> dict[str, Tensor]:
    found, prefix = recorded(family), f"{variant}.batch."
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def logits_of(model: MolmoAct, family: str, variant: str, rows: slice = slice(None)) -> Tensor:
    """The training forward: right padding of -1, questions apart where there are several."""
    batch = {name: value[rows] for name, value in batch_of(family, variant).items()}
    images, windows = recorded(family)["batch.images"][rows], recorded(family)["batch.pooled_patches_idx"][rows]
    ids = batch["input_ids"].clamp(min=0)
    mask = seen_tokens(batch["subsegment_ids"]) if "subsegment_ids" in batch else (batch["input_ids"] >= 0).long()
    x = model.embed(ids, model.encode_images(images, windows))
    return model.logits(model.trunk(x, batch["position_ids"].clamp(min=0), mask))


def sums_of(model: MolmoAct, family: str, variant: str, rows: slice = slice(None)) -> LossSums:
    batch = batch_of(family, variant)
    return weighted_sums(logits_of(model, family, variant, rows), batch["labels"][rows], batch["loss_masks"][rows])


def close(made: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Within the tolerance of the largest value."""
    return float((made - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_gradients_and_norms(family, variant):
    model, numbers = model_of(family), document(f"loss/{family}.json")[variant]
    batch = batch_of(family, variant)
    logits = logits_of(model, family, variant)
    counted = batch["loss_masks"] > 0
    assert int(counted.sum()) == numbers["loss_token_count"]
    torch.testing.assert_close(logits[counted], recorded(family)[f"{variant}.logits_at_loss_tokens"], atol=1e-4, rtol=0)
    sums = weighted_sums(logits, batch["labels"], batch["loss_masks"])
    assert sums.divisor.item() == pytest.approx(numbers["divisor_sum_of_loss_masks"], rel=1e-6)
    assert sums.cross_entropy.item() == pytest.approx(numbers["ce_sum"], rel=LOSS_TOLERANCE)
    assert sums.z.item() == pytest.approx(numbers["z_sum"], rel=LOSS_TOLERANCE)
    assert (sums.cross_entropy / sums.divisor).item() == pytest.approx(numbers["ce_loss"], abs=LOSS_TOLERANCE)
    assert (sums.z / sums.divisor).item() == pytest.approx(numbers["z_loss"], abs=LOSS_TOLERANCE)
    assert sums.mean().item() == pytest.approx(numbers["total_loss"], abs=LOSS_TOLERANCE)
    sums.mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert set(gradients) == set(numbers["grad_norm_per_tensor"])
    for name, norm in numbers["grad_norm_per_tensor"].items():
        made = float(gradients[name].norm())
        assert made == pytest.approx(norm, rel=GRADIENT_TOLERANCE, abs=1e-6 if name.endswith("wk.bias") else 0.0), name
    compared = [key for key in recorded(family) if key.startswith(f"{variant}.grad.")]
    assert len(compared) == {"plain": 0, "weighted": 10, "subsegments": 7}[variant]
    for key in compared:
        assert close(gradients[key.removeprefix(f"{variant}.grad.")], recorded(family)[key], GRADIENT_TOLERANCE), key


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_add_up_to_the_batch(family, size):
    model, numbers = model_of(family), document(f"loss/{family}.json")["weighted"]
    divisor = numbers["divisor_sum_of_loss_masks"]
    total = 0.0
    for first in range(0, 4, size):
        loss = sums_of(model, family, "weighted", slice(first, first + size)).mean(divisor)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(numbers["total_loss_micro_batch"][str(size)], abs=LOSS_TOLERANCE)
    key = "lm_head.weight"
    assert close(model.get_parameter(key).grad, recorded(family)[f"weighted.grad.{key}"], GRADIENT_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clip", ["1", "0.05"])
def test_two_clipped_steps(family, clip):
    model, numbers = model_of(family), document(f"loss/{family}.json")[f"adamw_clip{clip}"]
    assert (numbers["betas"], numbers["eps"], numbers["weight_decay"]) == ([0.9, 0.95], 1e-6, 0)
    schedule = numbers["scheduler"]
    optimizer = make_adamw(model, numbers["base_lr"])
    for number, step in enumerate(numbers["steps"], start=1):
        rates = set_rates(optimizer, step["global_step"], steps=schedule["max_steps"], warmup_steps=schedule["warmup_steps"])
        assert rates == pytest.approx(step["lr"], rel=1e-12)
        optimizer.zero_grad()
        sums = sums_of(model, family, "weighted")
        assert (sums.cross_entropy / sums.divisor).item() == pytest.approx(step["metrics"]["train/CrossEntropyLoss"], abs=LOSS_TOLERANCE)
        assert (sums.z / sums.divisor).item() == pytest.approx(step["metrics"]["train/ZLoss"], abs=LOSS_TOLERANCE)
        sums.mean().backward()
        norms = clip_gradients(optimizer.param_groups, numbers["clip"])
        for group in GROUPS:
            assert float(norms[group]) == pytest.approx(step["metrics"][f"optim/{group}_grad_norm"], rel=GRADIENT_TOLERANCE)
        optimizer.step()
        updated = f"clip{clip}.after_step{number}."
        compared = [key for key in recorded(family) if key.startswith(updated)]
        assert len(compared) == (5 if clip == "1" else 2)
        for key in compared:
            made = model.get_parameter(key.removeprefix(updated)).detach()
            difference = (made - recorded(family)[key]).abs()
            # Adam divides by the size of a gradient: where that is nearly 0, the other sums of another processor (AVX-512) show
            assert float((difference > UPDATE_TOLERANCE).float().mean()) < 1e-3, key
            assert float(difference.max()) < 0.05 * min(step["lr"].values()), key


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_of_weights(family):
    expected = document(f"loss/{family}.json")["parameter_groups"]
    names = [name for name, _ in model_of(family).named_parameters()]
    assert {group: {name for name in names if group_of(name) == group} for group in GROUPS} == {
        group: set(keys) for group, keys in expected.items()
    }


def test_adapters_belong_to_the_group_of_their_layer():
    assert group_of("model.vision_backbone.image_vit.transformer.resblocks.0.attention.wq.lora_A.default.weight") == "vit"
    assert group_of("model.vision_backbone.image_projector.w1.lora_B.default.weight") == "connector"
    assert group_of("model.vision_backbone.pad_embed") == "connector"
    assert group_of("model.transformer.wte.inner.new_embedding") == "connector"
    assert group_of("model.transformer.blocks.0.self_attn.att_proj.lora_A.default.weight") == "llm"


def test_a_group_without_a_rate_is_refused():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(SpecError, match="learning rate for the groups"):
        parameter_groups([("lm_head.weight", layer.weight)], {"vit": 1e-4})
    layer.weight.requires_grad_(False)
    assert parameter_groups([("lm_head.weight", layer.weight)], {"vit": 1e-4}) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_learning_rates(family):
    table = document(f"loss/{family}.json")["lr_table"]
    for step, rate in table["steps"].items():
        made = rate_at(
            int(step), table["base_lr"], steps=table["max_steps"], warmup_steps=table["warmup_steps"], final_share=table["alpha_f"]
        )
        assert made == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_function_alone(family):
    found = recorded(family)
    losses, z = token_losses(found["lossfn.logits"], found["lossfn.labels"])
    counted = found["lossfn.labels"] != IGNORED
    # the published mean of the z-loss counts ignored rows too; training uses sums
    for part, made, rows in (("loss", losses, int(counted.sum())), ("z", z, len(z))):
        torch.testing.assert_close(made[counted], found[f"lossfn.none.{part}"][counted], atol=LOSS_TOLERANCE, rtol=0)
        assert not made[~counted].any()
        torch.testing.assert_close(made.sum()[None], found[f"lossfn.sum.{part}"], atol=LOSS_TOLERANCE, rtol=0)
        torch.testing.assert_close(made.sum()[None] / rows, found[f"lossfn.mean.{part}"], atol=LOSS_TOLERANCE, rtol=0)


def test_a_weight_of_zero_or_less_does_not_count():
    logits, targets = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 3, -1, 5])
    sums = weighted_sums(logits, targets, torch.tensor([1.0, 0.0, -1.0, 1.0, 0.5]))
    alone = token_losses(logits, targets)[0]
    assert sums.divisor.item() == 1.5
    assert sums.cross_entropy.item() == pytest.approx(float(alone[0] + 0.5 * alone[4]))
    joined = sums + sums
    assert joined.mean().item() == pytest.approx(sums.mean().item())


def test_samples_in_one_row_do_not_see_each_other():
    subsegments = torch.tensor([[1, 1, 10_000, 0, 0, 1, -1]])
    seen = seen_tokens(subsegments, torch.tensor([[0, 0, 1, 1, 1, 1, 2]]))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
