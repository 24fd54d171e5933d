"""Steps of bad samples: skipped, so that no weight and no moment moves, and passed over from the checkpoint before them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.config.train_config import TrainConfig
from components.training.job import JobFiles
from model_core.spec.errors import JobError
from tests.faults.fork_server import ForkServer
from tests.toy_model import toy_task
from tests.training_rank import train_as_a_rank

pytestmark = pytest.mark.xdist_group("ranks")

CONFIG = TrainConfig(steps=30, global_batch=8, micro_batch=4, warmup_steps=4, checkpoint_every=1, log_every=5, precision="fp32", threads=1)


def frozen(folder: Path, **plan: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.json").write_text(json.dumps(plan))
    return folder


def points(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in JobFiles(out).metrics.read_text().splitlines()]


@pytest.mark.parametrize(
    ("processes", "stage"),
    [(1, 0), *(pytest.param(2, stage, marks=pytest.mark.soak) for stage in range(4))],
)
def test_a_step_that_spikes_moves_no_weight(ranks: ForkServer, tmp_path: Path, processes: int, stage: int) -> None:
    config = replace(CONFIG, spikes="skip", world_size=processes, zero_stage=stage)
    train_as_a_rank(ranks, toy_task(config, frozen(tmp_path / "frozen", spikes=[20, 21]), tmp_path / "out"))
    steps = {int(point["step"]): point for point in points(tmp_path / "out") if "loss" in point}
    after = {int(point["step"]): point["validation_loss"] for point in points(tmp_path / "out") if "loss" not in point}
    assert [step for step, point in steps.items() if "skipped" in point] == [21, 22]
    assert steps[21]["loss"] > 100
    assert "grad_norm" not in steps[21]
    assert after[20] == after[21] == after[22] != after[23]
    if processes > 1:  # moments and Adam's counters too: what follows is as on one process
        train_as_a_rank(ranks, toy_task(replace(CONFIG, spikes="skip"), tmp_path / "frozen", tmp_path / "one"))
        for mine, other in zip(points(tmp_path / "out"), points(tmp_path / "one"), strict=True):
            assert mine == pytest.approx(other, rel=1e-4)


def test_spikes_in_a_row_are_passed_over_from_the_checkpoint_before_them(ranks: ForkServer, tmp_path: Path) -> None:
    config = replace(CONFIG, spikes="rewind", checkpoint_every=10)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train_as_a_rank(ranks, toy_task(config, frozen(tmp_path / "frozen", spikes=[22, 23, 24]), whole))
    assert [point["step"] for point in points(whole) if "loss" in point] == list(range(1, 31))
    assert not [point for point in points(whole) if "skipped" in point]
    (back,) = [json.loads(line) for line in JobFiles(whole).progress.read_text().splitlines() if '"rewound"' in line]
    assert (back["step"], back["to"]) == (25, 20)
    with pytest.raises(JobError, match="asked to stop"):
        train_as_a_rank(ranks, toy_task(config, frozen(tmp_path / "stopping", spikes=[22, 23, 24], stop_at=27), halved))
    assert train_as_a_rank(ranks, toy_task(config, tmp_path / "frozen", halved))["undigested"]["began_at_step"] == 23
    assert JobFiles(halved).metrics.read_bytes() == JobFiles(whole).metrics.read_bytes()
    model = "model.safetensors"
    assert (JobFiles(halved).checkpoint / model).read_bytes() == (JobFiles(whole).checkpoint / model).read_bytes()
