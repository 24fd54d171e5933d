"""A folder in the published layout is adopted, or refused with one reason, before anything large is read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts.step_manifest import checkpoint_digest
from components.release.bundle import find_packed
from components.release.checkpoint_copy import copy_checkpoint
from model_core.adoption.document import ADOPTION, LanguageChoices, read_adoption
from model_core.adoption.loading import PublishedParts
from model_core.checkpoint import load_checkpoint
from model_core.contracts import CONTRACT
from model_core.network.checkpoints import weights as weight_files
from model_core.port.adopt import Adopted, AdoptionRequest, adopt
from model_core.port.adopt_beside import adopt_beside
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, CheckpointError, ContractError, SpecError
from model_core.tokenization.depth.codec import DepthCodec
from tests.fakes import make_embodiment
from tests.published_checkpoint import KEY, norm_stats, published_body, write_published_checkpoint
from tests.tiny_checkpoint import write_tiny_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "checkpoint"
    write_published_checkpoint(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The same files, by links: a test may change any of them by putting another one in its place."""
    copy = tmp_path / "MolmoAct-small"
    shutil.copytree(written, copy, copy_function=lambda source, target: Path(target).hardlink_to(source))
    return copy


def asked(**changes: Any) -> AdoptionRequest:
    return AdoptionRequest(**{"embodiment": published_body(), "norm_key": KEY, "chunk_length": 8, **changes})


def change_json(path: Path, change) -> None:
    document = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(change(document) or document))


def test_the_contract_says_what_files_and_person_said(folder: Path):
    made = adopt(folder, asked(execute_horizon=4))
    contract = PolicyContract.from_json(json.loads((folder / CONTRACT).read_text()))
    assert contract == made.contract
    assert contract.embodiment == published_body()
    stats = norm_stats()[KEY]["action"]
    assert (list(contract.stats.q01), list(contract.stats.q99)) == (stats["q01"], stats["q99"])
    assert contract.stats.mask == (True,) * 6 + (False,)
    assert contract.stats.count == 1000
    assert (contract.chunk_length, contract.execute_horizon) == (8, 4)
    assert (contract.reasoning.spelling, contract.reasoning.levels) == ("published", ("full", "reuse-depth"))
    assert contract.words == ()
    adoption = read_adoption(folder)
    assert adoption == made.adoption
    assert set(adoption.weights) == {path.name for path in folder.glob("*.safetensors")}
    assert len(adoption.weights) > 1
    assert {"config.json", "qwen.tiktoken", "preprocessor_config.json", INDEX} <= set(adoption.files)
    told = " ".join(made.notes)
    for part in ("order: front", "no depth codebook", "decoding constrained", "stored as bfloat16"):
        assert part in told
    found = load_checkpoint(folder)
    assert found.contract == contract
    assert found.model.lm_head.weight.dtype == torch.float32
    with pytest.raises(CheckpointError, match="published language"):
        _ = found.layout


def without(name: str):
    return lambda folder: (folder / name).unlink()


def config(**changes: Any):
    return lambda folder: change_json(folder / "config.json", lambda document: {**document, **changes})


def stats(**changes: Any):
    def change(folder: Path) -> None:
        def put(document: dict) -> None:
            document["norm_stats"][KEY]["action"] |= changes

        change_json(folder / "config.json", put)

    return change


def processor(**changes: Any):
    return lambda folder: change_json(folder / "preprocessor_config.json", lambda document: {**document, **changes})


def two_keys(folder: Path) -> None:
    change_json(folder / "config.json", lambda document: {**document, "norm_stats": norm_stats(keys=("bridge", "fractal"))})


def other_rows(folder: Path) -> None:
    def change(document: dict) -> None:
        document["llm_config"]["vocab_size"] = 100_864
        document["image_patch_id"] = 100_866

    change_json(folder / "config.json", change)


def no_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def torn_shard(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[0]
    content = path.read_bytes()[:200_000]
    path.unlink()
    path.write_bytes(content)


def pickled(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    (folder / "model.pt").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "changes", "kind", "said"),
    [
        (no_shard, {}, CheckpointError, r"names the shard model-\d+-of-\d+\.safetensors, which is not there"),
        (torn_shard, {}, CheckpointError, "torn"),
        (without(INDEX), {}, CheckpointError, "no model.safetensors.index.json"),
        (pickled, {}, CheckpointError, "pickle and is not served. Fix: actwright model convert"),
        (other_rows, {}, CheckpointError, "another vocabulary .* rows before the image tokens: tokenizer 152064, config.json 100864"),
        (config(image_patch_id=152_069), {}, CheckpointError, "id of <im_patch>: tokenizer 152066, config.json 152069"),
        (without("qwen.tiktoken"), {}, CheckpointError, "holds no tokenizer; expected tokenizer.json"),
        (config(norm_stats={}), {}, CheckpointError, "norm_stats is missing or empty"),
        (config(norm_stats=None), {}, CheckpointError, "norm_stats is missing or empty"),
        (two_keys, {"norm_key": ""}, CheckpointError, r"has 2 keys \(bridge, fractal\); none was chosen. Fix: name one with --norm-key"),
        (two_keys, {}, CheckpointError, "has no key 'robot'; it has bridge, fractal"),
        (lambda _: None, {"norm_key": ""}, CheckpointError, r"has 1 keys \(robot\); none was chosen"),
        (stats(q99=[1.0] * 6), {}, ContractError, "q01 has 7 and q99 6 dimensions"),
        (stats(q99=[1.0, "a"]), {}, CheckpointError, "q99 as a list of finite numbers"),
        (stats(mask=[True] * 6), {}, CheckpointError, "mask as 7 truth values"),
        (stats(mask=None), {}, ContractError, "the statistics have no mask. Fix: state which"),
        (stats(mask=[True] * 7), {}, ContractError, "the mask says that the last dimension is normalised"),
        (stats(q01=[9.0] * 7), {}, CheckpointError, "q01 must not exceed q99"),
        (without("preprocessor_config.json"), {}, CheckpointError, "how images are cut and scaled is not known"),
        (processor(base_image_input_size=[378, 378]), {}, CheckpointError, r"base_image_input_size is \(378, 378\), the network"),
        (processor(image_pooling_h=1), {}, CheckpointError, r"image_pooling_w is \(1, 2\), the network"),
        (processor(resize_mode="cubic"), {}, CheckpointError, "resize_mode must be one of"),
        (lambda _: None, {"embodiment": make_embodiment()}, ContractError, "q01 has 7 and q99 7 dimensions, the embodiment has 4"),
        (lambda _: None, {"embodiment": published_body(dims=14)}, ContractError, "the embodiment has 14"),
        (without("config.json"), {}, CheckpointError, r"no config at .*config\.json"),
        (config(n_action_bins=128), {}, CheckpointError, "n_action_bins is 128"),
        (config(llm_config={"vocab_size": 152064}), {}, CheckpointError, "does not describe a network"),
    ],
)  # fmt: skip
def test_a_bad_folder_is_refused_with_one_reason_before_a_weight_is_read(folder, damage, changes, kind, said, monkeypatch):
    def read(*_: object, **__: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(weight_files.StoredTensor, "load", read)
    damage(folder)
    with pytest.raises(kind, match=said):
        adopt(folder, asked(**changes))
    assert not (folder / CONTRACT).exists()
    assert not (folder / ADOPTION).exists()


def test_positions_that_do_not_hold_prompt_and_answer(folder: Path):
    change_json(folder / "config.json", lambda document: document["llm_config"].update(max_position_embeddings=700))
    with pytest.raises(CheckpointError, match="the network has positions for 700"):
        adopt(folder, asked())


@pytest.mark.parametrize("changes", [{"chunk_length": 0}, {"chunk_length": 65}, {"execute_horizon": 9}])
def test_a_chunk_that_is_none(changes):
    with pytest.raises(SpecError, match="must be 1"):
        asked(**changes)


def test_what_is_odd_is_told(folder: Path):
    change_json(folder / "config.json", lambda document: document["norm_stats"][KEY]["action"].update(q99=[3.0] * 7))
    made = adopt(folder, asked(embodiment=replace(published_body(), gripper_open=-1.0)))
    told = " ".join(made.notes)
    for part in ("-1 opens", "action x: answers reach -0.1..3", "allows -1..1"):
        assert part in told


def test_a_contract_is_not_overwritten_unasked(folder: Path):
    first = adopt(folder, asked())
    with pytest.raises(CheckpointError, match="--replace"):
        adopt(folder, asked(chunk_length=1))
    second = adopt(folder, asked(chunk_length=1), replace=True)
    assert second.contract.contract_id != first.contract.contract_id
    assert load_checkpoint(folder).contract == second.contract


def test_a_folder_that_changed_after_it_was_adopted_is_not_opened(folder: Path):
    adopt(folder, asked())
    (folder / "notes.txt").write_text("of no meaning")
    load_checkpoint(folder)
    processor(max_crops=2)(folder)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json has another content than when this folder was adopted"):
        load_checkpoint(folder)
    adopt(folder, asked(), replace=True)
    change_json(folder / CONTRACT, lambda document: document["embodiment"].update(control_hz=20.0))
    with pytest.raises(CheckpointError, match="it was changed since"):
        load_checkpoint(folder)
    adopt(folder, asked(), replace=True)
    torn_shard(folder)
    with pytest.raises(CheckpointError, match="expected the weights that were adopted"):
        load_checkpoint(folder)


def test_a_folder_that_was_not_adopted_says_what_to_type(folder: Path):
    for opened in (load_checkpoint, find_packed):
        with pytest.raises(CheckpointError, match="actwright model adopt"):
            opened(folder)


def test_a_compact_checkpoint_is_not_adopted(tmp_path: Path):
    write_tiny_checkpoint(tmp_path / "tiny", embodiment=make_embodiment(size=32))
    with pytest.raises(CheckpointError, match="compact language"):
        adopt(tmp_path / "tiny", asked())
    with pytest.raises(ActwrightError, match="no such folder"):
        adopt(tmp_path / "nothing", asked())


def test_a_published_codebook_is_kept_in_our_format(folder: Path):
    codec = DepthCodec.load(GOLDEN / "vqvae_small")
    codec.save(folder / "vqvae")
    made: Adopted = adopt(folder, asked())
    assert made.contract.reasoning.codebook_digest == codec.digest
    assert load_checkpoint(folder).depth_codec.digest == codec.digest
    shutil.rmtree(folder / "vqvae")
    with pytest.raises(CheckpointError, match="vqvae"):
        load_checkpoint(folder)


def test_only_what_serving_reads_is_packed(folder: Path, tmp_path: Path):
    adopt(folder, asked(language=LanguageChoices(decoding="faithful")))
    digest = checkpoint_digest(folder)
    (folder / "modeling_molmoact.py").write_text("raise RuntimeError\n")
    (folder / "depth_anything_v2_vitb.pth").write_bytes(b"\x80")
    assert checkpoint_digest(folder) == digest
    copy_checkpoint(folder, "", tmp_path / "copy", None)
    assert not list((tmp_path / "copy").glob("*.p*"))
    assert load_checkpoint(tmp_path / "copy").contract == load_checkpoint(folder).contract


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def second(tmp_path: Path, **changes: Any) -> AdoptionRequest:
    """Two cameras and fourteen dimensions, with statistics in a file of their own."""
    path = tmp_path / "dataset_statistics.json"
    path.write_text(json.dumps(norm_stats(14, ("bimanual",))))
    language = LanguageChoices(decoding="faithful")
    body = published_body(views=2, dims=14)
    return asked(**{"embodiment": body, "norm_key": "bimanual", "chunk_length": 1, "statistics": path, "language": language, **changes})


def test_a_second_embodiment_is_adopted_beside_the_first_of_which_no_byte_changes(folder: Path, tmp_path: Path):
    first = adopt(folder, asked()).contract
    before = files_of(folder)
    copy_checkpoint(folder, "", tmp_path / "before", None)
    made = adopt_beside(folder, second(tmp_path))
    added = made.contract
    after = files_of(folder)
    assert {name for name in after if after[name] != before.get(name)} == {ADOPTION, "contracts/arm-1-7.json", "contracts/arm-2-14.json"}
    assert after["contracts/arm-1-7.json"] == before[CONTRACT]
    assert list(added.stats.q01) == norm_stats(14)[KEY]["action"]["q01"]
    assert made.adoption.of("arm-2-14").norm_key == "bimanual"
    copy_checkpoint(folder, first.embodiment.name, tmp_path / "after", None)
    assert files_of(tmp_path / "after") == files_of(tmp_path / "before"), "what is released of the first is what it was"
    copy_checkpoint(folder, added.embodiment.name, tmp_path / "second", None)
    assert load_checkpoint(tmp_path / "second").contract == added
    with pytest.raises(CheckpointError, match=r"acts for 2 embodiments \(arm-1-7, arm-2-14\); a policy serves one\. Fix: name it"):
        load_checkpoint(folder)
    for contract, decoding in ((first, "constrained"), (added, "faithful")):
        found = load_checkpoint(folder, embodiment=contract.embodiment.name)
        assert found.contract == contract
        assert isinstance(found.language, PublishedParts)
        assert found.language.choices.decoding == decoding
    adopt_beside(folder, asked(embodiment=replace(published_body(), name="third")))
    assert set(read_adoption(folder).embodiments) == {"arm-1-7", "arm-2-14", "third"}
    assert load_checkpoint(folder, embodiment="arm-2-14").contract == added


def test_what_cannot_stand_beside_is_refused_and_changes_nothing(folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"not adopted for any robot yet\. Fix: adopt it without --beside"):
        adopt_beside(folder, second(tmp_path))
    adopt(folder, asked())
    before = files_of(folder)
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    for changes, kind, said in (
        ({"embodiment": published_body()}, CheckpointError, "acts for 'arm-1-7' already. Fix: serve it with --embodiment arm-1-7"),
        ({"embodiment": replace(published_body(dims=14), name="Arm-1-7")}, SpecError, "differ in capital letters only"),
        ({"embodiment": published_body(views=2)}, ContractError, r"dataset_statistics.json\['bimanual'\]: q01 has 14 .* embodiment has 7"),
        ({"norm_key": ""}, CheckpointError, r"dataset_statistics.json has 1 keys \(bimanual\); none was chosen"),
        ({"statistics": None}, CheckpointError, "has no key 'bimanual'; it has robot"),
        ({"statistics": empty}, CheckpointError, r"empty.json: expected \{\"KEY\""),
    ):
        with pytest.raises(kind, match=said):
            adopt_beside(folder, second(tmp_path, **changes))
        assert files_of(folder) == before
    processor(max_crops=2)(folder)
    with pytest.raises(CheckpointError, match="has another content than when this folder was adopted"):
        adopt_beside(folder, second(tmp_path))
