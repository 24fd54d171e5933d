"""One network of the published layout for two robots: examples, losses, the folder, and the policy of each."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.artifacts.step_manifest import checkpoint_files
from components.config.published.training import ExampleGroup
from components.data.accounting.trained import trained_on
from components.data.frozen_members import open_frozen
from components.release.checkpoint_copy import copy_checkpoint
from components.release.package import probe_observations
from components.training.plan import drawn_samples
from components.training.published.drawing import drawing_order_of, drawing_pairs
from components.training.published.joint.members import check_members
from components.training.published.model import PublishedArm
from components.training.trainable_model import make_trainable
from model_core.adoption.document import read_adoption
from model_core.checkpoint import load_checkpoint, write_part
from model_core.network.config import MolmoActConfig
from model_core.network.finetuning.packing import packed_batch
from model_core.policy import ReasoningPolicy, load_policy
from model_core.port.int8_copy import write_int8
from model_core.spec.errors import CheckpointError, DatasetError
from tests.tiny_arm_data import write_small_frozen
from tests.unit.test_published_training import CONFIG, CONTRACT, PUBLISHED, measured, second_frozen

pytestmark = pytest.mark.xdist_group("published-training")
BOTH = replace(CONFIG, published=replace(PUBLISHED, open_loop_samples=1, validation_samples=1, loss_ids="language"))
NAMES = ("fake-arm", "arm-2-7")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    """One camera and 4 dimensions, two cameras and 7, with statistics of their own; 24 samples each."""
    folder = tmp_path_factory.mktemp("two") / "frozen"
    write_small_frozen(folder / "embodiments" / NAMES[0], CONTRACT, train=24, validation=6)
    second_frozen(folder / "embodiments" / NAMES[1])
    entries = []
    for name in NAMES:
        text = (folder / "embodiments" / name / "manifest.json").read_bytes()
        entries.append({"name": name, "contract_id": json.loads(text)["contract_id"], "manifest_sha256": hashlib.sha256(text).hexdigest()})
    (folder / "manifest.json").write_text(json.dumps({"embodiments": entries}))
    return folder


@pytest.fixture(scope="module")
def arm(frozen) -> PublishedArm:
    made = make_trainable(BOTH, frozen)
    assert isinstance(made, PublishedArm)
    return made


@pytest.fixture(scope="module")
def folder(arm, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "checkpoint"
    arm.export(arm.module.state_dict(), out)
    return out


def test_each_sample_is_made_by_its_own_contract_and_one_row_holds_both(arm):
    one, other = (member.train for member in arm.members)
    assert arm.num_samples == 48
    for place, maker, inside in ((3, one, 3), (27, other, 3)):
        found, expected = arm._train.example(place, "action_reasoning"), maker.example(inside, "action_reasoning")
        assert np.array_equal(found.ids_L, expected.ids_L)
    places = [int(np.flatnonzero(arm._pairs_M2[:, 0] == place)[0]) for place in (3, 27)]
    batch = arm.batch(np.array(places), seed=0, step=0, micro=0)
    with torch.no_grad():
        loss, _ = arm.loss(arm.module, batch)
        alone = []
        for place, kind in zip((3, 27), batch.kinds, strict=True):
            example = replace(arm._train.example(place, kind), weight=1 / arm._divisor(0, 0))
            alone.append(float(arm.loss(arm.module, packed_batch([example]))[0]))
    assert len({example.shape[1] for example in (one.split.images_NVHW3, other.split.images_NVHW3)}) == 2
    assert float(loss) == pytest.approx(sum(alone), rel=1e-5)


def test_groups_draw_sources_of_any_embodiment_and_the_account_knows_whose_they_were(arm, frozen, tmp_path):
    two = shutil.copytree(frozen, tmp_path / "named")
    entries = json.loads((two / "manifest.json").read_text())["embodiments"]
    for entry, source in zip(entries, ("dataset:a", "dataset:b"), strict=True):
        path = two / "embodiments" / entry["name"] / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "sources": [source] * 24}))
        entry["manifest_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (two / "manifest.json").write_text(json.dumps({"embodiments": entries}))
    groups = (ExampleGroup(name="a", rate=0.25, sources=("a",)), ExampleGroup(name="b", rate=0.75, sources=("b",)))
    pairs = drawing_pairs(open_frozen(two), groups)
    assert np.mean(pairs[:, 0] >= 24) == pytest.approx(0.75, abs=0.02)
    assert np.array_equal(pairs[:, 1], pairs[:, 0] >= 24)
    config = replace(BOTH, steps=2, warmup_steps=1, published=replace(BOTH.published, groups=groups))
    rows = {row["source"]: row for row in trained_on(two, lambda size: drawn_samples(config, size), drawing_order_of(config))}
    assert set(rows) == {"dataset:a", "dataset:b"}
    assert sum(row["frames"] for row in rows.values()) == 8, "two steps of four"


def test_held_out_values_are_told_of_both_and_of_each(arm):
    found = measured(arm)
    assert found["validation_loss"] == pytest.approx(np.mean([found[f"validation_loss/{name}"] for name in NAMES]))
    assert "validation_action_error/fake-arm/dx" in found
    assert sum("validation_action_error/arm-2-7/" in name for name in found) == 7


def test_the_folder_has_statistics_and_a_contract_for_each(arm, folder):
    stats = MolmoActConfig.from_json(folder).norm_stats
    assert stats is not None
    assert set(stats) == set(NAMES)
    adoption = read_adoption(folder)
    assert set(adoption.embodiments) == set(NAMES)
    assert {f"contracts/{name}.json" for name in NAMES} < set(checkpoint_files(folder))
    with pytest.raises(CheckpointError, match=r"acts for 2 embodiments \(fake-arm, arm-2-7\); a policy serves one\. Fix: name it"):
        load_policy(folder)
    with pytest.raises(CheckpointError, match="not trained for embodiment 'other'"):
        load_checkpoint(folder, embodiment="other")
    for member in arm.members:
        policy = ReasoningPolicy.of(load_checkpoint(folder, embodiment=member.name))
        assert policy.contract == member.contract
        assert policy.contract.stats != arm.members[member is arm.members[0]].contract.stats
        (asked,) = probe_observations(policy.contract, 1, None)
        decision = policy.decide(asked)
        assert decision.chunk is not None, decision.refusal
        assert decision.chunk.actions_KA.shape == (2, len(policy.contract.embodiment.action))


def test_a_release_holds_the_embodiment_that_it_names_alone(arm, folder, frozen, tmp_path):
    for member in arm.members:
        data = copy_checkpoint(folder, member.name, tmp_path / member.name, frozen)
        assert data == frozen / "embodiments" / member.name
        again = write_part(folder, member.name, tmp_path / f"{member.name}-part")
        for place in (tmp_path / member.name, again):
            found = load_checkpoint(place)
            assert found.contract == member.contract
            assert read_adoption(place).norm_key == member.name
            assert not (place / "contracts").exists()


def test_an_int8_copy_is_of_the_embodiment_that_it_names_alone(arm, folder, tmp_path):
    for member in arm.members:
        copied = write_int8(folder, tmp_path / member.name, embodiment=member.name).folder
        found = load_checkpoint(copied)
        assert found.contract == member.contract
        assert read_adoption(copied).norm_key == member.name
        assert not (copied / "contracts").exists()
    with pytest.raises(CheckpointError, match="a policy serves one"):
        write_int8(folder, tmp_path / "unnamed")


def test_a_contract_that_was_changed_is_refused(arm, folder, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "changed")
    path = changed / "contracts" / "arm-2-7.json"
    contract = arm.members[1].contract
    slower = replace(contract, embodiment=replace(contract.embodiment, control_hz=5.0))
    path.write_text(json.dumps(slower.to_json()))
    with pytest.raises(CheckpointError, match=r"the contract of arm-2-7 in .* it was changed since"):
        load_checkpoint(changed, embodiment="arm-2-7")


def test_codebooks_that_differ_are_refused(arm):
    first, second = (member.contract for member in arm.members)
    with pytest.raises(DatasetError, match="need one depth codebook"):
        check_members([first, replace(second, reasoning=replace(second.reasoning, codebook_digest="f" * 64))])
