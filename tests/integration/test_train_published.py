"""Training of a published-layout network: DeepSpeed, validation with whole answers, a folder to serve; in soak under torchrun."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from components.config.published.training import PartRates
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.training.job import JobFiles, TrainingTask
from components.training.launcher import train
from model_core.network.checkpoints.hub import open_checkpoint
from model_core.spec.errors import JobError
from tests.faults.fork_server import ForkServer
from tests.integration.test_train import Watcher, pids
from tests.tiny_arm_data import make_small_contract, write_small_frozen
from tests.training_rank import train_as_a_rank
from tests.unit.test_published_training import NETWORK, PUBLISHED

pytestmark = pytest.mark.xdist_group("ranks")

CONFIG = TrainConfig(
    network=NETWORK,
    steps=4,
    warmup_steps=1,
    global_batch=4,
    micro_batch=2,
    checkpoint_every=2,
    log_every=1,
    learning_rate=2e-3,
    precision="fp32",
    threads=1,
    published=replace(PUBLISHED, open_loop_samples=1, validation_samples=1, learning_rates=PartRates(vit=1e-3)),
)


class Lines:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("published") / "data", make_small_contract(chunk_length=2), train=24, validation=4)


def curve(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in JobFiles(out).metrics.read_text().splitlines()]


@pytest.mark.soak  # short: the same model, its validation and its folder in test_published_training; the engine in test_train
def test_a_training_reports_what_it_trains_validates_and_writes_a_folder(ranks: ForkServer, frozen: Path, tmp_path: Path) -> None:
    progress = Lines()
    record = train_as_a_rank(ranks, TrainingTask(config=CONFIG, frozen=frozen, out=tmp_path), progress)
    assert record["steps"] == 4
    trained = record["parameters"]
    assert trained["llm"] + trained["connector"] + trained["vit"] == trained["all"]
    assert any("parameters are trained (llm " in line for line in progress.lines)
    assert {"validation_loss", "validation_loss/trace", "validation_action_error/dx", "validation_action_error/gripper"} <= set(
        record["metrics"]
    )
    points = curve(tmp_path)
    assert [point["step"] for point in points if "validation_loss" in point] == [2, 4]
    losses = [point["loss"] for point in points if "loss" in point]
    assert losses[-1] < losses[0]
    assert set(points[0]) == {"step", "loss", "loss_ce", "loss_z", "accuracy", "grad_norm", "lr"}
    folder = JobFiles(tmp_path).checkpoint
    open_checkpoint(folder).check()
    assert (folder / "contract.json").is_file()
    assert (folder / "preprocessor_config.json").is_file()


@pytest.mark.soak  # short: above without adapters; the launcher and a kill with a small network in test_train
def test_adapters_give_one_curve_on_one_and_two_processes_and_after_a_kill(frozen: Path, tmp_path: Path) -> None:
    published = replace(CONFIG.published, clip_by_part=False, open_loop_samples=0, augment=True, residual_dropout=0.1)
    one = replace(CONFIG, lora_rank=4, published=published, steps=12, checkpoint_every=4, restarts=0)
    two = replace(one, world_size=2, zero_stage=2)
    train(TrainingTask(config=one, frozen=frozen, out=tmp_path / "one"), None, Silent())
    train(TrainingTask(config=two, frozen=frozen, out=tmp_path / "two"), None, Silent())
    for mine, other in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert mine == pytest.approx(other, rel=2e-4, abs=1e-6)
    out = tmp_path / "killed"
    with pytest.raises(JobError, match="run again to resume"):
        train(TrainingTask(config=one, frozen=frozen, out=out), None, Watcher(6, lambda: os.kill(pids(out)[0], signal.SIGKILL)))
    record = train(TrainingTask(config=one, frozen=frozen, out=out), None, Silent())
    assert record["undigested"]["began_at_step"] >= 4
    assert JobFiles(out).metrics.read_bytes() == JobFiles(tmp_path / "one").metrics.read_bytes()
    assert (JobFiles(out).checkpoint / "model.safetensors").read_bytes() == (
        JobFiles(tmp_path / "one").checkpoint / "model.safetensors"
    ).read_bytes()
