"""`actwright model ...`: one JSON line, exit codes, and help that teaches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows.commands.models.model import model_app
from model_core.network.checkpoints.hub import open_checkpoint
from model_core.network.presets import molmoact_7b_d

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = GOLDEN / "model"
COMMANDS = ("inspect", "parity", "parity-images", "parity-vqvae", "convert")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(*arguments: object):
    return CliRunner().invoke(model_app, [str(argument) for argument in arguments])


def line(result) -> dict:
    assert len(result.stdout.strip().splitlines()) == 1
    return json.loads(result.stdout)


def changed(family: str, folder: Path, file: str, key: str, change) -> Path:
    shutil.copytree(MODEL / family, folder)
    tensors = load_file(folder / file)
    tensors[key] = change(tensors[key])
    save_file(tensors, folder / file)
    return folder


@pytest.mark.parametrize("family", ["tiny_d", "tiny_o"])
def test_parity_of_the_recordings(family):
    result = run("parity", MODEL / family)
    assert result.exit_code == 0
    report = line(result)
    assert report["max_abs_logit_diff"] <= 1e-4
    assert report["max_abs_feature_diff"] <= 1e-4
    assert report["generated_equal"] is True


@pytest.mark.parametrize(
    ("key", "change", "field"),
    [
        ("logits", lambda value: value + 2e-4, "max_abs_logit_diff"),
        ("image_features", lambda value: value + 2e-4, "max_abs_feature_diff"),
        ("generated", lambda value: value.clone().index_fill_(1, torch.tensor([23]), 3), "generated_equal"),
        ("logits", lambda value: value * float("nan"), "max_abs_logit_diff"),
        ("image_features", lambda value: value[:-1], "max_abs_feature_diff"),
    ],
)
def test_parity_fails_on_any_difference(key, change, field, tmp_path):
    result = run("parity", changed("tiny_d", tmp_path / "m", "io.safetensors", key, change))
    assert result.exit_code == 1
    report = line(result)
    assert report["equal"] is False
    assert report[field] is False or not report[field] <= 1e-4


def test_parity_holds_for_a_left_padded_batch(tmp_path):
    shutil.copytree(MODEL / "tiny_d", tmp_path / "m")
    io = load_file(tmp_path / "m" / "io.safetensors")
    zeros = torch.zeros(1, 3, dtype=torch.long)
    for key in ("input_ids", "attention_mask", "position_ids"):
        io[key] = torch.cat([zeros, io[key]], 1)
    io["logits"] = torch.cat([torch.full((1, 3, 320), 1e9), io["logits"]], 1)
    save_file(io, tmp_path / "m" / "io.safetensors")
    assert run("parity", tmp_path / "m").exit_code == 0


@pytest.mark.parametrize("recording", sorted((MODEL / "image_processor").glob("*.npz")), ids=lambda path: path.stem)
def test_image_parity_with_a_file_and_with_text(recording):
    settings = recording.with_suffix(".json")
    for processor in (settings, settings.read_text()):
        result = run("parity-images", recording, "--processor", processor)
        assert result.exit_code == 0, result.output
        assert line(result)["equal"] is True


def test_image_parity_fails_with_other_settings_or_another_picture(tmp_path):
    recording = MODEL / "image_processor" / "small_single_90x130.npz"
    assert run("parity-images", recording, "--processor", '{"crop_mode": "resize"}').exit_code == 1
    arrays = dict(np.load(recording))
    arrays["in0"] = arrays["in0"][::-1]
    np.savez(tmp_path / "other.npz", **arrays)
    assert run("parity-images", tmp_path / "other.npz", "--processor", recording.with_suffix(".json")).exit_code == 1


def test_vqvae_parity_and_its_failure(tmp_path):
    result = run("parity-vqvae", GOLDEN / "vqvae_small")
    assert result.exit_code == 0, result.output
    report = line(result)
    assert report["codes_equal"] is True
    assert report["max_abs_decoded_diff"] <= 1e-4
    assert report["codes_tied"] <= 5
    shutil.copytree(GOLDEN / "vqvae_small", tmp_path / "v")
    weights = load_file(tmp_path / "v" / "model.safetensors")
    weights["_vq_vae._embedding"] = weights["_vq_vae._embedding"].flip(0)
    save_file(weights, tmp_path / "v" / "model.safetensors")
    broken = run("parity-vqvae", tmp_path / "v")
    assert broken.exit_code == 1
    assert line(broken)["codes_equal"] is False


@pytest.mark.parametrize("command", ["parity", "parity-vqvae", "parity-images", "inspect"])
def test_what_is_not_there_is_a_message_and_exit_2(command, tmp_path):
    result = run(command, tmp_path / "nothing")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "nothing" in result.stderr
    assert "Traceback" not in result.stderr


def test_inspect_tells_architecture_parameters_and_what_is_missing(tmp_path):
    result = run("inspect", MODEL / "tiny_o", "--json")
    assert result.exit_code == 0
    report = line(result)
    assert report["weights"]["layout"] == "published"
    assert report["parameters"]["total"] == sum(value.numel() for value in load_file(MODEL / "tiny_o" / "model.safetensors").values())
    assert report["vocabulary"] == {"base_rows": 288, "additional_rows": 16, "image_patch_id": 290, "action_bins": 256}
    assert "post-norm" in report["architecture"]["language"]
    assert any("contract.json" in entry for entry in report["missing"])
    text = run("inspect", MODEL / "tiny_o")
    assert "parameters:" in text.stdout
    assert "missing:" in text.stdout


def test_inspect_lists_every_broken_key_and_exits_1(tmp_path):
    result = run("inspect", changed("tiny_d", tmp_path / "m", "model.safetensors", "lm_head.weight", lambda value: value[:-1]))
    assert result.exit_code == 1
    assert "wrong shape lm_head.weight expected [320, 64], got [319, 64]" in result.stdout


def test_inspect_knows_the_released_networks_without_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(molmoact_7b_d().to_json()))
    result = run("inspect", tmp_path)
    assert result.exit_code == 1  # there is nothing to load
    assert "MolmoAct-7B-D" in result.stdout
    assert "8.119 B" in result.stdout
    assert "no weights" in result.stdout


def test_convert_there_and_back_with_a_dtype(tmp_path):
    there = run("convert", MODEL / "tiny_d", tmp_path / "olmo")
    assert there.exit_code == 0, there.output
    assert line(there)["layout"] == "olmo"
    back = run("convert", tmp_path / "olmo", tmp_path / "published", "--dtype", "bfloat16")
    assert line(back) == {
        "source": str(tmp_path / "olmo"),
        "destination": str(tmp_path / "published"),
        "layout": "published",
        "dtype": "bfloat16",
        "rounded_to_zero": 0,
        "tensors": 103,
        "bytes": line(there)["bytes"] // 2,
        "carried": ["config.json"],
        "notes": [f"{tmp_path / 'olmo'} holds no depth codebook (vae-final.pt or vqvae/), so none came along"],
    }
    expected = load_file(MODEL / "tiny_d" / "model.safetensors")
    found = open_checkpoint(tmp_path / "published").tensors
    assert all(torch.equal(found[key].load(), value.to(torch.bfloat16)) for key, value in expected.items())
    assert run("convert", MODEL / "tiny_d", tmp_path / "published").exit_code == 2


@pytest.mark.parametrize("wrong", [("--to", "keras"), ("--dtype", "int3"), ("--network", "70b")])
def test_convert_refuses_unknown_choices(wrong, tmp_path):
    result = run("convert", MODEL / "tiny_d", tmp_path / "out", *wrong)
    assert result.exit_code == 2
    assert "must be" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: actwright model {command} " in result.stdout


def test_help_does_not_wake_torch():
    code = "import sys\nfrom flows.commands.models.model import model_app\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
