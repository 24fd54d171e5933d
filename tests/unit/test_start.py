"""Going on from a checkpoint: rows follow their words, any other difference is refused, and contents (not names) decide what is cached."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts.step_manifest import Manifest, Step
from components.artifacts.step_store import StepStore
from components.config.recipe import Recipe
from components.config.train_config import TrainConfig
from components.training.checkpoints import CheckpointManifest, check_belongs, finalize, last_complete
from components.training.plan import curve_digest
from components.training.start.carried_rows import id_sources, slot_sources
from components.training.start.comparison import start_digest
from components.training.tiny_model import TinyArm
from flows.pipeline.stages.training import train_step
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.checkpoint import load_checkpoint, write_checkpoint
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError
from model_core.spec.stats import UnnormStats
from model_core.tiny import TinySize, new_tiny_model, tiny_config, tiny_layout
from model_core.tokenization.compact.vocabulary import CompactVocabulary
from tests.faults.fork_server import ForkServer
from tests.tiny_arm_data import SMALL, make_small_contract, write_small_frozen

NOW = make_small_contract()  # words: go, here, stay, there
BODY = NOW.embodiment
CONFIG = TrainConfig(network=SMALL, steps=100, warmup_steps=5, global_batch=16, micro_batch=16)


def start_from(folder: Path, contract: PolicyContract = NOW, *, longest: int = 3, seed: int = 3) -> Path:
    """A checkpoint whose instructions had up to `longest` words."""
    size = TinySize.of(SMALL)
    layout = tiny_layout(contract, size, (" ".join([contract.words[0]] * longest),))
    state = new_tiny_model(layout, size, seed).state_dict()
    return write_checkpoint(folder, state=state, config=tiny_config(layout, size), contract=contract)


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    return write_small_frozen(tmp_path / "frozen", NOW, train=8, validation=8)


@pytest.mark.parametrize(
    "words",
    [
        ("drawer", "go", "here", "stay"),  # as many, one of them another
        ("go", "here", "stay", "there", "zebra"),  # one more
        ("stay", "there"),  # fewer
        ("go", "here", "stay", "there"),
    ],
)
def test_a_words_row_is_the_row_of_the_same_word(tmp_path, frozen, words):
    start = load_checkpoint(start_from(tmp_path / "start", replace(NOW, words=words), longest=11))
    arm = TinyArm(replace(CONFIG, init_from=str(tmp_path / "start")), frozen)
    fresh = TinyArm(CONFIG, frozen).module
    old, new = start.layout.vocabulary, arm.layout.vocabulary
    before, after = start.model.model.transformer.wte, arm.module.model.transformer.wte
    for word in NOW.words:
        row = after.embedding[new.word_ids(word)[0]]
        expected = (
            before.embedding[old.word_ids(word)[0]] if word in words else fresh.model.transformer.wte.embedding[new.word_ids(word)[0]]
        )
        assert torch.equal(row, expected), word
    assert torch.equal(after.embedding[: new.word.start], before.embedding[: old.word.start])
    assert torch.equal(after.new_embedding, before.new_embedding)
    assert torch.equal(arm.module.lm_head.weight[: new.word.start], start.model.lm_head.weight[: old.word.start])
    slots_new, slots_old = arm.layout.slots, start.layout.slots
    for field, slots in slots_new.items():
        there = slots_old[field]
        count = min(len(slots), len(there))
        taken = arm.module.model.transformer.slot_embedding[slots.start : slots.start + count]
        assert torch.equal(taken, start.model.model.transformer.slot_embedding[there.start : there.start + count]), field
    block = "model.transformer.blocks.0.mlp.ff_proj.weight"
    assert torch.equal(arm.module.state_dict()[block], start.model.state_dict()[block])


def test_ids_and_slots_are_matched_by_meaning():
    before, after = CompactVocabulary(words=("a", "c"), depth_codes=4), CompactVocabulary(words=("a", "b", "c"), depth_codes=4)
    sources = id_sources(before, after)
    assert sources[after.word.start : after.word.stop].tolist() == [before.word.start, -1, before.word.start + 1]
    assert sources[after.im_patch_id] == before.im_patch_id
    size = TinySize.of(SMALL)
    short, long = tiny_layout(NOW, size, ("go here",)), tiny_layout(NOW, size, (" ".join(["go"] * 10),))
    slots = slot_sources(short, long)
    assert (slots == -1).sum() == long.max_words - short.max_words
    assert slots[long.num_slots - 1] == short.num_slots - 1


def test_adapters_alone_cannot_learn_a_new_word(tmp_path, frozen):
    start = start_from(tmp_path / "start", replace(NOW, words=("go", "here", "stay")))
    with pytest.raises(CheckpointError, match=r"does not know the words \['there'\], and train.lora_rank trains no rows of words.*Fix: "):
        TinyArm(replace(CONFIG, init_from=str(start), lora_rank=2), frozen)


OTHERS: Mapping[str, tuple[PolicyContract, str]] = {
    "statistics": (
        replace(NOW, stats=UnnormStats(q01=(-0.5,) * 4, q99=(0.5,) * 4, mask=NOW.stats.mask)),
        r"stats.q01: the start was trained with \(-0.5, .*, this training has \(-1.0, .*Fix: --set freeze.statistics=.*start",
    ),
    "mask": (
        replace(NOW, stats=replace(NOW.stats, mask=(True,) * 4)),
        r"stats.mask: the start was trained with \(True, True, True, True\)",
    ),
    "mode": (
        replace(NOW, embodiment=replace(BODY, action=replace(BODY.action, mode="absolute"))),
        "body.action.mode: the start was trained with 'absolute', this training has 'delta'",
    ),
    "unit": (
        replace(
            NOW,
            embodiment=replace(
                BODY, proprio=replace(BODY.proprio, dims=(replace(BODY.proprio.dims[0], unit="mm"), *BODY.proprio.dims[1:]))
            ),
        ),
        r"body.proprio.dims\[0\].unit: the start was trained with 'mm', this training has 'm'",
    ),
    "gripper": (
        replace(NOW, embodiment=replace(BODY, gripper_open=1.0)),
        "body.gripper_open: the start was trained with 1.0, this training has -1.0",
    ),
    "rate": (
        replace(NOW, embodiment=replace(BODY, control_hz=10.0)),
        "body.control_hz: the start was trained with 10.0, this training has 20.0",
    ),
    "camera": (
        replace(
            NOW,
            embodiment=replace(BODY, cameras=(replace(BODY.cameras[0], name="wrist"),)),
            reasoning=replace(NOW.reasoning, trace_camera="wrist"),
        ),
        r"body.cameras\[0\].name: the start was trained with 'wrist', this training has 'front'",
    ),
    "codebook": (
        replace(NOW, reasoning=replace(NOW.reasoning, codebook_digest="e" * 64)),
        r"reasoning.codebook_digest: the start was trained with eeeeeeeeeeee\.\.\..*Fix: --set annotate.codebook=.*start/vqvae",
    ),
    "chunk": (replace(NOW, chunk_length=5), "chunk_length: the start was trained with 5, this training has 4"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_something_else_is_refused_with_the_field(tmp_path, frozen, name):
    contract, said = OTHERS[name]
    start = start_from(tmp_path / "start", contract)
    with pytest.raises(CheckpointError, match=rf"(?s)this checkpoint is of something else.*{said}"):
        TinyArm(replace(CONFIG, init_from=str(start)), frozen)


def test_another_network_is_refused_by_its_sizes(tmp_path, frozen):
    start = start_from(tmp_path / "start")
    with pytest.raises(CheckpointError, match=r"weights of another network: .*Fix: set train.network as it was there"):
        TinyArm(replace(CONFIG, network={**SMALL, "feed_forward": 32}, init_from=str(start)), frozen)


def test_the_command_refuses_a_start_of_another_body_before_data_are_made(tmp_path):
    start = start_from(tmp_path / "start")
    with ForkServer(imported=("flows.commands.main", "torch")) as server:
        done = server.run("train", "miniature", "--set", f"train.init_from={start}", under=tmp_path)
    told = " ".join(done.told.split())
    assert done.code != 0
    assert "body.name: the start was trained with 'fake-arm'" in told
    assert "freeze.chunk_length: the start was trained with 4, this training has 8" in told
    assert "train.network.layers: the start was trained with 2, this training has 1" in told
    assert "Traceback" not in done.told
    assert not list((tmp_path / "home").glob("store/*/*"))


class Untracked(Platform):
    """A platform whose trainings are not sent to MLflow."""

    def tracker(self) -> Any:
        class Nothing:
            def __getattr__(self, _name: str) -> Any:
                return lambda *_args, **_more: None

        return Nothing()


def test_a_replaced_start_is_trained_again_and_an_equal_one_is_not(tmp_path, frozen):
    platform = Untracked(settings=Settings(home=tmp_path / "home"), store=StepStore(tmp_path / "store"))  # pyright: ignore[reportCallIssue]
    start = start_from(tmp_path / "start")
    recipe = Recipe(name="x", train=replace(CONFIG, init_from=str(start)))
    data = Manifest(stage="freeze", key="k", inputs={}, config_digest="", outputs={}, record={"name": "d", "version": "1"}, digest="d")
    step = Step(path=frozen, manifest=data)

    def launch(task, _tracker, _progress) -> Mapping[str, Any]:
        shutil.copytree(start, task.out / "checkpoint", dirs_exist_ok=True)
        return {}

    def trained():
        return train_step(platform, recipe, step, None, launch)  # type: ignore[arg-type]

    first, again = trained(), trained()
    assert (first.cached, again.cached) == (False, True)
    start_from(tmp_path / "start", seed=4)
    other = trained()
    assert not other.cached
    assert other.step.digest != first.step.digest
    start_from(tmp_path / "start", seed=3)
    assert trained().step.digest == first.step.digest


def test_a_training_does_not_resume_with_another_start_or_precision(tmp_path):
    start = start_from(tmp_path / "start")
    config = replace(CONFIG, init_from=str(start))

    def digest(precision: str) -> str:
        return curve_digest(config, precision=precision, start=start_digest(config.init_from))

    began, root = digest("bf16"), tmp_path / "checkpoints"
    (root / "step_00000002").mkdir(parents=True)
    finalize(root / "step_00000002", CheckpointManifest(step=2, data_digest="d", config_digest=began, world_size=1, zero_stage=0))
    found = last_complete(root)
    assert found is not None
    check_belongs(found[1], data_digest="d", config_digest=digest("bf16"), where="x")
    with pytest.raises(CheckpointError, match=r"resuming would change the loss curve. Fix: .*precision"):
        check_belongs(found[1], data_digest="d", config_digest=digest("fp32"), where="x")
    assert curve_digest(replace(config, precision="bf16"), precision="bf16", start=start_digest(config.init_from)) == began
    start_from(tmp_path / "start", seed=8)
    assert digest("bf16") != began
