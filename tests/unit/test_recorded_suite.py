"""A policy on recorded episodes: errors by hand, the likelihood that training measures too, and sets that are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from components.artifacts.files import sha256_file
from components.config.records import EvalReport, HeldOutRow, Interval
from components.data.frozen_dataset import load_split
from components.evaluation.suites.recorded import likelihood_of, recorded_markdown, recorded_result
from components.simulation.metaworld import embodiment
from components.training.tiny.batches import BatchMaker, validation_values
from flows.commands.main import command_line
from model_core.checkpoint import load_checkpoint
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError
from model_core.training import LossConfig, answer_loss
from tests.integration.test_evaluate import frozen
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An untrained policy, and a frozen set of its embodiment with three held-out episodes of eight frames."""
    folder = tmp_path_factory.mktemp("recorded")
    contract = write_tiny_checkpoint(folder / "checkpoint", embodiment=embodiment())
    return folder / "checkpoint", of_episodes(frozen(folder / "frozen", contract=contract))


def of_episodes(folder: Path) -> Path:
    """What a frozen set says of its episodes, too."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        tensors = load_file(folder / shard["file"]) | {"episode_idx_N": np.repeat(np.arange(3), 8).astype(np.int32)}
        save_file(tensors, folder / shard["file"])
        shard["sha256"] = sha256_file(folder / shard["file"])
    manifest |= {"episodes": ["a", "b", "c"], "split": {"train": ["a", "b", "c"], "validation": ["a", "b", "c"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_errors_are_sums_over_rows_and_intervals_resample_episodes() -> None:
    rows = [
        HeldOutRow(episode=name, rows=10, error={"dx": error}, mean_error={"dx": 4.0})
        for name, error in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 2.0))
    ]
    report = EvalReport(
        checkpoint_digest="c" * 64,
        contract_id="0" * 16,
        successes=0,
        trials=0,
        interval=Interval(low=0.0, high=1.0),
        per_task={},
        episodes=(),
        protocol={"suite_version": "v1"},
        open_loop={"error_ratio": 0.5, "frames": 40.0, "refused": 1.0, "dx/error_ratio": 0.5},
        held_out=(*rows, HeldOutRow(episode="refused", rows=0, error={"dx": 0.0}, mean_error={"dx": 0.0})),
    )
    found = recorded_result(report, {"dx": "cm"}, {"action": 2.0, "perplexity/action": math.exp(2.0)})
    (dx,) = found.dimensions
    assert (dx.error, dx.mean_error, dx.ratio) == (0.2, 0.4, 0.5)
    assert 0.25 < dx.low < 0.5 < dx.high < 0.75
    text = recorded_markdown(found)
    assert "| dx | 0.2 cm | 0.4 cm | 0.500 |" in text
    assert "| action | 2.0000 | 7.39 |" in text


def test_the_likelihood_is_what_training_measures_on_the_same_frames(parts: tuple[Path, Path]) -> None:
    checkpoint, data = parts
    found = likelihood_of(checkpoint, data, samples=24)
    read = load_checkpoint(checkpoint)
    maker = BatchMaker(load_split(data, "validation"), read.layout, read.contract)
    loss = partial(answer_loss, read.model, layout=read.layout, config=LossConfig(smoothing_bins=0.0))
    with torch.no_grad():
        trained = validation_values(maker, read.contract.reasoning.levels, loss, 24)
    for field in ("depth", "trace", "action"):
        assert found[field] == pytest.approx(trained[f"loss_{field}"], abs=1e-5)
        assert found[f"perplexity/{field}"] == pytest.approx(math.exp(found[field]))
    # an untrained network finds every code about as likely as any other
    assert found["depth"] == pytest.approx(math.log(128), abs=1.5)


def test_the_command_measures_and_refuses_another_embodiment(parts: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACTWRIGHT_RUNS", str(tmp_path / "runs"))
    checkpoint, data = parts

    def called(*words: object):
        return CliRunner().invoke(command_line("suite"), ["suite", "recorded", *map(str, words)])

    done = called(checkpoint, data, "--reasoning", "action")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["frames"] == 24
    assert set(told["ratio"]) == {"dx", "dy", "dz", "gripper"}
    assert {"depth", "trace", "action"} <= set(told["likelihood"])
    assert "likelihood" in json.loads(Path(told["result"]).read_text())
    other = replace(embodiment(), name="another-arm")
    contract: PolicyContract = write_tiny_checkpoint(tmp_path / "other", embodiment=other)
    assert contract.embodiment.name == "another-arm"
    refused = called(tmp_path / "other", data)
    assert isinstance(refused.exception, ContractError)
    assert "Fix: name a set of its embodiment" in str(refused.exception)
