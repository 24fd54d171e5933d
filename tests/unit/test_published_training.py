"""A network of the published layout on a frozen data set: its examples, how they are drawn, one loss for any split, what is trained."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from components.config.published import networks
from components.config.published.training import ExampleGroup, PartRates, PublishedTraining
from components.config.train_config import TrainConfig
from components.data.frozen_dataset import load_split
from components.data.frozen_members import open_frozen
from components.release.package import probe_observations
from components.training.optimizer.groups import groups_of
from components.training.plan import batch_indices
from components.training.published import augmentation
from components.training.published.checkpoint import norm_stats, write_published
from components.training.published.drawing import check_possible, drawing_pairs, drawn_kinds
from components.training.published.examples import ExampleMaker
from components.training.published.model import PublishedArm
from components.training.published.open_loop import merged
from components.training.published.parts import trained_counts
from components.training.published.shapes import check_network_folder, network_shape
from components.training.published.validation import language_ids
from components.training.trainable_model import LoraModel, load_trainable_model, parts_of
from flows.commands.overrides import with_changes
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages.training import check_start
from model_core.network.checkpoints.hub import load_pretrained, save_pretrained
from model_core.network.presets import SmallSize
from model_core.policy import load_policy
from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.errors import CheckpointError, DatasetError, SpecError
from model_core.spec.execution.guard import Guarded
from model_core.spec.protocol.wire import Hello, Ready, Reject
from model_core.spec.stats import UnnormStats
from model_core.spec.types import ActionReasoning, RefusalCode, Trace
from model_core.tokenization.published.grammar import Form
from model_core.tokenization.published.parse import parse_answer
from model_core.tokenization.published.text_encoding import packaged_table
from serving.gateway.sessions.handshake import Accepted, greet
from tests.published_checkpoint import DIMS_7, published_body
from tests.tiny_arm_data import make_small_contract, write_small_frozen

pytestmark = pytest.mark.xdist_group("published-training")
NETWORK = {
    "preset": "tiny-published",
    "width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "feed_forward": 48, "projector": 32,
    "vision_width": 16, "vision_layers": 2, "image_side": 56,
}  # fmt: skip
SETTINGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json")
EVERY = {"action_reasoning": 0.4, "trajectory_conditioned": 0.2, "depth": 0.2, "trace": 0.2}
PUBLISHED = PublishedTraining(
    groups=(ExampleGroup(name="all", kinds=EVERY),), open_loop_samples=2, validation_samples=2, loss_rows=64, recompute=False
)
CONFIG = TrainConfig(network=NETWORK, steps=20, warmup_steps=2, global_batch=4, micro_batch=2, published=PUBLISHED, learning_rate=1e-3)
CONTRACT = make_small_contract(chunk_length=2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("published") / "data", CONTRACT, train=24, validation=6)


@pytest.fixture(scope="module")
def arm(frozen) -> PublishedArm:
    return PublishedArm(CONFIG, frozen)


@cache
def tokenizer():
    return network_shape(CONFIG).tokenizer


def text(ids) -> str:
    return tokenizer().decode(ids)


def test_what_a_recipe_knows_of_the_small_network_is_true():
    from dataclasses import fields

    assert tuple(one.name for one in fields(SmallSize)) == networks.SMALL_FIELDS


@pytest.mark.parametrize(("kind", "form"), [("action_reasoning", Form.FULL), ("depth", Form.DEPTH), ("trace", Form.TRACE)])
def test_examples_are_read_back_as_the_sample(arm, kind, form):
    maker = arm.members[0].train
    example, taught = maker.example(3, kind), maker.reasoning(3)
    assert example.ids_L[-1] == tokenizer().special.eos
    answer = text(example.ids_L[example.answer_start : -1])
    found = parse_answer(form, answer, chunk_length=2, action_dims=4)
    assert isinstance(found, ActionReasoning)
    if kind != "trace":
        assert found.depth is not None
        assert np.array_equal(found.depth.codes_G, taught.depth.codes_G)
    if kind != "depth":
        assert np.array_equal(found.trace.points_N2, taught.trace.points_N2)
    if kind == "action_reasoning":
        assert np.array_equal(found.bins_KA, taught.bins_KA)
    prompt = text(example.ids_L[: example.answer_start])
    assert prompt.startswith("User: The task is stay here.")
    assert prompt.endswith(" Assistant:")
    patches = int((example.ids_L == tokenizer().special.im_patch).sum())
    assert patches == len(example.images.pooled_patches_idx_N4)


def test_a_conditioned_example_shows_its_trajectory_and_states_actions_alone(arm):
    maker = arm.members[0].train
    example = maker.example(3, "trajectory_conditioned")
    answer = text(example.ids_L[example.answer_start :])
    assert answer.startswith(" Based on the image and the annotated trajectory of the end effector, the action")
    assert "DEPTH" not in answer
    plain = maker.example(3, "action_reasoning")
    assert not np.array_equal(example.images.images_CPD, plain.images.images_CPD), "the line is drawn"
    other = replace(maker.split, images_NVHW3=maker.split.images_NVHW3.copy())
    assert np.array_equal(maker.split.images_NVHW3, other.images_NVHW3), "into a copy"


def test_bins_are_applied_when_an_example_is_made(frozen):
    split = load_split(frozen, "train")
    wide = replace(CONTRACT, stats=replace(CONTRACT.stats, q01=(-4.0,) * 4, q99=(4.0,) * 4))
    shape = network_shape(CONFIG)
    narrow_bins, wide_bins = (ExampleMaker(split, one, shape).bins_NKA for one in (CONTRACT, wide))
    assert (np.abs(wide_bins - 128) <= np.abs(narrow_bins - 128)).all()
    assert (wide_bins != narrow_bins).any()


def test_kinds_are_drawn_at_their_weights_and_only_where_they_can_be_made(arm, frozen):
    possible = arm.members[0].train.possible()
    assert possible["action_reasoning"].all()
    assert not possible["trajectory_conditioned"].all(), "a trajectory of one point draws nothing"
    pairs = np.tile(drawing_pairs(open_frozen(frozen), PUBLISHED.groups), (80, 1))
    kinds = drawn_kinds(pairs, PUBLISHED.groups, possible, (0, 0, 0))
    assert kinds == drawn_kinds(pairs, PUBLISHED.groups, possible, (0, 0, 0))
    assert kinds != drawn_kinds(pairs, PUBLISHED.groups, possible, (0, 1, 0))
    for (place, _), kind in zip(pairs, kinds, strict=True):
        assert possible[kind][place]
    drawable = [kind for (place, _), kind in zip(pairs, kinds, strict=True) if possible["trajectory_conditioned"][place]]
    shares = {kind: count / len(drawable) for kind, count in Counter(drawable).items()}
    assert shares == pytest.approx(EVERY, abs=0.06)


def test_samples_of_which_nothing_can_be_made_are_told(frozen):
    groups = (ExampleGroup(name="drawn", kinds={"trajectory_conditioned": 1.0}),)
    maker = ExampleMaker(load_split(frozen, "train"), CONTRACT, network_shape(CONFIG))
    with pytest.raises(DatasetError, match=r"group 'drawn': of \d+ of 24 samples none of trajectory_conditioned can be made"):
        check_possible(drawing_pairs(open_frozen(frozen), groups), groups, maker.possible())
    bare = ExampleMaker(replace(maker.split, depth_codes_NG=None), CONTRACT, network_shape(CONFIG)).possible()
    assert not bare["depth"].any()
    assert not bare["action_reasoning"].any()


def with_sources(frozen: Path, folder: Path, sources: list[str], **more) -> Path:
    import shutil

    shutil.copytree(frozen, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sources": sources, **more}))
    return folder


def test_groups_are_drawn_at_their_rates_and_sources_by_the_root_of_their_size(frozen, tmp_path):
    # 24 episodes of one sample each: 16 of a, 4 of b, 4 of c
    named = with_sources(frozen, tmp_path / "named", ["dataset:a"] * 16 + ["dataset:b"] * 4 + ["dataset:c"] * 4)
    groups = (ExampleGroup(name="two", rate=0.6, sources=("a", "b")), ExampleGroup(name="one", rate=0.4, sources=("c",)))
    pairs = drawing_pairs(open_frozen(named), groups)
    counts = Counter("a" if place < 16 else "b" if place < 20 else "c" for place, _ in pairs)
    shares = {name: count / len(pairs) for name, count in counts.items()}
    assert shares == pytest.approx({"a": 0.6 * 4 / 6, "b": 0.6 * 2 / 6, "c": 0.4}, abs=0.03)
    assert {int(number) for place, number in pairs if place >= 20} == {1}
    with pytest.raises(DatasetError, match=r"group 'x': no source 'd'; the data are of dataset:a, dataset:b, dataset:c"):
        drawing_pairs(open_frozen(named), (ExampleGroup(name="x", sources=("d",)), groups[1]))
    weighted = with_sources(frozen, tmp_path / "weighted", ["dataset:a"] * 24, weights=[1.0] * 24)
    with pytest.raises(SpecError, match="both say how often"):
        drawing_pairs(open_frozen(weighted), (ExampleGroup(name="x", sources=("a",)),))


def step_gradients(arm: PublishedArm, config: TrainConfig, step: int = 3):
    """The loss and gradient of one optimiser step, as the engine averages its micro batches."""
    arm.module.zero_grad()
    indices, total = batch_indices(config.seed, step, config.global_batch, arm.num_samples), 0.0
    micros = config.global_batch // config.micro_batch
    for micro in range(micros):
        batch = arm.batch(indices[micro * config.micro_batch : (micro + 1) * config.micro_batch], seed=config.seed, step=step, micro=micro)
        loss, _ = arm.loss(arm.module, batch)
        (loss / micros).backward()
        total += float(loss.detach()) / micros
    return total, {name: p.grad.clone() for name, p in arm.module.named_parameters() if p.grad is not None}


def measured(arm) -> dict[str, float]:
    """What a training measures on held-out samples, in the way that it does."""
    with torch.no_grad():
        return arm.validate(arm.module)


@pytest.mark.soak  # short: their losses and gradients in test_published_packing, and a step of several rows below
def test_packed_and_padded_steps_are_equal(frozen):
    packed = PublishedArm(CONFIG, frozen)
    padded_config = replace(CONFIG, published=replace(PUBLISHED, packing=False, max_tokens=700))
    padded = PublishedArm(padded_config, frozen)
    loss, grads = step_gradients(packed, CONFIG)
    other, other_grads = step_gradients(padded, padded_config)
    assert loss == pytest.approx(other, rel=1e-6)
    for name, gradient in grads.items():
        if not name.endswith("wk.bias"):
            assert (gradient - other_grads[name]).abs().max() <= 2e-5 * gradient.abs().max().clamp(min=1e-4), name


def test_a_step_is_the_mean_over_all_its_answer_tokens(arm):
    """Also where micro batches hold different numbers of them: the published divisor is of the whole batch."""
    from components.training.published.batches import make_batch

    loss, _ = step_gradients(arm, CONFIG)
    indices = batch_indices(CONFIG.seed, 3, 4, arm.num_samples)
    examples = []
    for micro in range(2):
        pairs = arm._pairs_M2[indices[2 * micro : 2 * micro + 2]]
        kinds = drawn_kinds(pairs, PUBLISHED.groups, arm._possible, (CONFIG.seed, 3, micro))
        examples += [arm.members[0].train.example(int(place), kind) for place, kind in zip(pairs[:, 0], kinds, strict=True)]
    whole = make_batch(examples, PUBLISHED, 0, sum(example.answer_tokens for example in examples))
    with torch.no_grad():
        assert float(arm.loss(arm.module, whole)[0]) == pytest.approx(loss, rel=1e-6)


def test_the_ids_of_the_language_are_all_that_its_answers_hold(arm):
    ids = language_ids(arm.members[0].train, PUBLISHED)
    assert len(ids) < 2_000
    for place in range(24):
        for kind, possible in arm.members[0].train.possible().items():
            if possible[place]:
                assert np.isin(arm.members[0].train.answer_ids(place, kind), ids).all()
    few = replace(CONFIG, published=replace(PUBLISHED, loss_ids="language"))
    restricted = PublishedArm(few, arm.frozen.folder)
    loss, grads = step_gradients(restricted, few)
    assert loss < step_gradients(arm, CONFIG)[0], "fewer ids compete"
    assert not grads["lm_head.weight"][np.setdiff1d(np.arange(200), ids)].any()


def test_it_learns_and_validates(frozen):
    config = replace(CONFIG, learning_rate=3e-3, published=replace(PUBLISHED, loss_ids="language"))
    arm = PublishedArm(config, frozen)
    before = measured(arm)
    assert {"validation_loss", "validation_loss/depth", "validation_accuracy/trace", "validation_action_error/dx"} <= set(before)
    optimizer = torch.optim.AdamW(arm.module.parameters(), lr=3e-3)
    arm.module.train()
    for step in range(12):
        step_gradients(arm, config, step)
        optimizer.step()
    after = measured(arm)
    assert after["validation_loss"] < 0.9 * before["validation_loss"]
    assert all(np.isfinite(value) for value in after.values())


def test_actions_are_answered_in_float32_inside_a_training_in_bfloat16(arm):
    """As the trained policy is served: a machine with bf16 products trains under autocast, where losses are measured too."""
    in_float32 = measured(arm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_bfloat16 = measured(arm)
    assert in_bfloat16["validation_loss"] != in_float32["validation_loss"]
    errors = [name for name in in_float32 if name.startswith("validation_action_error/")]
    assert errors
    assert [in_bfloat16[name] for name in errors] == [in_float32[name] for name in errors]


def test_parts_and_rates(frozen):
    rates = PartRates(connector=5e-4, vit=2e-4)
    config = replace(CONFIG, published=replace(PUBLISHED, learning_rates=rates))
    arm = PublishedArm(config, frozen)
    parts = parts_of(arm)
    assert {part.name: part.rate for part in parts} == pytest.approx({"llm": 1.0, "connector": 0.5, "vit": 0.2})
    counts = trained_counts(parts, arm.module)
    assert counts["llm"] + counts["connector"] + counts["vit"] == counts["all"]
    wte = arm.module.model.transformer.wte
    connector = next(part for part in parts if part.name == "connector").parameters
    assert any(one is wte.new_embedding for one in connector), "the rows of image tokens are trained with the connector"
    groups, relative = groups_of(arm.module, parts, 0.05)
    assert sum(len(group["params"]) for group in groups) == len(list(arm.module.parameters()))
    assert sorted(set(relative)) == pytest.approx([0.2, 0.5, 1.0])


def test_adapters_on_every_linear_layer_are_merged_where_the_engine_reads(frozen, tmp_path):
    config = replace(CONFIG, lora_rank=4, published=replace(PUBLISHED, lora_alpha=2.0, open_loop_samples=1))
    model = load_trainable_model("components.training.trainable_model:make_trainable", config, frozen)
    assert isinstance(model, LoraModel)
    counts = trained_counts(parts_of(model), model.module)
    assert set(counts) == {"llm", "connector", "vit", "all"}
    assert sum(count for name, count in counts.items() if name != "all") < 0.1 * counts["all"]
    adapted = {name for name, one in model.module.named_parameters() if one.requires_grad}
    assert all("lora_" in name for name in adapted)
    assert any(name.startswith("lm_head") for name in adapted)
    optimizer = torch.optim.AdamW([one for one in model.module.parameters() if one.requires_grad], lr=1e-2)
    batch = model.batch(np.arange(2), seed=0, step=0, micro=0)
    for _ in range(3):
        optimizer.zero_grad()
        loss, _ = model.loss(model.module, batch)
        loss.backward()
        optimizer.step()
    kept = {name: value.clone() for name, value in model.module.state_dict().items()}
    with torch.no_grad():
        trained, _ = model.loss(model.module, batch)
        with merged(model.module):
            inside, _ = model.loss(model.module, batch)
    assert float(inside) == pytest.approx(float(trained), rel=1e-4)
    assert all(torch.equal(value, kept[name]) for name, value in model.module.state_dict().items()), "bit for bit as before"
    assert "validation_action_error/dx" in measured(model)
    model.export(model.module.state_dict(), tmp_path / "out")
    again = load_pretrained(tmp_path / "out")
    with torch.no_grad():
        loss, _ = model._inner.loss(again, batch)
    assert float(loss) == pytest.approx(float(trained), rel=1e-4), "the merged folder is the network that was trained"


def test_a_trained_folder_is_a_network_to_start_from(arm, frozen, tmp_path):
    arm.export(arm.module.state_dict(), tmp_path / "first")
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "contract.json"} <= {
        p.name for p in (tmp_path / "first").iterdir()
    }
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert config["norm_stats"] == json.loads(json.dumps(norm_stats([CONTRACT])))
    assert json.loads((tmp_path / "first" / "contract.json").read_text())["reasoning"]["spelling"] == "published"
    following = PublishedArm(replace(CONFIG, network=str(tmp_path / "first"), seed=9), frozen)
    assert all(torch.equal(a, b) for a, b in zip(arm.module.parameters(), following.module.parameters(), strict=True))
    assert following.network.processor == arm.network.processor


def test_a_trained_folder_holds_what_the_published_code_opens(arm, tmp_path):
    arm.export(arm.module.state_dict(), tmp_path / "first")
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    opened = AutoTokenizer.from_pretrained(tmp_path / "first", local_files_only=True)
    assert (opened.padding_side, opened.bos_token_id, opened.eos_token_id, opened.pad_token_id) == ("left", 151643, 151643, 151643)
    for words in ("close the drawer", "1234 naïve 日本語", "  two\n\nlines", "<DEPTH_START><DEPTH_5><DEPTH_END>", "don't WE'LL", "A\u030a"):
        assert opened.encode(words, add_special_tokens=False) == tokenizer().encode(words), words
    special = tokenizer().special
    assert opened.encode("<im_start><im_patch><im_col>", add_special_tokens=False) == [special.im_start, special.im_patch, special.im_col]
    example = arm.members[0].train.example(3, "action_reasoning")
    assert opened.decode(example.ids_L[example.answer_start : -1]) == text(example.ids_L[example.answer_start : -1])
    read = {name: json.loads((tmp_path / "first" / name).read_text()) for name in (*SETTINGS, "config.json")}
    assert read["processor_config.json"]["auto_map"] == {"AutoProcessor": "processing_molmoact.MolmoActProcessor"}
    assert read["preprocessor_config.json"]["auto_map"]["AutoImageProcessor"] == "image_processing_molmoact.MolmoActImageProcessor"
    assert read["config.json"]["auto_map"]["AutoConfig"] == "configuration_molmoact.MolmoActConfig"
    own = {"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}}
    (tmp_path / "first" / "preprocessor_config.json").write_text(json.dumps({**read["preprocessor_config.json"], **own}))
    (tmp_path / "first" / "tokenizer_config.json").write_text("{}")
    following = replace(arm.network, folder=tmp_path / "first")
    write_published(tmp_path / "second", arm.module, following, [arm.members[0].contract], vqvae=None, wording="released")
    kept = json.loads((tmp_path / "second" / "preprocessor_config.json").read_text())
    assert {name: kept[name] for name in own} == own, "the classes that a release names stay"
    assert kept["image_patch_size"] == 14
    assert (tmp_path / "second" / "tokenizer_config.json").read_text() == "{}"
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (tmp_path / "first" / "tokenizer.json").read_bytes()


def test_a_trained_folder_answers_at_once(arm, tmp_path):
    arm.export(arm.module.state_dict(), tmp_path / "first")
    policy = load_policy(tmp_path / "first", model_version="first")
    assert policy.contract == arm.members[0].contract
    (asked,) = probe_observations(policy.contract, 1, None)
    for observation in (asked, replace(asked, steering=Trace(points_N2=np.array([[10, 10], [200, 90]])))):
        decision = policy.decide(observation)
        assert decision.chunk is not None, decision.refusal
        assert decision.chunk.actions_KA.shape == (arm.members[0].contract.chunk_length, len(arm.members[0].contract.embodiment.action))


def second_frozen(folder: Path) -> Path:
    """The same lesson for another robot: two cameras, seven action dimensions, other states, statistics of its own."""
    body = published_body(views=2)
    q = (0.5, 0.5, 1.0, 1.0, 1.0, 1.0)
    contract = replace(
        CONTRACT,
        embodiment=body,
        stats=UnnormStats(q01=(*(-one for one in q), 0.0), q99=(*q, 1.0), mask=(True,) * 6 + (False,), count=24),
        reasoning=replace(CONTRACT.reasoning, trace_camera="front"),
    )
    write_small_frozen(folder, contract, train=24, validation=6)
    for path in sorted((folder / "shards").glob("*.safetensors")):
        samples = load_file(path)
        actions_NKA = np.zeros((len(samples["actions_NKA"]), 2, 7), np.float32)
        actions_NKA[..., :2], actions_NKA[..., 6] = samples["actions_NKA"][..., :2] / 2, 1.0
        samples |= {"actions_NKA": actions_NKA, "executed_NKA": actions_NKA.copy(), "proprio_NP": samples["proprio_NP"][:, :2].copy()}
        samples["images_NVHW3"] = np.repeat(samples["images_NVHW3"], 2, axis=1)
        save_file(samples, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        shard["sha256"] = hashlib.sha256((folder / shard["file"]).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def greeted(cell: EmbodimentSpec, contract: PolicyContract) -> Accepted | Reject:
    ready = Ready(session_id="s", epoch=1, model_version="m", contract=contract)
    return greet(Hello(cell="a", epoch=1, embodiment=cell), ready)


@pytest.mark.soak  # short: above a trained folder is a network to start from, and one answers at once
def test_a_network_is_tuned_to_a_second_embodiment_and_each_cell_takes_its_own_contract_only(arm, tmp_path):
    arm.export(arm.module.state_dict(), tmp_path / "first")
    config = replace(
        CONFIG, network=str(tmp_path / "first"), learning_rate=3e-3, published=replace(PUBLISHED, views=2, loss_ids="language")
    )
    tuned = PublishedArm(config, second_frozen(tmp_path / "second-data"))
    before = measured(tuned)["validation_loss"]
    optimizer = torch.optim.AdamW(tuned.module.parameters(), lr=3e-3)
    tuned.module.train()
    for step in range(12):
        step_gradients(tuned, config, step)
        optimizer.step()
    after = measured(tuned)
    assert after["validation_loss"] < 0.9 * before
    assert {name for name in after if "action_error" in name} == {f"validation_action_error/{name}" for name in DIMS_7}
    tuned.export(tuned.module.state_dict(), tmp_path / "second")
    policies = {name: load_policy(tmp_path / name) for name in ("first", "second")}
    assert json.loads((tmp_path / "second" / "config.json").read_text())["norm_stats"].keys() == {"arm-2-7"}
    for name, policy in policies.items():
        other = policies["second" if name == "first" else "first"].contract
        (asked,) = probe_observations(policy.contract, 1, None)
        decision = Guarded(policy=policy, contract=policy.contract).decide(asked)
        assert decision.chunk is not None, decision.refusal
        assert decision.chunk.actions_KA.shape == (2, len(policy.contract.embodiment.action))
        assert isinstance(greeted(policy.contract.embodiment, policy.contract), Accepted)
        refused = greeted(policy.contract.embodiment, other)
        assert isinstance(refused, Reject)
        assert refused.code is RefusalCode.CONTRACT
        assert any("cameras" in detail or "camera" in detail for detail in refused.details)
        assert any("action" in detail for detail in refused.details)
        (strange,) = probe_observations(other, 1, None)
        assert policy.decide(strange).refusal is not None


def other_vocabulary(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    document["llm_config"]["vocab_size"] = 100_864
    document["image_patch_id"] = 100_866
    (folder / "config.json").write_text(json.dumps(document))


def other_processor(folder: Path) -> None:
    document = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**document, "base_image_input_size": [378, 378]}))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_weights, "no weights in"),
        (other_vocabulary, "another vocabulary than the network"),
        (other_processor, r"base_image_input_size is \(378, 378\), the network"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_before_any_work(arm, tmp_path, damage, said):
    recipe = with_changes(get_recipe("molmoact_finetune"), [f"train.network={tmp_path / 'first'}"])
    save_pretrained(arm.module, tmp_path / "first", processor=arm.network.processor)
    (tmp_path / "first" / "qwen.tiktoken").write_bytes(packaged_table().read_bytes())
    check_network_folder(recipe.train)
    damage(tmp_path / "first")
    with pytest.raises(CheckpointError, match=said):
        check_start(recipe)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("molmoact-7b-d", r"'molmoact-7b-d' names the shapes of allenai/MolmoAct-7B-D-0812, and no weights of it are on this machine. Fix"),
        ("nowhere/at/all", r"no folder at .*nowhere/at/all. Fix: name the folder of a checkpoint"),
        ("allenai/MolmoAct-7B-D-0812", r"is a hub id, and those need a commit.*published.revision=COMMIT"),
    ],
)
def test_weights_that_are_not_here_are_told(frozen, network, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=message):
        PublishedArm(replace(CONFIG, network=network), frozen)


def test_a_wrong_name_or_size_is_told():
    with pytest.raises(SpecError, match=r"expected one of tiny, tiny-published, .*did you mean 'tiny-published'"):
        TrainConfig(network="tiny-publishd")
    with pytest.raises(SpecError, match="no field 'depth' of tiny-published"):
        TrainConfig(network={"preset": "tiny-published", "depth": 3})
    with pytest.raises(SpecError, match="sizes are chosen of 'tiny-published' only"):
        TrainConfig(network={"preset": "molmoact-7b-d", "width": 64})


def test_other_views_and_longer_examples_are_refused(frozen):
    with pytest.raises(DatasetError, match="asks for 2 images, the data set has 1 cameras"):
        PublishedArm(replace(CONFIG, published=replace(PUBLISHED, views=2)), frozen)
    short = PublishedArm(replace(CONFIG, published=replace(PUBLISHED, max_tokens=100)), frozen)
    with pytest.raises(DatasetError, match=r"has \d+ tokens, expected at most 100"):
        short.members[0].train.example(0, "action_reasoning")


@pytest.mark.parametrize("change", [augmentation.random_crop, augmentation.random_brightness, augmentation.random_contrast,
                                    augmentation.random_saturation, augmentation.random_hue, augmentation.augmented])  # fmt: skip
def test_each_augmentation_changes_the_image_and_its_tensor(change):
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal((90, 130, 170), 40, (48, 48, 3)), 0, 255).astype(np.uint8)
    changed = change(image, np.random.default_rng(5))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)
    assert np.array_equal(changed, change(image, np.random.default_rng(5))), "decided by the generator alone"
    processor = network_shape(CONFIG).processor
    assert not np.array_equal(processor([changed]).images_CPD, processor([image]).images_CPD)
    assert np.abs(changed.astype(int).mean() - image.astype(int).mean()) < 60


def test_augmented_views_differ_and_follow_seed_and_step(frozen):
    config = replace(CONFIG, published=replace(PUBLISHED, augment=True))
    arm = PublishedArm(config, frozen)
    first, again, later = (arm.batch(np.arange(2), seed=0, step=step, micro=0).images["images_BCPD"] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_saved_layout_is_read_by_the_published_side(arm, tmp_path):
    from model_core.network.checkpoints.hub import open_checkpoint

    save_pretrained(arm.module, tmp_path / "plain")
    open_checkpoint(tmp_path / "plain").check()
