"""Adapter folders as peft writes them: merged with the scale that they were trained with, or refused by the name of the switch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.checkpoints.layout import to_olmo
from model_core.network.finetuning import lora
from model_core.network.finetuning.adapter_config import read_adapter_config
from model_core.spec.errors import CheckpointError

pytestmark = pytest.mark.xdist_group("peft")  # one worker imports it

GOLDEN = Path(__file__).parents[1] / "golden" / "model" / "tiny_d"
LAYERS = ["self_attn.att_proj", "mlp.ff_proj", "mlp.ff_out"]
NAMES = [f"model.transformer.blocks.{block}.{layer}" for block in (0, 1) for layer in LAYERS]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def bare() -> nn.Module:
    return load_pretrained(GOLDEN, dtype=torch.float32)


def trained_by_peft(folder: Path, **switches) -> dict[str, torch.Tensor]:
    """Write an adapter folder with the installed peft itself; returns the weights after peft's own merge, under our names."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 6, "lora_alpha": 9, "target_modules": LAYERS, "init_lora_weights": False, **switches})
    torch.manual_seed(7)
    adapted = get_peft_model(bare(), config)  # type: ignore[arg-type]
    adapted.save_pretrained(str(folder))
    merged = adapted.merge_and_unload()
    return {f"{name}.weight": merged.get_submodule(name).weight.detach().clone() for name in NAMES}


@pytest.fixture(scope="module")
def plain_adapter(tmp_path_factory) -> Path:
    """A folder as peft writes it, without any switch; to be copied."""
    folder = tmp_path_factory.mktemp("adapter")
    trained_by_peft(folder)
    return folder


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"use_rslora": True},
        pytest.param({"lora_alpha": 2.5}, marks=pytest.mark.soak),  # short: a pattern gives the same layers another number
        pytest.param({"lora_alpha": 0.75, "use_rslora": True}, marks=pytest.mark.soak),
        {"alpha_pattern": {"ff_proj": 40, r"blocks\.1\.mlp\.ff_out": 1.5}},
        {"rank_pattern": {"att_proj": 3, "blocks.0.mlp.ff_out": 11}},
        {"rank_pattern": {"ff_out": 2}, "alpha_pattern": {"ff_out": 7.25, "att_proj": 3}, "use_rslora": True},
        {"layers_to_transform": [0], "layers_pattern": "blocks"},
    ],
    ids=str,
)
def test_an_adapter_is_merged_with_the_scale_that_peft_gives_it(tmp_path, switches):
    expected = trained_by_peft(tmp_path, **switches)
    before = bare().state_dict()
    merged = lora.merge_lora(lora.load_adapters(bare(), tmp_path)).state_dict()
    moved = [name for name in expected if not torch.equal(expected[name], before[name])]
    assert moved
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, atol=1e-6, rtol=1e-5)


def test_patterns_reach_the_layers_of_training_side_names(tmp_path):
    from safetensors.torch import load_file, save_file

    expected = trained_by_peft(tmp_path, alpha_pattern={"ff_out": 33}, rank_pattern={"att_proj": 2})
    file, prefix = tmp_path / lora.WEIGHTS_FILE, "base_model.model."
    renamed = {}
    for key, value in load_file(file).items():
        layer, _, end = key.removeprefix(prefix).partition(".lora_")
        renamed[f"{prefix}{to_olmo(f'{layer}.weight').removesuffix('.weight')}.lora_{end}"] = value
    save_file(renamed, file)
    document = json.loads((tmp_path / lora.CONFIG_FILE).read_text())
    document["alpha_pattern"] = {"transformer.blocks.0.ff_out": 33, r"transformer.blocks.1.ff_out": 33}
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps(document))
    merged = lora.merge_lora(lora.load_adapters(bare(), tmp_path)).state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, atol=1e-6, rtol=1e-5)


def test_what_was_loaded_is_saved_with_the_same_scales(tmp_path):
    expected = trained_by_peft(tmp_path / "first", use_rslora=True, alpha_pattern={"ff_proj": 5.5}, rank_pattern={"ff_out": 3})
    lora.save_adapters(lora.load_adapters(bare(), tmp_path / "first"), tmp_path / "second")
    merged = lora.merge_lora(lora.load_adapters(bare(), tmp_path / "second")).state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("bias", "lora_only"),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa_niter_4"),
        ("trainable_token_indices", [3]),
        ("layer_replication", [[0, 1], [0, 2]]),
        ("peft_type", "ADALORA"),
        ("a_switch_of_tomorrow", True),
        ("another_config", {"strength": 2}),
    ],
)
def test_a_switch_that_is_not_computed_here_is_refused_by_name(plain_adapter, tmp_path, field, value):
    shutil.copytree(plain_adapter, tmp_path, dirs_exist_ok=True)
    document = json.loads((tmp_path / lora.CONFIG_FILE).read_text()) | {field: value}
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps(document))
    model = bare()
    with pytest.raises(CheckpointError, match=rf"expected plain LoRA.*got {field} = .*Fix: merge the adapter"):
        lora.load_adapters(model, tmp_path)
    assert not lora.is_adapted(model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": None}, "r: expected a number above 0, got None"),
        ({"r": 2.5}, "r: expected a whole number above 0, got 2.5"),
        ({"lora_alpha": 0}, "lora_alpha: expected a number above 0, got 0"),
        ({"alpha_pattern": {"ff_proj": "8"}}, "alpha_pattern.ff_proj: expected a number above 0, got '8'"),
        ({"alpha_pattern": {"no_such_layer": 8}}, r"alpha_pattern names \['no_such_layer'\], expected layers that the adapter file holds"),
    ],
)
def test_a_damaged_adapter_config_is_refused_with_what_was_expected(plain_adapter, tmp_path, change, said):
    shutil.copytree(plain_adapter, tmp_path, dirs_exist_ok=True)
    document = json.loads((tmp_path / lora.CONFIG_FILE).read_text()) | change
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=f"{said}.*Fix: fetch the adapter folder again"):
        lora.load_adapters(bare(), tmp_path)


def test_every_field_of_the_installed_peft_is_judged_at_its_default(tmp_path):
    from peft import LoraConfig

    document = LoraConfig(r=4, lora_alpha=8).to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in document.items()}
    (tmp_path / lora.CONFIG_FILE).write_text(json.dumps(plain, default=str))
    assert read_adapter_config(tmp_path).rank == 4


def test_adapters_are_not_merged_into_coarse_weights(plain_adapter):
    model = lora.load_adapters(load_pretrained(GOLDEN, dtype=torch.bfloat16), plain_adapter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"merged into float32 weights.*bfloat16.*Fix: load the model with dtype=torch.float32"):
        lora.merge_lora(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
