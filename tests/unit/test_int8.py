"""int8 weights: how numbers are rounded, that every way of computing with them is one product, and the copy of a checkpoint as a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.evaluation.decoding.int8_report import ReportFacts, compare_int8
from components.release.package import probe_observations
from components.training.published.networks import open_network
from flows.commands.models.model import model_app
from model_core.adoption.document import LanguageChoices, read_adoption
from model_core.checkpoint import load_checkpoint
from model_core.engine.decode import DecodingEngine
from model_core.engine.kernels.projection import projection_of
from model_core.engine.numerics import Numerics
from model_core.engine.resources import EngineOptions
from model_core.inspection import inspect_checkpoint
from model_core.layout_conversion import ConversionRequest, convert_checkpoint
from model_core.network.int8.conversion import float_network, int8_config, int8_state
from model_core.network.int8.linear import Int8Linear, rounded
from model_core.network.int8.stored import KEY, REPORT, is_int8_folder
from model_core.network.model import MolmoAct
from model_core.port.adopt import AdoptionRequest, adopt
from model_core.port.int8_copy import keep_report, write_int8
from model_core.port.of_checkpoint import port_of
from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.types import DecisionRequest
from tests.engine_data import flat_costs
from tests.fakes import make_embodiment
from tests.plain_loop import plain_answer
from tests.published_checkpoint import KEY as NORM_KEY
from tests.published_checkpoint import published_body, write_published_checkpoint
from tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.xdist_group("int8")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "MolmoAct-small"
    write_published_checkpoint(folder)
    (folder / "modeling_molmoact.py").write_text("raise RuntimeError\n")
    language = LanguageChoices(dtype="bfloat16")
    adopt(folder, AdoptionRequest(embodiment=published_body(), norm_key=NORM_KEY, chunk_length=1, language=language))
    return folder


@pytest.fixture(scope="module")
def copy(adopted: Path) -> Path:
    folder = adopted.with_name("MolmoAct-small-int8")
    write_int8(adopted, folder)
    return folder


def filled(linear: nn.Linear) -> Int8Linear:
    made = Int8Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    with torch.no_grad():
        q_OI, scale_O = rounded(linear.weight)
        made.weight.copy_(q_OI)
        made.weight_scale.copy_(scale_O)
        if made.bias is not None:
            made.bias.copy_(linear.bias)
    return made


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 40), st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_a_number_moves_by_half_a_step_at_most_and_signs_and_zeros_stay(seed: int, outputs: int, inputs: int, size: float):
    weight_OI = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * size
    weight_OI[0, 0] = 0.0
    q_OI, scale_O = rounded(weight_OI)
    moved_OI = (q_OI * scale_O[:, None] - weight_OI).abs()
    assert (moved_OI <= scale_O[:, None] * 0.5000001).all()
    assert q_OI[0, 0] == 0
    assert int(q_OI.min()) >= -127
    assert (q_OI.abs().amax(dim=1) == (weight_OI.abs().amax(dim=1) > 0) * 127).all()


def test_what_no_int8_stands_for_is_refused_with_its_name():
    for value in (float("nan"), float("inf")):
        with pytest.raises(CheckpointError, match=r"blocks\.0\.weight holds NaN or an infinite"):
            rounded(torch.tensor([[1.0, value]]), "blocks.0.weight")


@pytest.mark.parametrize("bias", [True, False])
def test_module_packed_kernel_and_float_weights_give_one_product(bias: bool):
    torch.manual_seed(0)
    linear = nn.Linear(48, 40, bias=bias)
    layer, x_nI = filled(linear), torch.randn(33, 48)
    expected = layer(x_nI)
    whole = nn.functional.linear(x_nI, layer.weight * layer.weight_scale[:, None], layer.bias)
    assert torch.allclose(expected, whole, atol=1e-6)
    assert float((expected - linear(x_nI).detach()).abs().max()) > 1e-4, "nothing was rounded"
    for packed in (True, False):
        product = projection_of(layer, torch.float32, packed=packed)
        assert torch.allclose(product(x_nI), expected, atol=1e-5)
        assert torch.equal(product(x_nI)[:16], product(x_nI[:16]))


def test_the_copy_is_another_model_with_the_same_promise(adopted: Path, copy: Path):
    adoption, was = read_adoption(copy), read_adoption(adopted)
    assert (adoption.policy_id, adoption.norm_key) == (was.policy_id, was.norm_key)
    assert (adoption.language.dtype, was.language.dtype) == ("float32", "bfloat16")
    assert adoption.files["config.json"] != was.files["config.json"]
    assert not (copy / "modeling_molmoact.py").exists()
    assert is_int8_folder(copy)
    assert not is_int8_folder(adopted)
    found, original = load_checkpoint(copy), load_checkpoint(adopted)
    assert found.contract == original.contract
    head = found.model.lm_head.requires_grad_(False)
    assert isinstance(head, Int8Linear)
    assert head.weight.dtype is torch.int8
    assert not [name for name, module in found.model.named_modules() if isinstance(module, nn.Linear)]
    stored = original.model.float().lm_head.weight.detach()
    assert float((head.weight * head.weight_scale[:, None] - stored).abs().max()) <= 0.5001 * float(head.weight_scale.max())
    looked = inspect_checkpoint(copy)
    assert looked.broken == []
    assert looked.parameters == inspect_checkpoint(adopted).parameters
    assert "int8" in looked.weights["dtypes"]


def test_its_engine_gives_what_the_plain_loop_over_its_weights_gives(copy: Path):
    checkpoint = load_checkpoint(copy)
    port = port_of(checkpoint)
    (asked,) = probe_observations(checkpoint.contract, 1, None)
    question = port.question(DecisionRequest(observation=asked), "full")
    options = EngineOptions(costs=flat_costs(1), numerics=Numerics(tile=4, bound=0.0))
    answer = DecodingEngine(checkpoint.model, port.language, options).decode([question]).answers[0]
    assert answer.ids_L.tolist() == plain_answer(float_network(checkpoint.model), port.language, question)
    with pytest.raises(SpecError, match="int8 weights are decoded with float32 activations"):
        DecodingEngine(checkpoint.model, port.language, replace(options, dtype=torch.bfloat16))


def test_what_is_not_done_with_int8_weights_says_so(copy: Path, adopted: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"has int8 weights already\. Fix: serve it"):
        write_int8(copy, tmp_path / "again")
    with pytest.raises(CheckpointError, match="served and not converted"):
        convert_checkpoint(copy, tmp_path / "olmo", ConversionRequest())
    with pytest.raises(CheckpointError, match="served and not merged with adapters"):
        convert_checkpoint(copy, tmp_path / "merged", ConversionRequest(adapters=tmp_path))
    with pytest.raises(CheckpointError, match=r"train\.network .* has int8 weights, which are served and not trained"):
        open_network(TrainConfig(network=str(copy)))
    request = AdoptionRequest(embodiment=published_body(), norm_key=NORM_KEY, chunk_length=1, language=LanguageChoices(dtype="bfloat16"))
    with pytest.raises(CheckpointError, match=r"bfloat16 was chosen\. Fix: adopt it with --dtype float32"):
        adopt(copy, request, replace=True)
    with pytest.raises(CheckpointError, match="already holds weights"):
        write_int8(adopted, copy)
    assert list(tmp_path.iterdir()) == []


def test_weights_and_config_that_do_not_belong_together(copy: Path, tmp_path: Path):
    config = json.loads((copy / "config.json").read_text())
    for name, changed, said in (
        ("plain", {key: value for key, value in config.items() if key != KEY}, r"unexpected  .*weight_scale"),
        ("other", {**config, KEY: {"quant_method": "bitsandbytes"}}, "quantization_config is .*bitsandbytes.* expected none, or"),
    ):
        shutil.copytree(copy, tmp_path / name, copy_function=lambda source, target: Path(target).hardlink_to(source))
        (tmp_path / name / "config.json").unlink()
        (tmp_path / name / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=said):
            adopt(tmp_path / name, AdoptionRequest(embodiment=published_body(), norm_key=NORM_KEY, chunk_length=1), replace=True)


def test_a_compact_checkpoint_is_copied_sealed_and_compared(tmp_path: Path):
    source, target = tmp_path / "run" / "checkpoint", tmp_path / "arm-int8"
    write_tiny_checkpoint(source, embodiment=make_embodiment(size=32))
    run = CliRunner().invoke(model_app, ["quantize", str(source), str(target), "--decisions", "2"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout.strip().splitlines()[-1])
    report = json.loads((target / REPORT).read_text())
    assert (told["decisions"], told["answered"], report["decisions"]) == (2, 2, 2)
    assert report["answers_equal"] == 2 - len(report["flipped"])
    assert report["bytes"]["int8"] < report["bytes"]["original"]
    assert 0 < report["logit_rms_error"] < report["logit_rms"]
    assert report["logit_rms_error"] <= report["logit_max_error"]
    assert 0 <= report["choices_different"] <= report["choices"]
    assert report["observations"] == "seeded noise images"
    opened = load_checkpoint(target)
    assert isinstance(opened.model.lm_head, Int8Linear)
    assert opened.contract == load_checkpoint(source).contract
    tensors = load_file(target / "model.safetensors")
    name = "lm_head.weight"
    save_file({**tensors, name: tensors[name].float()}, target / "model.safetensors", metadata=sealed(target))
    with pytest.raises(CheckpointError, match=r"wrong type  lm_head\.weight expected int8, got float32"):
        load_checkpoint(target)
    config = json.loads((target / "config.json").read_text())
    del config[KEY]
    (target / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_checkpoint(target)


def sealed(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        return opened.metadata()


def test_the_report_knows_a_copy_that_answers_otherwise_from_one_that_does_not(tmp_path: Path):
    source = tmp_path / "checkpoint"
    write_tiny_checkpoint(source, embodiment=make_embodiment(size=32))
    checkpoint = load_checkpoint(source)
    asked = probe_observations(checkpoint.contract, 1, None)
    facts = ReportFacts(source_digest="", observations="noise", bytes={})
    same = compare_int8(source, source, asked, facts, Silent())
    assert (same.answers_equal, same.choices_different, same.logit_max_error) == (1, 0, 0.0)
    assert set(same.action_max_error.values()) == {0.0}
    write_tiny_checkpoint(tmp_path / "other", embodiment=make_embodiment(size=32), seed=5)
    other = compare_int8(source, tmp_path / "other", asked, facts, Silent())
    assert other.answers_equal == 0
    assert other.choices_different > other.choices // 4
    assert len(other.flipped) == 1
    assert max(other.action_max_error.values()) > 0


def test_the_report_is_one_of_the_files_of_an_adopted_copy(copy: Path):
    keep_report(copy, "{}\n")
    assert REPORT in read_adoption(copy).names
    (copy / REPORT).write_text("{ }\n")
    with pytest.raises(CheckpointError, match=r"int8_report\.json has another content"):
        load_checkpoint(copy)
    keep_report(copy, "{}\n")


@pytest.mark.soak  # short: the plain loop above reads the weights of a copy as float numbers
def test_a_state_comes_back_as_the_numbers_that_it_stands_for():
    from tests.published_checkpoint import published_config, published_network

    network = published_network(published_config(family="o"))
    config = int8_config(network.config)
    small = MolmoAct(config)
    small.load_state_dict(int8_state(network.state_dict(), network.config))
    again = float_network(small)
    assert KEY not in again.config.extras
    worst = max(float((a - b).abs().max()) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert 0 < worst < 0.05 * float(network.lm_head.weight.abs().max())
    assert again is float_network(again)
    assert np.isfinite(worst)
