"""A checkpoint is rewritten between layouts with everything that makes it a policy, and comes back as it was."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from components.config.recipe import PackageConfig
from components.release.checkpoint_copy import copy_checkpoint
from components.release.package import write_bundle
from model_core.adoption.document import LanguageChoices, read_adoption
from model_core.bundle import MANIFEST, checked_manifest, file_digests
from model_core.checkpoint import load_checkpoint
from model_core.contracts import CONTRACT
from model_core.layout_conversion import ConversionRequest, convert_checkpoint
from model_core.network.checkpoints.hub import load_pretrained
from model_core.port.adopt import AdoptionRequest, adopt
from model_core.spec.errors import CheckpointError
from model_core.tokenization.depth.codec import DepthCodec
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.inference.golden_probes import failed_golden_probes
from tests.fakes import make_embodiment
from tests.published_checkpoint import KEY, published_body, write_published_checkpoint
from tests.tiny_checkpoint import write_tiny_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = ConversionRequest()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "MolmoAct-small"
    write_published_checkpoint(folder)
    DepthCodec.load(GOLDEN / "vqvae_small").save(folder / "vqvae")
    for name, content in (("modeling_molmoact.py", "raise RuntimeError\n"), ("chat_template.json", "{}"), ("notes.txt", "mine")):
        (folder / name).write_text(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16", "auto_map": {"AutoConfig": "a.B"}}))
    language = LanguageChoices(wording="finetuned", dtype="bfloat16")
    adopt(folder, AdoptionRequest(embodiment=published_body(), norm_key=KEY, chunk_length=8, language=language))
    return folder


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_pretrained(folder).named_parameters())


def equal_bits(one: Path, other: Path) -> bool:
    mine, theirs = bits(one), bits(other)
    return mine.keys() == theirs.keys() and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine
    )


def test_an_adopted_folder_goes_there_and_comes_back_adopted(adopted: Path, tmp_path: Path):
    there = convert_checkpoint(adopted, tmp_path / "olmo", PLAIN)
    assert there.files.layout == "olmo"
    assert "not served" in there.notes[-1]
    with pytest.raises(CheckpointError, match=r"holds model\.pt, which is a pickle .* Fix: actwright model convert"):
        load_checkpoint(tmp_path / "olmo")
    back = convert_checkpoint(tmp_path / "olmo", tmp_path / "back", PLAIN)
    assert back.files.layout == "published"
    assert equal_bits(tmp_path / "back", adopted)
    for name in (
        CONTRACT,
        "qwen.tiktoken",
        "preprocessor_config.json",
        "generation_config.json",
        "modeling_molmoact.py",
        "chat_template.json",
    ):
        assert (tmp_path / "back" / name).read_bytes() == (adopted / name).read_bytes(), name
        assert name in there.carried
        assert name in back.carried
    assert not (tmp_path / "back" / "notes.txt").exists()
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (adopted, tmp_path / "back"))
    assert first == second
    assert second["norm_stats"][KEY]["num_transitions"] == 1000
    opened, original = load_checkpoint(tmp_path / "back"), load_checkpoint(adopted)
    assert opened.contract == original.contract
    assert opened.depth_codec is not None
    assert opened.depth_codec.digest == original.depth_codec.digest  # type: ignore[union-attr]
    adoption, was = read_adoption(tmp_path / "back"), read_adoption(adopted)
    assert (adoption.language, adoption.norm_key, adoption.policy_id) == (was.language, was.norm_key, was.policy_id)
    assert set(adoption.files) == {*was.files} - {"model.safetensors.index.json"}, "one file of weights holds them now"


def test_another_number_format_is_said_where_the_published_loader_reads_it(adopted: Path, tmp_path: Path):
    made = convert_checkpoint(adopted, tmp_path / "wide", ConversionRequest(target="published", dtype=torch.float32))
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["torch_dtype"] == "float32"
    assert {stored.dtype for stored in made.files.tensors.values()} == {torch.float32}
    read_adoption(tmp_path / "wide").check(tmp_path / "wide")


def test_a_folder_that_changed_since_it_was_adopted_is_not_carried_on(adopted: Path, tmp_path: Path):
    changed = tmp_path / "changed"
    shutil.copytree(adopted, changed)
    (changed / "generation_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"generation_config\.json has another content than when this folder was adopted"):
        convert_checkpoint(changed, tmp_path / "out", PLAIN)
    assert not (tmp_path / "out").exists()


def test_a_compact_checkpoint_comes_back_byte_for_byte(tmp_path: Path):
    write_tiny_checkpoint(tmp_path / "tiny", embodiment=make_embodiment(size=32))
    convert_checkpoint(tmp_path / "tiny", tmp_path / "olmo", PLAIN)
    convert_checkpoint(tmp_path / "olmo", tmp_path / "back", PLAIN)
    files = {path.relative_to(tmp_path / "tiny") for path in (tmp_path / "tiny").rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*") if path.is_file()} == files
    for name in files:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "tiny" / name).read_bytes(), name
    assert load_checkpoint(tmp_path / "back").contract == load_checkpoint(tmp_path / "tiny").contract


# short: the files alone are listed and compared
@pytest.mark.parametrize("served", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["listed", "served"])
def test_what_came_back_is_packed_under_its_digests_and_a_changed_byte_is_refused(adopted: Path, tmp_path: Path, served: bool):
    convert_checkpoint(adopted, tmp_path / "olmo", PLAIN)
    convert_checkpoint(tmp_path / "olmo", tmp_path / "back", PLAIN)
    bundle = tmp_path / "bundle"
    if served:
        write_bundle(PackageConfig(golden_probes=1), tmp_path / "back", "back/1", bundle, None)
        opened = open_bundle(bundle)
        assert (opened.model_version, len(opened.probes)) == ("back/1", 1)
        assert failed_golden_probes(opened.policy, opened.contract, opened.probes) == []
    else:
        copy_checkpoint(tmp_path / "back", "", bundle / "checkpoint", None)
        document = {"model_version": "back/1", "contract_id": "c0ffee", "files": file_digests(bundle)}
        (bundle / MANIFEST).write_text(json.dumps(document))
    listed = checked_manifest(bundle).files
    assert {
        f"checkpoint/{name}" for name in ("model.safetensors", "config.json", "contract.json", "qwen.tiktoken", "adoption.json")
    } <= set(listed)
    assert not [name for name in listed if name.endswith(".py")]
    for name in sorted(listed):
        whole = (bundle / name).read_bytes()
        place = len(whole) // 2
        (bundle / name).unlink()  # the weights are links
        (bundle / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match=rf"{re.escape(name)} is not what was packed: expected sha256"):
            (open_bundle if served else checked_manifest)(bundle)
        (bundle / name).write_bytes(whole)
    checked_manifest(bundle)
