"""Checkpoint folders: both layouts, shards, dtypes, atomic writes, and one error that lists everything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_core.network.checkpoints import hub, layout
from model_core.network.checkpoints.hub import load_pretrained, save_pretrained
from model_core.network.checkpoints.weights import read_header
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.network.model import MolmoAct
from model_core.network.presets import molmoact_7b_d, molmoact_7b_o
from model_core.spec.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
FAMILIES = ("tiny_d", "tiny_o")


def weights_of(family: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / family / "model.safetensors")


def same(model: MolmoAct, expected: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], value) for key, value in expected.items())


def copied(family: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / family / name, folder / name)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_one_file_and_shards_load_alike(family, tmp_path):
    model = load_pretrained(GOLDEN / family)
    assert same(model, weights_of(family))
    assert not model.training
    save_pretrained(model, tmp_path / "single")
    save_pretrained(model, tmp_path / "shards", max_shard_bytes=100_000, processor=ImageProcessor())
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert "model.safetensors.index.json" in names
    assert sum(name.startswith("model-0000") for name in names) > 3
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == weights_of(family).keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights_of(family).values())
    for folder in ("single", "shards"):
        assert same(load_pretrained(tmp_path / folder), weights_of(family))
    assert ImageProcessor.from_json(tmp_path / "shards") == ImageProcessor()
    assert MolmoActConfig.from_json(tmp_path / "single") == model.config


def test_saving_again_leaves_no_shard_of_before_and_no_temporary_file(tmp_path):
    model = load_pretrained(GOLDEN / "tiny_d")
    save_pretrained(model, tmp_path, max_shard_bytes=100_000)
    save_pretrained(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_come_in_the_wanted_dtype(family, dtype, tmp_path):
    model = load_pretrained(GOLDEN / family, dtype=dtype)
    assert same(model, {key: value.to(dtype) for key, value in weights_of(family).items()})
    save_pretrained(model, tmp_path, dtype=torch.bfloat16)
    assert {stored.dtype for stored in hub.open_checkpoint(tmp_path).tensors.values()} == {torch.bfloat16}


def test_large_tensors_are_copied_in_pieces(tmp_path, monkeypatch):
    values = {
        "a": torch.arange(10_007, dtype=torch.float32),
        "b": torch.arange(5).to(torch.bfloat16),
        "c": torch.zeros(0, 3),
        "d": torch.tensor(7),
    }
    save_file(values, tmp_path / "x.safetensors")
    monkeypatch.setattr("model_core.network.checkpoints.weights.PIECE_BYTES", 4096)
    for key, stored in read_header(tmp_path / "x.safetensors"):
        assert torch.equal(stored.load(), values[key])
        assert stored.load(torch.float16).dtype == torch.float16


@pytest.mark.parametrize("family", FAMILIES)
def test_training_side_layout_and_back(family, tmp_path):
    olmo = hub.convert(GOLDEN / family, tmp_path / "olmo")
    assert olmo.layout == "olmo"
    state = torch.load(tmp_path / "olmo" / "model.pt", weights_only=True)
    assert "transformer.ff_out.weight" in state
    assert "transformer.blocks.0.att_proj.weight" in state
    assert "vision_backbone.image_vit.positional_embedding" in state
    assert same(load_pretrained(tmp_path / "olmo"), weights_of(family))
    back = hub.convert(tmp_path / "olmo", tmp_path / "back", max_shard_bytes=200_000)
    assert back.layout == "published"
    assert same(load_pretrained(tmp_path / "back"), weights_of(family))


def test_training_side_folder_without_config_json_needs_to_be_told(tmp_path):
    config = MolmoActConfig.from_json(GOLDEN / "tiny_d")
    hub.convert(GOLDEN / "tiny_d", tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "config.yaml")
    with pytest.raises(CheckpointError, match="training-side folder"):
        load_pretrained(tmp_path)
    assert same(load_pretrained(tmp_path, config=config), weights_of("tiny_d"))


@pytest.mark.parametrize("config", [molmoact_7b_d(), molmoact_7b_o()], ids=["7B-D", "7B-O"])
def test_key_names_of_the_two_layouts_are_a_bijection(config):
    published = list(layout.expected_shapes(config))
    olmo = [layout.to_olmo(key) for key in published]
    assert len(set(olmo)) == len(published)
    assert [layout.to_published(key) for key in olmo] == published
    assert not any(".self_attn." in key or ".mlp." in key or key.startswith("model.") for key in olmo)
    assert (layout.detect_layout(published), layout.detect_layout(olmo)) == ("published", "olmo")


def test_conversion_copies_what_lies_beside_and_refuses_to_mix_with_other_weights(tmp_path):
    source = copied("tiny_d", tmp_path / "source")
    (source / "tokenizer.json").write_text("{}")
    hub.convert(source, tmp_path / "out", target="published", dtype=torch.bfloat16)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    with pytest.raises(CheckpointError, match="already holds weights"):
        hub.convert(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match="same folder"):
        hub.convert(source, source)


def test_every_wrong_missing_and_extra_key_is_in_one_error(tmp_path):
    folder = copied("tiny_d", tmp_path)
    weights = weights_of("tiny_d")
    del weights["lm_head.weight"], weights["model.transformer.blocks.1.mlp.ff_out.weight"]
    weights["model.transformer.ln_f.weight"] = torch.zeros(63)
    weights["model.transformer.blocks.3.attn_norm.weight"] = torch.zeros(64)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(folder)
    text = str(caught.value)
    assert "4 keys do not fit" in text
    for line in (
        "missing     lm_head.weight [320, 64]",
        "missing     model.transformer.blocks.1.mlp.ff_out.weight [64, 96]",
        "unexpected  model.transformer.blocks.3.attn_norm.weight [64]",
        "wrong shape model.transformer.ln_f.weight expected [64], got [63]",
    ):
        assert line in text


def test_padding_embedding_in_the_weights_is_used_although_the_config_is_silent(tmp_path):
    folder = copied("tiny_o", tmp_path)
    weights = weights_of("tiny_o")
    weights[layout.PAD_EMBED] = torch.ones(2, 96)
    save_file(weights, folder / "model.safetensors")
    model = load_pretrained(folder)
    assert model.config.adapter.image_padding_embed == "pad_and_partial_pad"
    assert torch.equal(model.model.vision_backbone.pad_embed, torch.ones(2, 96))


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    shutil.copyfile(GOLDEN / "tiny_d" / "config.json", tmp_path / "config.json")
    torch.save({"a": Bomb()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="weights-only"):
        load_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_torn_and_incomplete_checkpoints_are_named(tmp_path):
    folder = copied("tiny_d", tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="is torn"):
        load_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights in"):
        load_pretrained(folder)
    shards = tmp_path / "shards"
    save_pretrained(load_pretrained(GOLDEN / "tiny_d"), shards, max_shard_bytes=100_000)
    sorted(shards.glob("model-*"))[0].unlink()
    with pytest.raises(CheckpointError, match=r"model-00001-of-\d+.safetensors, which is not there"):
        load_pretrained(shards)
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_pretrained(shards)


def test_a_hub_id_says_clearly_that_the_hub_was_not_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"taken for a hub id.*Without a network"):
        load_pretrained("allenai/MolmoAct-7B-D-0812")
    with pytest.raises(CheckpointError, match="expected a folder or a hub id"):
        load_pretrained("/no/such/folder")


def test_a_snapshot_from_the_hub_is_loaded(monkeypatch):
    asked = {}

    def snapshot_download(repo, revision=None, allow_patterns=None, local_files_only=False):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns, kept_only=local_files_only)
        return str(GOLDEN / "tiny_d")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert same(load_pretrained("owner/name", revision="abc"), weights_of("tiny_d"))
    assert (asked["repo"], asked["revision"], asked["kept_only"]) == ("owner/name", "abc", False)
    assert not any(pattern.endswith((".py", ".bin", "model.pt")) for pattern in asked["patterns"])
