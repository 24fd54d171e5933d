"""Several embodiments in one training set: each with statistics, cameras and words of its own, and one network that acts for all.

Run: .venv/bin/python -m pytest tests/unit/test_several_embodiments.py -n 0
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import GateConfig, PackageConfig
from components.config.records import EvalReport, Interval, Silent
from components.config.train_config import TrainConfig
from components.data.accounting.trained import trained_on
from components.data.annotate import annotate
from components.data.freeze import freeze
from components.data.frozen_dataset import load_split, read_frozen
from components.data.frozen_members import open_frozen
from components.data.sources.open import open_raw
from components.data.sources.unlabelled import hand_on
from components.data.validate import validate
from components.evaluation.gate import gate
from components.release.package import write_bundle
from components.training.tiny.batches import BatchMaker
from components.training.tiny.joint_batches import per_embodiment
from components.training.tiny_model import make_tiny_arm
from model_core.checkpoint import load_checkpoint, write_part
from model_core.contracts import read_contracts
from model_core.embodiments import joint_config, joint_layout
from model_core.network.config import MolmoActConfig
from model_core.spec.contract import mismatches
from model_core.spec.errors import CheckpointError, DatasetError, GateError, SpecError
from model_core.tiny import TinySize, tiny_config
from model_core.tokenization.compact.layout import Field, ReasoningMode
from model_core.training import answer_loss, hidden_states
from tests.two_robots import GANTRY_FILE, indexed, two_sources

EPISODES = 4
SMALL = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 1, "feed_forward": 64, "projector": 32, "stem": (8, 16)}
CONFIG = TrainConfig(network=SMALL, steps=10, warmup_steps=1, global_batch=16, micro_batch=16)
FREEZE = FreezeConfig(name="two", validation_fraction=0.25, chunk_length=4, execute_horizon=2)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return two_sources(tmp_path_factory.mktemp("robots"), EPISODES, interventions=True)


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    """(folder of the frozen set of both robots, record of the stage)."""
    root = tmp_path_factory.mktemp("frozen")
    raw = indexed(sources, root / "raw")
    hand_on(open_raw(raw).rows, root / "labels")
    return root / "out", freeze(FREEZE, raw, root / "labels", root / "out", Silent())


@pytest.fixture(scope="module")
def arm(made):
    return make_tiny_arm(CONFIG, made[0])


@pytest.fixture(scope="module")
def checkpoint(arm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    arm.export(arm.module.state_dict(), folder)
    return folder


def alone(source, root):
    """The frozen set of one of the robots, as it is without the other."""
    raw = indexed([source], root / "raw")
    hand_on(open_raw(raw).rows, root / "labels")
    freeze(FREEZE, raw, root / "labels", root / "out", Silent())
    return root / "out"


# --- the frozen set -------------------------------------------------------------------------------------------------------


def test_each_embodiment_is_frozen_as_it_would_be_alone(made, sources, tmp_path):
    """Byte for byte: statistics, masks, cameras, words and samples of one know nothing of the other's."""
    for source in sources:
        mine, beside = alone(source, tmp_path / source.name), open_frozen(made[0])
        contract = read_frozen(mine)[1]
        member = beside.member(contract.embodiment.name)
        assert member.contract == contract
        names = sorted(path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(member.folder).as_posix() for path in member.folder.rglob("*") if path.is_file())
        for name in names:
            assert (mine / name).read_bytes() == (member.folder / name).read_bytes(), name


def test_the_record_sums_and_names_the_embodiments(made):
    out, record = made
    assert list(record["embodiments"]) == ["bench-arm", "gantry"]
    assert record["episodes"] == 2 * EPISODES == sum(one["episodes"] for one in record["embodiments"].values())
    assert record["train_frames"] + record["validation_frames"] == record["frames"]
    assert "contract_id" not in record
    with pytest.raises(DatasetError, match=r"of several embodiments \(bench-arm, gantry\)"):
        read_frozen(out)


def test_a_member_that_was_exchanged_is_refused(made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "out")
    path = out / "embodiments/gantry/manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "instructions": ["follow the cat"]}))
    with pytest.raises(DatasetError, match=r"gantry is not what was frozen"):
        open_frozen(out)


def test_interventions_are_frozen_counted_and_told(made):
    out, record = made
    split = load_split(out / "embodiments/gantry", "train")
    assert split.intervention_N is not None
    assert split.intervention_N.dtype == bool
    frames = sum(int(load_split(out / "embodiments/gantry", name).intervention_N.sum()) for name in ("train", "validation"))
    counted = record["embodiments"]["gantry"]["interventions"]
    assert counted == {"stated": EPISODES, "episodes": EPISODES // 2, "stretches": EPISODES // 2, "frames": frames}
    assert frames == EPISODES // 2 * 10
    assert load_split(out / "embodiments/bench-arm", "train").intervention_N is None
    assert "interventions" not in record["embodiments"]["bench-arm"]
    rows = {row["source"]: row for row in record["account"]}
    assert rows["dataset:gantry"]["intervened"] == frames
    assert "intervened" not in rows["dataset:bench"]
    assert any("gantry: a person acted in 20 frames" in note for note in record["notes"])


def test_weights_hold_across_embodiments(sources, tmp_path):
    raw = indexed(sources, tmp_path / "raw", bench=1.0, gantry=3.0)
    hand_on(open_raw(raw).rows, tmp_path / "labels")
    freeze(FREEZE, raw, tmp_path / "labels", tmp_path / "out", Silent())
    frozen = open_frozen(tmp_path / "out")
    order_N2 = frozen.order("train")
    counts = {m.name: len(load_split(m.folder, "train")) for m in frozen.members}
    assert (order_N2[:, 0] == 0).sum() == counts["bench-arm"]
    assert (order_N2[:, 0] == 1).sum() == 3 * counts["gantry"]
    assert make_tiny_arm(CONFIG, tmp_path / "out").num_samples == counts["bench-arm"] + 3 * counts["gantry"]
    account = {row["source"]: row["frames"] for row in trained_on(tmp_path / "out", lambda count: np.arange(count))}
    assert account == {"dataset:bench": counts["bench-arm"], "dataset:gantry": counts["gantry"]}


# --- faults ---------------------------------------------------------------------------------------------------------------


def test_one_name_with_two_contents_is_refused(sources, tmp_path):
    (tmp_path / "other.yaml").write_text(GANTRY_FILE.replace("name: gantry", "name: bench-arm"))
    mixed = [sources[0], replace(sources[1], embodiment=str(tmp_path / "other.yaml"))]
    raw = indexed(mixed, tmp_path / "raw")
    with pytest.raises(DatasetError, match=r"'bench' and 'gantry' are of different embodiments .*give each embodiment a name of its own"):
        open_raw(raw)


@pytest.mark.parametrize(("name", "said"), [("Bench-Arm", "differ in capital letters only"), ("../gantry", "needs a name of letters")])
def test_names_that_cannot_stand_beside_each_other_are_refused(sources, tmp_path, name, said):
    (tmp_path / "other.yaml").write_text(GANTRY_FILE.replace("name: gantry", f"name: {name}"))
    mixed = [sources[0], replace(sources[1], embodiment=str(tmp_path / "other.yaml"))]
    with pytest.raises(SpecError, match=said):
        open_raw(indexed(mixed, tmp_path / "raw"))


def test_an_embodiment_of_which_nothing_is_left_is_refused(sources, tmp_path):
    raw = indexed(sources, tmp_path / "raw")
    hand_on([row for row in open_raw(raw).rows if "bench" in row.episode_id], tmp_path / "labels")
    with pytest.raises(DatasetError, match=r"embodiment 'gantry': expected at least two episodes .* got none of 4"):
        freeze(FREEZE, raw, tmp_path / "labels", tmp_path / "out", Silent())


@pytest.mark.xdist_group("gx")  # one worker imports Great Expectations
def test_validation_judges_each_embodiment_by_its_own_limits(sources, tmp_path):
    raw = indexed(sources, tmp_path / "raw")
    cfg = ValidateConfig(min_frames=4, data_docs=False)
    record = validate(cfg, raw, tmp_path / "valid", Silent())
    assert record["valid"] == 2 * EPISODES
    assert set(record["inspection"]) == {"bench-arm", "gantry"}
    assert (tmp_path / "valid/embodiments/gantry/inspection.json").is_file()
    # gantry's episodes have 20 frames, the bench arm's 24
    with pytest.raises(GateError, match=r"embodiment 'gantry': none of its 4 episodes is good; first .*frames"):
        validate(replace(cfg, min_frames=22, max_bad_fraction=0.9), raw, tmp_path / "again", Silent())
    assert len(list((tmp_path / "again/quarantine").glob("*.json"))) == EPISODES
    nothing = AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS)
    assert annotate(nothing, raw, tmp_path / "valid/valid.json", tmp_path / "labels", Silent())["episodes"] == 2 * EPISODES


# --- one network ----------------------------------------------------------------------------------------------------------


def test_words_and_slots_of_equal_meaning_are_shared_and_others_are_not(arm):
    bench, gantry = arm.joint.layouts.values()
    assert bench.vocabulary == gantry.vocabulary
    assert arm.joint.vocabulary.words == ("follow", "green", "lamp", "red", "square", "the")
    rows_bench, rows_gantry = arm.joint.slot_rows["bench-arm"], arm.joint.slot_rows["gantry"]
    for field, slots in bench.slots.items():
        other = gantry.slots[field]
        mine, theirs = set(rows_bench[slots.start : slots.stop]), set(rows_gantry[other.start : other.stop])
        if field in (Field.WORD, Field.MODE, Field.DEPTH, Field.TRACE):
            assert mine == theirs
        elif field is not Field.PAD:
            assert not mine & theirs
            assert len(theirs) == len(other)
    assert set(rows_bench) | set(rows_gantry) == set(range(arm.joint.num_slots))
    assert arm.module.model.transformer.slot_embedding.shape[0] == arm.joint.num_slots


def test_a_step_draws_both_and_its_loss_is_the_mean_over_samples(arm):
    batch = arm.batch(np.arange(arm.num_samples), seed=0, step=0, micro=0)
    assert {name: len(part) for name, part in batch.parts.items()} == {m.name: len(m.train) for m in arm.members}
    assert batch.parts["bench-arm"].images_BVHW3.shape[1:] == (2, 32, 32, 3)
    assert batch.parts["gantry"].images_BVHW3.shape[1:] == (1, 40, 48, 3)
    loss, parts = arm.loss(arm.module, batch)
    each = {m.name: float(answer_loss(arm.module, batch.parts[m.name], m.layout, arm._loss)[0]) for m in arm.members}
    mean = sum(each[m.name] * len(m.train) for m in arm.members) / arm.num_samples
    assert float(loss) == pytest.approx(mean, rel=1e-5)
    shown = per_embodiment({"loss": float(loss), **{name: float(value) for name, value in parts.items()}})
    assert shown["loss/gantry"] == pytest.approx(each["gantry"], rel=1e-5)
    assert not any(name.startswith("share/") for name in shown)
    only = arm.batch(np.flatnonzero(arm._order[:, 0] == 1)[:4], seed=0, step=0, micro=0)
    _, parts = arm.loss(arm.module, only)
    assert set(parts) == {"loss_action", "accuracy_action", *(f"{kind}/{m.name}" for kind in ("loss", "share") for m in arm.members)}
    assert "loss/bench-arm" not in per_embodiment({name: float(value) for name, value in parts.items()})


def test_the_numbers_of_a_sample_are_those_of_its_own_contract(arm):
    for member in arm.members:
        split = load_split(member.frozen.folder, "train")
        layout, stats = member.layout, member.contract.stats
        batch = member.train.batch(np.arange(2), ReasoningMode.ACTION)
        bins_NA = batch.ids_BL[:, layout.prompt_length :].numpy()[:, : layout.action_dims] - (layout.vocabulary.action.start - 1)
        low_A, high_A = np.array(stats.q01), np.array(stats.q99)
        share_NA = (split.actions_NKA[:2, 0] - low_A) / (high_A - low_A)
        expected_NA = 1 + np.clip(share_NA, 0, 1) * 255
        assert np.abs(bins_NA - expected_NA)[:, np.array(stats.mask)].max() <= 1


def test_the_part_of_an_embodiment_is_an_ordinary_network_that_computes_the_same(arm, checkpoint):
    for member in arm.members:
        part = load_checkpoint(checkpoint, embodiment=member.name)
        own = part.layout
        assert own.vocabulary.words == member.contract.words
        assert part.model.config == tiny_config(own, TinySize.of(SMALL))
        together = member.in_network(member.train.batch(np.arange(3), ReasoningMode.ACTION))
        apart = BatchMaker(load_split(member.frozen.folder, "train"), own, part.contract).batch(np.arange(3), ReasoningMode.ACTION)
        arm.module.eval()
        with torch.no_grad():
            whole = hidden_states(arm.module, together.images_BVHW3, together.ids_BL, together.slots_BL, member.layout)
            small = hidden_states(part.model, apart.images_BVHW3, apart.ids_BL, apart.slots_BL, own)
        assert torch.allclose(whole, small, atol=1e-5)
        ids, theirs = member.layout.vocabulary.action, own.vocabulary.action
        assert torch.equal(arm.module.lm_head.weight[ids.start : ids.stop], part.model.lm_head.weight[theirs.start : theirs.stop])


def test_a_checkpoint_of_several_must_be_asked_for_one(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"acts for 2 embodiments \(bench-arm, gantry\); .*Fix: name it"):
        load_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match=r"not trained for embodiment 'aloha'; it acts for bench-arm, gantry"):
        load_checkpoint(checkpoint, embodiment="aloha")
    part = write_part(checkpoint, "gantry", tmp_path / "gantry")
    assert load_checkpoint(part).contract == read_contracts(checkpoint)["gantry"]
    assert list(read_contracts(part)) == ["gantry"]
    with pytest.raises(CheckpointError, match="not trained for embodiment 'bench-arm'"):
        load_checkpoint(part, embodiment="bench-arm")


@pytest.mark.parametrize("damage", ["missing", "exchanged", "renamed"])
def test_contracts_that_are_not_those_of_the_weights_are_refused(checkpoint, tmp_path, damage):
    torn = shutil.copytree(checkpoint, tmp_path / "torn")
    path = torn / "contracts/gantry.json"
    if damage == "missing":
        path.unlink()
    elif damage == "renamed":
        path.rename(torn / "contracts/other.json")
    else:
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "dataset_version": "another"}))
    with pytest.raises(CheckpointError, match=r"belong together|lie beside|not the one that"):
        load_checkpoint(torn, embodiment="gantry")


def test_a_package_carries_one_embodiment_and_refuses_to_guess(checkpoint, made, tmp_path):
    cfg = PackageConfig(reasoning="action", golden_probes=2)
    with pytest.raises(CheckpointError, match=r"acts for 2 embodiments \(bench-arm, gantry\)"):
        write_bundle(cfg, checkpoint, "two/1", tmp_path / "none", made[0])
    for name in ("bench-arm", "gantry"):
        bundle = tmp_path / name
        _, probes = write_bundle(replace(cfg, embodiment=name), checkpoint, "two/1", bundle, made[0])
        assert probes == 2
        assert list(read_contracts(bundle / "checkpoint")) == [name]
        assert load_checkpoint(bundle / "checkpoint").contract.embodiment.name == name
        assert (
            mismatches(load_checkpoint(bundle / "checkpoint").contract.embodiment, open_frozen(made[0]).member(name).contract.embodiment)
            == []
        )


def test_a_network_of_several_sizes_refuses_another_image(arm):
    with pytest.raises(SpecError, match=r"an image of 16x16 pixels; this network reads 32x32 and 40x48"):
        arm.module.config.vit.position_rows(16, 16)
    stored = MolmoActConfig.from_json(json.loads(json.dumps(arm.module.config.to_json())))
    assert stored == arm.module.config


def test_embodiments_of_different_codebooks_do_not_share_a_network(arm):
    bench, gantry = arm.contracts
    other = replace(gantry, reasoning=replace(gantry.reasoning, codebook_digest="f" * 64))
    with pytest.raises(CheckpointError, match="need one depth codebook"):
        joint_layout([bench, other], TinySize.of(SMALL), ["follow the lamp"])
    assert joint_config(arm.joint, TinySize.of(SMALL)) == arm.module.config


# --- going on from a checkpoint -------------------------------------------------------------------------------------------


def test_a_training_of_one_goes_on_from_its_part_of_several(checkpoint, sources, tmp_path):
    frozen = alone(sources[1], tmp_path)
    arm = make_tiny_arm(replace(CONFIG, init_from=str(checkpoint)), frozen)
    part = load_checkpoint(checkpoint, embodiment="gantry")
    for name, value in part.model.state_dict().items():
        if "slot" not in name:
            assert torch.equal(arm.module.state_dict()[name], value), name


def test_a_training_of_several_goes_on_from_one_of_them(made, sources, tmp_path):
    single = make_tiny_arm(replace(CONFIG, seed=5), alone(sources[1], tmp_path))
    single.export(single.module.state_dict(), tmp_path / "start")
    arm = make_tiny_arm(replace(CONFIG, init_from=str(tmp_path / "start")), made[0])
    arm.export(arm.module.state_dict(), tmp_path / "both")
    part = load_checkpoint(tmp_path / "both", embodiment="gantry").model.state_dict()
    for name, value in single.module.state_dict().items():
        assert torch.equal(part[name], value), name
    fresh = make_tiny_arm(CONFIG, made[0])
    own = set(arm.joint.slot_rows["bench-arm"]) - set(arm.joint.slot_rows["gantry"])
    rows = sorted(own)
    slots = "model.transformer.slot_embedding"
    assert torch.equal(arm.module.state_dict()[slots][rows], fresh.module.state_dict()[slots][rows])
    with pytest.raises(CheckpointError, match=r"does not know the embodiment 'bench-arm', and train.lora_rank trains none of its rows"):
        make_tiny_arm(replace(CONFIG, init_from=str(tmp_path / "start"), lora_rank=2), made[0])


def test_statistics_of_several_are_kept_by_name(checkpoint, sources, tmp_path):
    raw = indexed(sources, tmp_path / "raw")
    hand_on(open_raw(raw).rows, tmp_path / "labels")
    freeze(replace(FREEZE, statistics=str(checkpoint)), raw, tmp_path / "labels", tmp_path / "out", Silent())
    for name, contract in read_contracts(checkpoint).items():
        assert open_frozen(tmp_path / "out").member(name).contract.stats == contract.stats


# --- the gate -------------------------------------------------------------------------------------------------------------


def test_the_gate_asks_the_released_embodiment_and_shows_the_others():
    def report(ratio: float) -> EvalReport:
        return EvalReport(
            checkpoint_digest="a",
            contract_id="b",
            successes=0,
            trials=0,
            interval=Interval(low=0, high=1),
            per_task={},
            episodes=(),
            open_loop={"error_ratio": ratio, "frames": 50.0, "refused": 0.0},
            blindness={"image_swap_change": 0.9},
        )

    verdict = gate(GateConfig(), report(0.2), None, others={"gantry": report(3.0)})
    assert verdict.promote
    assert any("'gantry' the predicted actions are off by 3.00" in reason for reason in verdict.reasons)
    assert not gate(GateConfig(), report(3.0), None, others={"gantry": report(0.2)}).promote
