"""A checkpoint is whole or refused, and equal checkpoints have equal bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.checkpoint import CONFIG, CONTRACT, WEIGHTS, load_checkpoint, write_checkpoint
from model_core.policy import load_policy
from model_core.spec.errors import CheckpointError
from model_core.tokenization.depth.codec import DepthCodec
from tests.tiny_arm_data import make_small_contract, make_small_model

CODEBOOK = Path(__file__).parents[1] / "golden" / "vqvae_small"


@pytest.fixture
def written(tmp_path) -> Path:
    contract = make_small_contract()
    model, _ = make_small_model(contract)
    return write_checkpoint(tmp_path / "checkpoint", state=model.state_dict(), config=model.config, contract=contract)


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_round_trip(written):
    found = load_checkpoint(written)
    model, layout = make_small_model(make_small_contract())
    assert found.contract == make_small_contract()
    assert found.layout == layout
    assert found.depth_codec is None
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in model.state_dict().items())
    assert sorted(p.name for p in written.parent.iterdir()) == ["checkpoint"]


def test_equal_checkpoints_have_equal_bytes(written, tmp_path):
    contract = make_small_contract()
    model, _ = make_small_model(contract)
    state = dict(reversed(list(model.state_dict().items())))
    second = write_checkpoint(tmp_path / "second", state=state, config=model.config, contract=contract)
    assert digests(written) == digests(second)


def test_writing_again_replaces_the_whole_folder(written):
    contract = make_small_contract(chunk_length=2)
    model, _ = make_small_model(contract)
    (written / "stray").write_text("from before")
    write_checkpoint(written, state=model.state_dict(), config=model.config, contract=contract)
    assert load_checkpoint(written).contract.chunk_length == 2
    assert not (written / "stray").exists()


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, CONTRACT])
def test_a_missing_part(written, name):
    (written / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(written)


def test_a_contract_of_another_training(written):
    other = replace(make_small_contract(), dataset_version="another")
    (written / CONTRACT).write_text(json.dumps(other.to_json()))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_checkpoint(written)


def test_a_contract_with_other_words(written):
    other = make_small_contract(words=("go", "here"))
    (written / CONTRACT).write_text(json.dumps(other.to_json()))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_checkpoint(written)


def test_a_config_of_another_network(written):
    document = json.loads((written / CONFIG).read_text())
    document["llm_config"]["num_hidden_layers"] = 1
    (written / CONFIG).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_checkpoint(written)


def test_truncated_weights(written):
    content = (written / WEIGHTS).read_bytes()
    (written / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(written)


def test_a_contract_that_is_no_json(written):
    (written / CONTRACT).write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(written)


def test_config_and_contract_must_fit_before_anything_is_written(tmp_path):
    model, _ = make_small_model(make_small_contract())
    with pytest.raises(CheckpointError, match="num_slots"):
        write_checkpoint(tmp_path / "no", state=model.state_dict(), config=model.config, contract=make_small_contract(chunk_length=2))
    assert not (tmp_path / "no").exists()


def test_the_codebook_travels_and_must_be_the_right_one(tmp_path):
    codebook = tmp_path / "vqvae"
    DepthCodec.load(CODEBOOK).save(codebook)
    digest = DepthCodec.load(codebook).digest
    plain = make_small_contract()
    contract = replace(plain, reasoning=replace(plain.reasoning, codebook_digest=digest))
    model, _ = make_small_model(contract)
    folder = write_checkpoint(tmp_path / "c", state=model.state_dict(), config=model.config, contract=contract, vqvae=codebook)
    codec = load_checkpoint(folder).depth_codec
    assert codec is not None
    assert codec.digest == digest
    shutil.rmtree(folder)
    wrong = replace(plain, reasoning=replace(plain.reasoning, codebook_digest="0" * 64))
    with pytest.raises(CheckpointError, match="codebook"):
        write_checkpoint(folder, state=model.state_dict(), config=model.config, contract=wrong, vqvae=codebook)


def test_load_policy(written):
    policy = load_policy(written, model_version="m/1", reasoning="action")
    assert policy.contract == make_small_contract()
    assert policy.model_version == "m/1"
    assert np.isfinite(policy.contract.stats.q01).all()
