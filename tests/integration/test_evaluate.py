"""Evaluation on the real simulator in worker processes: reports that do not depend on how often it was interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from components.artifacts.files import sha256_file
from components.artifacts.step_manifest import folder_digests
from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.config.records import EvalReport, Silent
from components.config.train_config import TrainConfig
from components.evaluation.evaluate import evaluate
from components.evaluation.suite import open_suite
from components.simulation.metaworld_tasks import INSTRUCTIONS
from components.training.job import TrainingTask
from components.training.launcher import train
from model_core.spec.contract import PolicyContract
from model_core.spec.documents import from_document
from model_core.spec.errors import ContractError, GateError, JobError, SpecError
from model_core.tokenization.compact.vocabulary import words_of
from tests.toy_policy import CONTRACT

pytestmark = pytest.mark.xdist_group("evaluate")
TOY = "tests.toy_policy:open_toy"
COLLECT = CollectConfig(tasks=("drawer-close-v3", "coffee-button-v3"))
CFG = EvalConfig(seeds_per_task=2, horizon_sim_steps=48, execute_horizon=8, batch=2, workers=1)


def checkpoint(folder: Path, **plan: object) -> Path:
    folder.mkdir()
    (folder / "toy.json").write_text(json.dumps(plan))
    return folder


def frozen(folder: Path, frames: int = 24, contract: PolicyContract = CONTRACT) -> Path:
    """Two splits of random pictures."""
    (folder / "shards").mkdir(parents=True)
    shards = []
    for seed, split in enumerate(("train", "validation")):
        rng = np.random.default_rng(seed)
        name = f"shards/{split}-00000.safetensors"
        tensors = {
            "images_NVHW3": rng.integers(0, 255, (frames, 1, 80, 80, 3), dtype=np.uint8),
            "proprio_NP": np.tile(np.float32([0.0, 0.6, 0.2, 0.5]), (frames, 1)),
            "actions_NKA": rng.uniform(-1, 1, (frames, 8, 4)).astype(np.float32),
            "depth_codes_NG": rng.integers(0, 128, (frames, 100), dtype=np.uint8),
            "trace_N52": rng.integers(0, 256, (frames, 5, 2)).astype(np.int16),
            "trace_len_N": np.full(frames, 5, np.int16),
            "instruction_idx_N": (np.arange(frames) % 2).astype(np.int32),
            "task_idx_N": (np.arange(frames) % 2).astype(np.int32),
        }
        save_file(tensors, folder / name)
        shards.append({"file": name, "frames": frames, "sha256": sha256_file(folder / name)})
    instructions = [INSTRUCTIONS[task] for task in COLLECT.tasks]
    manifest = {"shards": shards, "instructions": instructions, "tasks": list(COLLECT.tasks), "contract_id": contract.contract_id}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "contract.json").write_text(json.dumps(contract.to_json()))
    return folder


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(checkpoint, folder of a finished evaluation with the image-swap measurement)."""
    folder = tmp_path_factory.mktemp("examined")
    policy = checkpoint(folder / "checkpoint")
    evaluate(CFG, policy, folder / "out", Silent(), suite=open_suite(CFG, COLLECT), frozen=frozen(folder / "frozen"), policy=TOY)
    return policy, folder / "out"


def test_report_names_every_episode_and_the_films_are_there(examined: tuple[Path, Path]) -> None:
    report = from_document(EvalReport, json.loads((examined[1] / "report.json").read_text()))
    assert [(row.task, row.seed) for row in report.episodes] == [(t, 930_000 + i) for t in sorted(COLLECT.tasks) for i in range(2)]
    assert report.trials == 4
    assert all(row.success or row.stop_reason == "max_steps" for row in report.episodes)
    assert all(row.decisions == -(-row.steps // 8) for row in report.episodes)
    assert report.blindness["image_swap_change"] == 1.0
    for task in COLLECT.tasks:
        with Image.open(examined[1] / "film" / f"{task}.png") as picture:
            assert picture.size[0] > 150
    assert json.loads((examined[1] / "undigested" / "timing.json").read_text())["decide_ms"]["p50"] > 0


@pytest.mark.soak  # short: undisturbed above; work in the same processes that is interrupted and goes on, in test_collect
def test_an_interrupted_evaluation_ends_with_the_same_bytes(examined: tuple[Path, Path], tmp_path: Path) -> None:
    class Impatient:
        def update(self, done: int, total: int, message: str = "") -> None:
            if 0 < done < total and "rollouts" in message:
                raise KeyboardInterrupt

    # Two workers here, one there: neither the number of processes nor the interruption may show.
    cfg, out = replace(CFG, workers=2), tmp_path / "out"
    frames = frozen(tmp_path / "frozen")
    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg, examined[0], out, Impatient(), suite=open_suite(CFG, COLLECT), frozen=frames, policy=TOY)
    finished = sorted((out / "scratch" / "groups").glob("*.json"))
    assert finished
    finished[-1].unlink()  # and one that was killed before its rows were written
    evaluate(cfg, examined[0], out, Silent(), suite=open_suite(CFG, COLLECT), frozen=frames, policy=TOY)
    assert folder_digests(out) == folder_digests(examined[1])


def test_a_blind_policy_is_stopped_before_any_rollout(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="ignores the image"):
        evaluate(
            CFG,
            checkpoint(tmp_path / "c", blind=True),
            tmp_path / "out",
            Silent(),
            suite=open_suite(CFG, COLLECT),
            frozen=frozen(tmp_path / "f"),
            policy=TOY,
        )
    assert not (tmp_path / "out").exists()


def test_a_simulator_of_another_embodiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"control_hz: the policy was made for 20.0, this cell offers 10.0"):
        evaluate(
            CFG,
            checkpoint(tmp_path / "c"),
            tmp_path / "out",
            Silent(),
            suite=open_suite(CFG, replace(COLLECT, sim_steps_per_action=8)),
            policy=TOY,
        )


@pytest.mark.soak  # short: test_worker_pool kills a worker
def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="a rollout process was killed after 0 of 4 episodes"):
        evaluate(
            CFG,
            checkpoint(tmp_path / "c", dies=True),
            tmp_path / "out",
            Silent(),
            suite=open_suite(CFG, COLLECT),
            policy=TOY,
        )


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected 'package.module:function'"):
        evaluate(CFG, tmp_path, tmp_path / "out", Silent(), suite=open_suite(CFG, COLLECT), policy="tests.toy_policy:nothing")


@pytest.mark.soak  # short: the loop evaluates a model that it trained
def test_the_real_model_is_trained_adapted_and_examined(tmp_path: Path) -> None:
    """A very small network through all of it: torchrun, export, adapters merged, image swap, rollouts, films."""
    words = tuple(sorted({word for task in COLLECT.tasks for word in words_of(INSTRUCTIONS[task])}))
    data = frozen(tmp_path / "frozen", contract=replace(CONTRACT, words=words))
    network = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 2, "feed_forward": 64, "projector": 64, "stem": (8, 16, 16)}
    config = TrainConfig(
        network=network, steps=4, global_batch=8, micro_batch=4, warmup_steps=1, checkpoint_every=2, threads=1, precision="fp32"
    )
    record = train(TrainingTask(config=config, frozen=data, out=tmp_path / "base"), None, Silent())
    assert np.isfinite(record["metrics"]["validation_loss_action"])

    base = tmp_path / "base" / "checkpoint"
    adapted = replace(config, init_from=str(base), lora_rank=2, zero_stage=1, learning_rate=0.01)
    train(TrainingTask(config=adapted, frozen=data, out=tmp_path / "adapted"), None, Silent())
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "adapted" / "checkpoint"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert any("att_proj" in name for name in changed)
    assert not any("wte" in name or "lm_head" in name for name in changed)

    cfg = replace(CFG, seeds_per_task=2, image_swap_frames=4, min_image_swap_change=0.0)
    out = tmp_path / "out"
    document = evaluate(
        cfg,
        tmp_path / "adapted" / "checkpoint",
        out,
        Silent(),
        suite=open_suite(cfg, replace(COLLECT, tasks=COLLECT.tasks[:1])),
        frozen=data,
    )
    assert document["trials"] == 2
    assert (out / "undigested" / "examples" / "held_out.png").is_file(), "held-out frames are drawn where a policy is evaluated"
    assert all(row["refusals"] == 0 and row["decisions"] > 0 for row in document["episodes"])
    assert [path.name for path in (out / "film").iterdir()] == [f"{COLLECT.tasks[0]}.png"]
