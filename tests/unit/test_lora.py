"""Adapters: exact start, gradients, one step, merge, files; and the loss they are trained with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model_core.adoption.document import ADOPTION
from model_core.contracts import CONTRACT
from model_core.layout_conversion import ConversionRequest, convert_checkpoint
from model_core.network.checkpoints.hub import load_pretrained, save_pretrained
from model_core.network.checkpoints.layout import to_olmo
from model_core.network.finetuning import lora
from model_core.network.finetuning.loss import IGNORED, answer_loss
from model_core.network.model import MolmoAct
from model_core.spec.errors import CheckpointError, SpecError

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
FAMILIES = ("tiny_d", "tiny_o")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def golden(family: str) -> tuple[MolmoAct, dict[str, Tensor]]:
    return load_pretrained(GOLDEN / family, dtype=torch.float32), load_file(GOLDEN / family / "io.safetensors")


def logits_of(model: MolmoAct, io: dict[str, Tensor]) -> Tensor:
    return model(io["input_ids"], io["images"], io["pooled_patches_idx"])


def one_step(model: MolmoAct, io: dict[str, Tensor], rate: float = 0.05) -> tuple[float, float]:
    """Loss before and after one optimiser step on the recorded prompt as its own answer."""
    labels = io["input_ids"].clone()
    labels[labels >= model.config.llm.vocab_size] = IGNORED

    def loss() -> Tensor:
        total, weight = answer_loss(logits_of(model, io), labels)
        return total / weight

    optimizer = torch.optim.AdamW(lora.trainable_parameters(model).values(), lr=rate, weight_decay=0.0)
    before = loss()
    before.backward()
    optimizer.step()
    return float(before.detach()), float(loss().detach())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_gets_an_adapter_and_the_start_is_exact(family):
    model, io = golden(family)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    bare = logits_of(model, io)
    lora.add_lora(model, lora.LoraSettings())
    trained = lora.trainable_parameters(model)
    assert {name.split(".lora_")[0] for name in trained} == set(linear)
    assert all(len(value) == 32 for name, value in trained.items() if "lora_A" in name)
    assert torch.equal(logits_of(model, io), bare)


def test_gradients_reach_every_adapter_and_nothing_else():
    model, io = golden("tiny_d")
    lora.add_lora(model, lora.LoraSettings(rank=4))
    logits_of(model, io).square().mean().backward()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        if "lora_" not in name:
            assert parameter.grad is None, name


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_learns_and_the_merged_model_speaks_the_same(family, tmp_path):
    model, io = golden(family)
    before, after = one_step(lora.add_lora(model, lora.LoraSettings(rank=4, alpha=8)), io)
    assert after < before
    adapted = logits_of(model, io)
    with pytest.raises(CheckpointError, match="not merged"):
        save_pretrained(model, tmp_path / "early")
    merged = lora.merge_lora(model)
    assert not lora.is_adapted(merged)
    torch.testing.assert_close(logits_of(merged, io), adapted, atol=2e-4, rtol=1e-4)
    save_pretrained(merged, tmp_path / "merged")
    torch.testing.assert_close(logits_of(load_pretrained(tmp_path / "merged"), io), logits_of(merged, io))


def test_saved_adapters_are_peft_files_and_come_back_exactly(tmp_path):
    model, io = golden("tiny_d")
    one_step(lora.add_lora(model, lora.LoraSettings(rank=4, train_new_embedding=True, depth_rows=(300, 10))), io)
    spoken = logits_of(model, io)
    lora.save_adapters(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 4
    assert all(name.startswith("base_model.model.") for name in load_file(tmp_path / "adapter_model.safetensors"))
    again, _ = golden("tiny_d")
    assert torch.equal(logits_of(lora.load_adapters(again, tmp_path), io), spoken)
    torch.testing.assert_close(logits_of(lora.merge_lora(again), io), spoken, atol=2e-4, rtol=1e-4)


def test_peft_itself_reads_our_adapters(tmp_path):
    from peft import PeftModel

    model, io = golden("tiny_d")
    one_step(lora.add_lora(model, lora.LoraSettings(rank=4)), io)
    lora.save_adapters(model, tmp_path)
    bare, _ = golden("tiny_d")
    assert torch.equal(logits_of(PeftModel.from_pretrained(bare, tmp_path), io), logits_of(model, io))


def test_adapters_with_training_side_names_are_understood(tmp_path):
    model, io = golden("tiny_o")
    one_step(lora.add_lora(model, lora.LoraSettings(rank=4)), io)
    lora.save_adapters(model, tmp_path)
    state = {}
    for name, value in load_file(tmp_path / "adapter_model.safetensors").items():
        path, _, leaf = name.removeprefix("base_model.model.").partition(".lora_")
        state["base_model.model." + to_olmo(path + ".weight").removesuffix(".weight") + ".lora_" + leaf] = value
    assert "base_model.model.transformer.ff_out.lora_A.weight" in state
    save_file(state, tmp_path / "adapter_model.safetensors")
    again, _ = golden("tiny_o")
    assert torch.equal(logits_of(lora.load_adapters(again, tmp_path), io), logits_of(model, io))


def test_adapters_of_another_model_are_refused_with_their_names(tmp_path):
    model, _ = golden("tiny_d")
    lora.save_adapters(lora.add_lora(model, lora.LoraSettings(rank=4)), tmp_path)
    other, _ = golden("tiny_o")
    with pytest.raises(CheckpointError, match=r"resblocks\.3"):
        lora.load_adapters(other, tmp_path)


@pytest.mark.parametrize("chosen", [False, True])
def test_depth_and_image_rows_move_only_when_chosen(chosen):
    model, io = golden("tiny_d")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    settings = lora.LoraSettings(rank=4, adapt_head=False, train_new_embedding=chosen, depth_rows=(0, 200) if chosen else None)
    one_step(lora.add_lora(model, settings), io)
    end = lora.merge_lora(model).state_dict()
    moved = (end["model.transformer.wte.embedding"] != start["model.transformer.wte.embedding"]).any(1)
    used = io["input_ids"][:, :-1].unique()  # the last token predicts nothing
    assert set(moved.nonzero().flatten().tolist()) == ({int(i) for i in used if i < 200} if chosen else set())
    assert bool((end["lm_head.weight"] != start["lm_head.weight"])[:200].any()) is chosen
    assert torch.equal(end["lm_head.weight"][200:], start["lm_head.weight"][200:])
    assert bool((end["model.transformer.wte.new_embedding"] != start["model.transformer.wte.new_embedding"]).any()) is chosen


def test_wrong_settings_and_a_second_set_of_adapters_are_refused():
    model, _ = golden("tiny_d")
    for wrong in ({"rank": 0}, {"dropout": 1.0}):
        with pytest.raises(SpecError):
            lora.LoraSettings(**wrong)
    with pytest.raises(SpecError, match="depth_rows"):
        lora.add_lora(model, lora.LoraSettings(depth_rows=(300, 100)))
    with pytest.raises(CheckpointError, match="already carries"):
        lora.add_lora(model, lora.LoraSettings())


def test_loss_counts_answer_tokens_only_with_weights_and_z_loss():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[IGNORED, IGNORED, IGNORED, 5, 6], [IGNORED, 7, 8, 9, IGNORED]])
    logits = torch.randn(2, 5, 12, generator=generator)
    weights = torch.tensor([1.0, 0.5])
    total, count = answer_loss(logits, labels, weights_B=weights, z_loss=1e-2)
    expected = 0.0
    for row, places in ((0, (2, 3)), (1, (0, 1, 2))):
        for place in places:
            log_z = torch.logsumexp(logits[row, place], 0)
            expected += weights[row] * (log_z - logits[row, place, labels[row, place + 1]] + 1e-2 * log_z**2)
    assert float(count) == 2 + 3 * 0.5
    torch.testing.assert_close(total, expected)


def test_splitting_a_batch_does_not_change_the_gradient():
    model, _ = golden("tiny_d")
    model = MolmoAct(dataclasses.replace(model.config, attention="eager"))
    model.init_weights(0)
    ids = torch.randint(0, 300, (4, 9), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :5] = IGNORED
    weight = answer_loss(model(ids), labels)[1]

    def gradient(parts: int) -> Tensor:
        model.zero_grad()
        for part_ids, part_labels in zip(ids.chunk(parts), labels.chunk(parts), strict=True):
            (answer_loss(model(part_ids), part_labels)[0] / weight).backward()
        return model.lm_head.weight.grad.clone()

    torch.testing.assert_close(gradient(4), gradient(1), atol=1e-6, rtol=1e-4)


def test_adapters_are_merged_and_the_old_contract_does_not_come_along(tmp_path: Path):
    base = tmp_path / "base"
    shutil.copytree(GOLDEN / "tiny_d", base)
    (base / CONTRACT).write_text("{}")
    model = lora.add_lora(load_pretrained(base), lora.LoraSettings(rank=4, alpha=2))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for value in lora.trainable_parameters(model).values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.02)
    lora.save_adapters(model, tmp_path / "adapters")
    request = ConversionRequest(adapters=tmp_path / "adapters")
    made = convert_checkpoint(base, tmp_path / "merged", request)
    expected = lora.merge_lora(lora.load_adapters(load_pretrained(base), tmp_path / "adapters"))
    found = load_pretrained(tmp_path / "merged")
    assert all(torch.equal(found.get_parameter(name), value) for name, value in expected.named_parameters())
    assert not torch.equal(found.lm_head.weight, load_pretrained(base).lm_head.weight)
    assert "actwright model adopt" in made.notes[-1]
    assert made.carried == ("config.json",)
    assert not (tmp_path / "merged" / ADOPTION).exists()
    with pytest.raises(CheckpointError, match="merged into the published layout"):
        convert_checkpoint(base, tmp_path / "no", ConversionRequest(adapters=tmp_path / "adapters", target="olmo"))
    with pytest.raises(CheckpointError, match="is no adapter folder"):
        convert_checkpoint(base, tmp_path / "no", ConversionRequest(adapters=tmp_path))
    assert not (tmp_path / "no").exists()
