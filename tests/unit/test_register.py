"""Registering what was judged: lineage, alias, and refusals."""

import subprocess
from dataclasses import replace

import pytest

from components.config.judging.verdict import GateVerdict
from components.config.records import DatasetVersion, EvalReport, Interval, TaskScore, TrainRun
from components.release.registration import Candidate, code_commit, register
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, PolicyContract, ReasoningSpec, VectorSpec
from model_core.spec.errors import CheckpointError, TrackingError
from model_core.spec.stats import UnnormStats
from tests.tracking_twins import MemoryRegistry

CONTRACT = PolicyContract(
    embodiment=EmbodimentSpec(
        name="arm",
        cameras=(CameraSpec(name="front", width=80, height=80),),
        proprio=VectorSpec(dims=(DimSpec(name="x", unit="m", low=-1, high=1),)),
        action=VectorSpec(dims=(DimSpec(name="dx", unit="", low=-1, high=1),), mode="delta"),
        control_hz=20.0,
        gripper_dim="dx",
        gripper_open=-1.0,
        hold=(0.0,),
    ),
    stats=UnnormStats(q01=(-1.0,), q99=(1.0,), mask=(True,)),
    reasoning=ReasoningSpec(),
    chunk_length=8,
    execute_horizon=8,
)


def records(letter="a", promote=True):
    interval = Interval(low=0.8, high=1.0)
    return {
        "verdict": GateVerdict(promote=promote, reasons=("because",), candidate=letter * 64),
        "contract": CONTRACT,
        "train": TrainRun(
            run_id=f"train-{letter}",
            dataset_version="d" * 64,
            recipe_digest="r" * 64,
            checkpoint_digest=letter * 64,
            steps=10,
            final_loss=1.0,
        ),
        "dataset": DatasetVersion(
            version="d" * 64, name="loop", episodes=2, frames=20, annotators={"depth": "truth/1", "points": "truth/2"}
        ),
        "report": EvalReport(
            checkpoint_digest=letter * 64,
            contract_id=CONTRACT.contract_id,
            successes=19,
            trials=20,
            interval=interval,
            per_task={"press": TaskScore(successes=19, trials=20, interval=interval)},
            episodes=(),
        ),
    }


def test_a_promoted_version_is_champion_and_knows_where_it_comes_from(tmp_path):
    registry = MemoryRegistry()
    version = register(registry, "arm", Candidate(checkpoint=tmp_path, **records()), champion=None, commit="abc")
    assert version.alias == "champion"
    assert version.contract_id == CONTRACT.contract_id
    assert version.dataset_version == "d" * 64
    assert version.lineage["annotator.points"] == "truth/2"
    assert version.lineage["code_commit"] == "abc"
    assert version.lineage["run_id"] == "train-a"
    assert version.lineage["evaluation_interval"] == "0.8000..1.0000"
    assert version.lineage["checkpoint_uri"] == tmp_path.resolve().as_uri()


def test_a_held_version_is_registered_without_the_alias(tmp_path):
    registry = MemoryRegistry()
    version = register(registry, "arm", Candidate(checkpoint=tmp_path, **records(promote=False)), champion=None)
    assert (version.version, version.alias) == (1, "candidate")
    assert registry.champion("arm") is None


def test_registering_twice_is_once(tmp_path):
    registry = MemoryRegistry()
    first = register(registry, "arm", Candidate(checkpoint=tmp_path, **records()), champion=None, commit="abc")
    assert register(registry, "arm", Candidate(checkpoint=tmp_path, **records()), champion=None, commit="abc") == first
    assert len(registry.versions("arm")) == 1


def test_a_champion_that_changed_since_the_verdict_stops_it(tmp_path):
    registry = MemoryRegistry()
    register(registry, "arm", Candidate(checkpoint=tmp_path, **records("a")), champion=None)
    with pytest.raises(TrackingError, match="someone promoted in between"):
        register(registry, "arm", Candidate(checkpoint=tmp_path, **records("b")), champion=None)


def test_records_of_different_checkpoints_are_refused(tmp_path):
    mixed = {**records("a"), "train": records("b")["train"]}
    with pytest.raises(CheckpointError, match="training is of checkpoint b"):
        register(MemoryRegistry(), "arm", Candidate(checkpoint=tmp_path, **mixed), champion=None)
    other = {**records(), "report": replace(records()["report"], contract_id="f" * 16)}
    with pytest.raises(CheckpointError, match="was evaluated"):
        register(MemoryRegistry(), "arm", Candidate(checkpoint=tmp_path, **other), champion=None)


def test_commit_is_read_from_git_and_unknown_elsewhere(tmp_path):
    assert code_commit(tmp_path) == "unknown"
    run = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*run, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*run, "add", "a"], check=True)
    subprocess.run([*run, "commit", "-q", "-m", "one"], check=True)
    clean = code_commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert code_commit(tmp_path) == f"{clean}+changes"
