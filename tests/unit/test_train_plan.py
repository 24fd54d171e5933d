"""Order of samples, learning rate, precision, commands, complete checkpoints: what a training does before it computes."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.config.launch.torchrun import ONLY_RANK, Rendezvous, only_rank_command, torchrun_command
from components.config.train_config import TrainConfig
from components.training.checkpoints import (
    MANIFEST,
    CheckpointManifest,
    check_belongs,
    checkpoint_name,
    finalize,
    last_complete,
    retain,
)
from components.training.job import TrainJob, load_job, save_job
from components.training.monitoring import LossSpikeDetector, RemainingTime, pace, progress_line
from components.training.plan import (
    batch_indices,
    choose_precision,
    curve_digest,
    deepspeed_config,
    learning_rate,
    micro_batches,
)
from flows.pipeline.recipes import get_recipe
from model_core.spec.errors import CheckpointError, DatasetError, SpecError
from tests.golden_road import document

CONFIG = TrainConfig(steps=100, global_batch=12, micro_batch=2, warmup_steps=10, learning_rate=1e-3, flat_until=0.4)


def test_every_sample_is_seen_once_an_epoch_whatever_the_batch_size() -> None:
    stream = np.concatenate([batch_indices(3, step, 7, 50) for step in range(50)])
    for epoch in range(7):
        assert sorted(stream[epoch * 50 : (epoch + 1) * 50]) == list(range(50))
    assert not np.array_equal(stream[:50], stream[50:100])
    other = np.concatenate([batch_indices(3, step, 10, 50) for step in range(35)])
    assert np.array_equal(stream, other)


def test_batch_is_a_function_of_seed_and_step_and_may_exceed_the_data() -> None:
    assert np.array_equal(batch_indices(1, 9, 8, 30), batch_indices(1, 9, 8, 30))
    assert not np.array_equal(batch_indices(1, 9, 8, 30), batch_indices(2, 9, 8, 30))
    assert len(batch_indices(0, 0, 100, 3)) == 100
    with pytest.raises(DatasetError, match="no sample"):
        batch_indices(0, 0, 4, 0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_the_micro_batches_without_loss_or_overlap(world_size: int) -> None:
    shares = [micro_batches(CONFIG, rank, world_size) for rank in range(world_size)]
    assert sorted(m for share in shares for m in share) == list(range(6))
    assert len({len(share) for share in shares}) == 1


def test_micro_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(SpecError, match="cannot be shared by 4"):
        micro_batches(CONFIG, 0, 4)


def test_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [learning_rate(CONFIG, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9:40] == [pytest.approx(1e-3)] * 31
    assert all(a > b for a, b in itertools.pairwise(rates[41:]))
    assert rates[70] == pytest.approx(0.5e-3, rel=0.01)
    assert rates[99] < 1e-5
    assert learning_rate(replace(CONFIG, decay="none"), 99) == 1e-3


@pytest.mark.parametrize("recipe", ["molmoact_pretrain", "molmoact_midtrain", "molmoact_libero_long"])
def test_a_published_network_goes_by_the_published_schedule(recipe: str) -> None:
    table = document("loss/tiny_d.json")["lr_table"]
    cfg = replace(get_recipe(recipe).train, steps=table["max_steps"])
    assert (cfg.warmup_steps, cfg.min_learning_rate / cfg.learning_rate) == (table["warmup_steps"], pytest.approx(table["alpha_f"]))
    for step, share in table["steps"].items():
        if 0 < int(step) <= cfg.steps:  # the published trainer counts its first step as 1
            assert learning_rate(cfg, int(step) - 1) == pytest.approx(share * cfg.learning_rate, rel=1e-9)
    flat = replace(cfg, flat_until=0.5)
    assert learning_rate(flat, 499) == pytest.approx(cfg.learning_rate)
    assert learning_rate(flat, 500) < cfg.learning_rate
    assert learning_rate(flat, 999) == pytest.approx(cfg.min_learning_rate)


def test_precision_follows_the_machine_and_says_when_it_is_slow() -> None:
    assert choose_precision("auto", frozenset({"avx2", "amx_bf16"})).name == "bf16"
    assert choose_precision("auto", frozenset({"avx512_bf16"})).warning == ""
    slow = choose_precision("auto", frozenset({"avx2"}))
    assert slow.name == "fp32"
    assert "no bf16 matrix units" in slow.warning
    assert choose_precision("auto", frozenset(), has_gpu=True).name == "bf16"
    assert choose_precision("fp32", frozenset({"amx_bf16"})).name == "fp32"
    assert "emulated" in choose_precision("bf16", frozenset()).warning


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_document_has_the_recipes_numbers(stage: int) -> None:
    document = deepspeed_config(replace(CONFIG, zero_stage=stage, world_size=2), 2)
    assert document["zero_optimization"]["stage"] == stage
    assert document["train_batch_size"] == document["train_micro_batch_size_per_gpu"] * document["gradient_accumulation_steps"] * 2
    assert document["gradient_clipping"] == (0.0 if stage == 0 else 1.0)
    assert not {"bf16", "fp16", "optimizer", "scheduler"} & set(document), "weights stay fp32 and the optimiser is ours"


def test_curve_digest_ignores_what_cannot_bend_the_curve() -> None:
    assert curve_digest(CONFIG) == curve_digest(replace(CONFIG, world_size=2, zero_stage=2, checkpoint_every=7, log_every=1, threads=1))
    assert curve_digest(CONFIG) != curve_digest(replace(CONFIG, seed=1))
    assert curve_digest(CONFIG) != curve_digest(replace(CONFIG, micro_batch=3))


def test_spikes_are_noticed_and_do_not_become_normal() -> None:
    watch = LossSpikeDetector()
    rng = np.random.default_rng(0)
    assert not any(watch.is_spike(2.0 + 0.05 * rng.standard_normal()) for _ in range(60))
    assert [watch.is_spike(9.0) for _ in range(3)] == [True] * 3
    assert not watch.is_spike(2.01)


def test_pace_and_its_line() -> None:
    speed = pace(samples=480, seconds=4.0, waited_s=0.4, flops=960e9, peak_flops=1e12, eta_s=10.0)
    assert (speed.samples_per_s, speed.data_wait, speed.mfu, speed.eta_s) == (120.0, 0.1, pytest.approx(0.24), 10.0)
    assert progress_line(2.5, {"samples_per_s": 120.0, "mfu": 0.24, "eta_s": 75.0}) == "loss 2.500 · 120 samples/s · MFU 24% · 1:15 left"


def test_the_time_left_does_not_jump_with_one_slow_window() -> None:
    left = RemainingTime()
    told = [left.after(flops=10.0, seconds=s, flops_left=1000.0) for s in (8.0, 1.0, 1.0, 1.1, 0.9, 20.0, 1.0, 25.0, 1.0, 1.0)]
    assert told[0] == pytest.approx(800.0)
    assert all(90.0 <= seconds <= 110.0 for seconds in told[2:])


def test_the_time_left_follows_a_speed_that_stays_and_the_work_that_is_left() -> None:
    left = RemainingTime(windows=5)
    for _ in range(5):
        left.after(flops=10.0, seconds=1.0, flops_left=1.0)
    told = [left.after(flops=10.0, seconds=3.0, flops_left=100.0) for _ in range(3)]
    assert told == pytest.approx([10.0, 10.0, 30.0])
    assert left.after(flops=10.0, seconds=3.0, flops_left=0.0) == 0.0
    assert RemainingTime().after(flops=0.0, seconds=0.0, flops_left=1.0) == math.inf


def test_a_training_of_one_process_starts_as_torchrun_would_start_it() -> None:
    assert only_rank_command("/j", python="p") == ["p", "-u", "-m", "components.training.worker", "/j"]
    handed = "RANK LOCAL_RANK GROUP_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE MASTER_ADDR MASTER_PORT"
    assert set(ONLY_RANK) == set(handed.split())


def test_torchrun_command_of_one_machine_of_an_indexed_job_and_of_two_namespaces() -> None:
    assert torchrun_command("/j", procs=2)[3:] == [
        "--nproc-per-node=2",
        "--max-restarts=0",
        "--standalone",
        "-m",
        "components.training.worker",
        "/j",
    ]
    job = torchrun_command(
        "/j", nodes=2, procs=4, rendezvous=Rendezvous(kind="static", address="train-0.train", node_rank="$(JOB_COMPLETION_INDEX)")
    )
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in job
    assert "--master-addr=train-0.train" in job
    spaces = torchrun_command("/j", nodes=2, rendezvous=Rendezvous(kind="c10d", address="10.0.0.1", is_host=False, local_addr="10.0.0.2"))
    assert {"--rdzv-endpoint=10.0.0.1:29400", "--rdzv-conf=is_host=false", "--local-addr=10.0.0.2"} <= set(spaces)
    with pytest.raises(SpecError, match="standalone is for one node"):
        torchrun_command("/j", nodes=2)
    with pytest.raises(SpecError, match="needs the address"):
        torchrun_command("/j", nodes=2, rendezvous=Rendezvous(kind="static"))


def test_job_document_round_trip(tmp_path: Path) -> None:
    job = TrainJob(config=replace(CONFIG, network={"width": 66}), frozen="/f", out="/o", model="m:f")
    assert load_job(save_job(job, tmp_path / "scratch" / "job.json")) == job
    (tmp_path / "bad.json").write_text('{"config": 3')
    with pytest.raises(SpecError, match="not a training job"):
        load_job(tmp_path / "bad.json")


def _complete(root: Path, step: int) -> Path:
    folder = root / checkpoint_name(step)
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "weights.pt").write_bytes(bytes([step]) * 1000)
    finalize(folder, CheckpointManifest(step=step, data_digest="data", config_digest="config", world_size=1, zero_stage=0))
    return folder


def test_last_complete_passes_over_incomplete_checkpoints_and_removes_them(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _complete(tmp_path, step)
    (tmp_path / checkpoint_name(5)).mkdir()  # killed before the manifest
    (tmp_path / checkpoint_name(5) / "weights.pt").write_bytes(b"half")
    (tmp_path / checkpoint_name(4) / "part" / "weights.pt").write_bytes(b"other")  # bytes changed
    (tmp_path / checkpoint_name(3) / MANIFEST).write_text("{")  # truncated manifest
    found = last_complete(tmp_path)
    assert found is not None
    assert found[0].name == checkpoint_name(2)
    assert found[1].step == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint_name(1), checkpoint_name(2)]
    assert last_complete(tmp_path / "nothing") is None


def test_missing_file_or_unknown_format_is_incomplete(tmp_path: Path) -> None:
    missing, foreign = _complete(tmp_path, 1), _complete(tmp_path, 2)
    (missing / "part" / "weights.pt").unlink()
    document = json.loads((foreign / MANIFEST).read_text())
    (foreign / MANIFEST).write_text(json.dumps(document | {"format": 99}))
    assert last_complete(tmp_path, remove_incomplete=False) is None
    assert missing.exists()


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(1, 6):
        _complete(tmp_path, step)
    retain(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint_name(4), checkpoint_name(5)]


def test_a_checkpoint_of_other_data_or_config_is_refused(tmp_path: Path) -> None:
    _complete(tmp_path, 1)
    found = last_complete(tmp_path)
    assert found is not None
    check_belongs(found[1], data_digest="data", config_digest="config", where="x")
    with pytest.raises(CheckpointError, match=r"began on data set data, now it is given new"):
        check_belongs(found[1], data_digest="new", config_digest="config", where="x")
    with pytest.raises(CheckpointError, match="restore the recipe"):
        check_belongs(found[1], data_digest="data", config_digest="new", where="x")
