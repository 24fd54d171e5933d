"""Weights of two saves in one folder, and numbers that a smaller dtype cannot hold: the right ones are read, or it is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows.commands.models.model import model_app
from model_core.network.checkpoints.hub import load_pretrained, save_pretrained
from model_core.spec.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "model" / "tiny_d"
HEAD, NORM = "lm_head.weight", "model.transformer.ln_f.weight"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save_pretrained(load_pretrained(GOLDEN), tmp_path / "sharded", max_shard_bytes=100_000)


def places(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def with_values(folder: Path, key: str, *values: float, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A copy of the recorded checkpoint in `dtype`, with these first numbers in one of its tensors."""
    shutil.copytree(GOLDEN, folder)
    tensors = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    tensors[key].view(-1)[: len(values)] = torch.tensor(values, dtype=dtype)
    save_file(tensors, folder / "model.safetensors")
    return folder


def cli(*arguments: object):
    return CliRunner().invoke(model_app, [str(argument) for argument in arguments])


def test_the_index_decides_between_two_copies_of_a_key_and_the_other_is_named(sharded, caplog):
    home = places(sharded)[HEAD]
    other = next(name for name in sorted(set(places(sharded).values()), reverse=True) if name != home)
    shard = load_file(sharded / other)
    save_file(shard | {HEAD: load_file(sharded / home)[HEAD] * 0, "model.of_before": torch.ones(3)}, sharded / other)
    with caplog.at_level(logging.WARNING):
        loaded = load_pretrained(sharded)
    assert torch.equal(loaded.lm_head.weight, load_file(GOLDEN / "model.safetensors")[HEAD])
    assert (
        f"{HEAD} in {other} is not read: model.safetensors.index.json places it in {home}. Fix: fetch index and shards again" in caplog.text
    )
    assert f"model.of_before in {other} is not read: model.safetensors.index.json does not name it." in caplog.text
    shown = json.loads(cli("inspect", "--json", sharded).stdout)["weights"]["not_read"]
    assert [line.split(" is not read")[0] for line in shown] == [f"{HEAD} in {other}", f"model.of_before in {other}"]


def test_a_shard_of_an_earlier_save_is_named_and_not_read(sharded, caplog):
    save_file({HEAD: torch.zeros(2, 2)}, sharded / "model-00009-of-00009.safetensors")
    with caplog.at_level(logging.WARNING):
        load_pretrained(sharded)
    assert "model-00009-of-00009.safetensors is not read: model.safetensors.index.json does not name it. Fix: move it away" in caplog.text


def test_a_key_that_only_another_shard_holds_is_lost(sharded):
    home = places(sharded)[HEAD]
    shard = load_file(sharded / home)
    head = shard.pop(HEAD)
    save_file(shard, sharded / home)
    other = next(name for name in set(places(sharded).values()) if name != home)
    save_file(load_file(sharded / other) | {HEAD: head}, sharded / other)
    with pytest.raises(CheckpointError, match=rf"promises keys that the shards it names for them do not hold: \['{HEAD}'\]"):
        load_pretrained(sharded)


@pytest.mark.parametrize("beside", ["model.safetensors", "model.pt"])
def test_two_sets_of_weights_in_a_folder_are_refused_by_every_command(sharded, beside, tmp_path):
    if beside.endswith(".pt"):
        torch.save({"a": torch.zeros(1)}, sharded / beside)
    else:
        shutil.copy(GOLDEN / beside, sharded / beside)
    said = f"holds weights 2 times (model.safetensors.index.json, {beside}), and nothing says which of them are meant. Fix: keep one set"
    converted = cli("convert", sharded, tmp_path / "out", "--to", "published")
    assert (converted.exit_code, said in converted.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
    inspected = cli("inspect", "--json", sharded)
    assert (inspected.exit_code, said in json.loads(inspected.stdout)["broken"][0]) == (1, True)


def test_shards_without_their_index_are_refused(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"it holds model-00001-of-\d+.safetensors and no model.safetensors.index.json. Fix: fetch"):
        load_pretrained(sharded)


@pytest.mark.parametrize("to", ["published", "olmo"])
def test_a_conversion_that_makes_numbers_infinite_is_refused_with_their_count(tmp_path, to):
    source = with_values(tmp_path / "in", HEAD, 1e5, -2e6, 60000.0)
    result = cli("convert", source, tmp_path / "out", "--to", to, "--dtype", "float16")
    assert result.exit_code == 2
    assert "2 weights are finite and too large for float16, in which they would be infinite:\n  2 in lm_head.weight" in result.stderr
    assert "Fix: choose bfloat16 or float32" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_conversion_that_makes_numbers_zero_says_how_many(tmp_path):
    source = with_values(tmp_path / "in", NORM, 1e-9, -3e-12, 0.0, 6e-8)
    result = cli("convert", source, tmp_path / "out", "--to", "published", "--dtype", "float16")
    assert result.exit_code == 0
    kept = load_file(tmp_path / "out" / "model.safetensors")
    lost = sum(int(((value != 0) & (kept[name] == 0)).sum()) for name, value in load_file(source / "model.safetensors").items())
    assert lost >= 2
    assert json.loads(result.stdout.splitlines()[-1])["rounded_to_zero"] == lost


def test_wider_numbers_lose_nothing_and_an_infinity_that_was_there_stays_one(tmp_path):
    source = with_values(tmp_path / "in", HEAD, 1e38, float("inf"))
    result = cli("convert", source, tmp_path / "out", "--to", "published", "--dtype", "float32")
    assert (result.exit_code, json.loads(result.stdout.splitlines()[-1])["rounded_to_zero"]) == (0, 0)
    first = load_file(tmp_path / "out" / "model.safetensors")[HEAD].view(-1)[:2]
    assert first[0] == torch.tensor(1e38, dtype=torch.bfloat16).float()
    assert torch.isinf(first[1])


@pytest.mark.parametrize(("dtype", "value"), [(torch.float16, 7e4), (torch.bfloat16, 3.4e38)])
def test_loading_and_saving_refuse_what_the_dtype_cannot_hold(tmp_path, dtype, value):
    source = with_values(tmp_path / "in", HEAD, value, dtype=torch.float32)
    with pytest.raises(CheckpointError, match="1 weights are finite and too large"):
        load_pretrained(source, dtype=dtype)
    with pytest.raises(CheckpointError, match="1 weights are finite and too large"):
        save_pretrained(load_pretrained(source), tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()
