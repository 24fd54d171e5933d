"""Which evaluation of the champion a candidate is judged against, and that the verdict is bound to its content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepStore, run_step
from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.config.records import EvalReport, Interval, ModelVersion, RolloutRow
from components.evaluation.judging.comparison import unlike_rules
from components.evaluation.suites.simulated_tasks import SimulatedTasks
from flows.pipeline.stages.release import evaluation_of
from model_core.spec.documents import to_document

CHAMPION = ModelVersion(name="arm", version=3, contract_id="0" * 16, checkpoint_digest="c" * 64, dataset_version="v1")


def report(digest: str, rows: int, first_seed: int = 930_000) -> EvalReport:
    counted = {"success": True, "stop_reason": "success", "steps": 40, "decisions": 10, "refusals": 0}
    return EvalReport(
        checkpoint_digest=digest,
        contract_id="0" * 16,
        successes=20,
        trials=20,
        interval=Interval(low=0.8, high=1.0, confidence=0.95),
        per_task={},
        episodes=tuple(RolloutRow(task="press", seed=seed, **counted) for seed in range(first_seed, first_seed + 20)),
        protocol={"execute_horizon": rows, "first_seed": first_seed},
    )


@pytest.fixture
def store(tmp_path: Path) -> StepStore:
    return StepStore(tmp_path)


def evaluated(store: StepStore, found: EvalReport) -> Step:
    def work(out: Path) -> dict[str, object]:
        (out / "report.json").write_text(json.dumps(to_document(found)))
        return {"trials": found.trials}

    return run_step(store, stage="evaluate", config=to_document(found), inputs={}, work=work, code_version="1").step


def chosen(store: StepStore, candidate: EvalReport) -> Step | None:
    platform = SimpleNamespace(store=store)
    return evaluation_of(platform, CHAMPION, candidate)  # type: ignore[arg-type]


def test_the_evaluation_under_the_same_rules_counts_else_the_newest(store: StepStore) -> None:
    candidate = report("a" * 64, rows=8)
    assert chosen(store, candidate) is None
    assert evaluated(store, replace(candidate, checkpoint_digest="b" * 64)) is not None  # of another model
    assert chosen(store, candidate) is None
    same = evaluated(store, report(CHAMPION.checkpoint_digest, rows=8))
    newer = evaluated(store, report(CHAMPION.checkpoint_digest, rows=1))
    assert chosen(store, candidate) == same
    assert chosen(store, report("a" * 64, rows=1)) == newer
    assert chosen(store, report("a" * 64, rows=2)) == newer  # the gate will say in what they differ
    elsewhere = evaluated(store, report(CHAMPION.checkpoint_digest, rows=8, first_seed=940_000))
    assert chosen(store, candidate) == same
    assert chosen(store, report("a" * 64, rows=8, first_seed=940_000)) == elsewhere
    assert len({step.digest for step in (same, newer, elsewhere)}) == 3  # an input of the gate: its verdict is not kept for another one


def test_a_simulator_of_ones_own_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    suite = SimulatedTasks(EvalConfig(), CollectConfig(simulator="bench_arm:Arm"))
    (tmp_path / "bench_arm.py").write_text("friction = 0.4\n")
    before = suite.version
    assert before.startswith("bench_arm ")
    (tmp_path / "bench_arm.py").write_text("friction = 0.7\n")
    after = suite.version
    assert before != after
    candidate, champion = report("a" * 64, rows=8), report(CHAMPION.checkpoint_digest, rows=8)
    told = {"suite": suite.name, "suite_version": after}
    old = {"suite": suite.name, "suite_version": ""}  # what such reports had before
    examined = replace(candidate, protocol={**candidate.protocol, **told})
    assert not unlike_rules(examined, replace(champion, protocol={**champion.protocol, **old}))
    unlike = unlike_rules(examined, replace(champion, protocol={**champion.protocol, **told, "suite_version": before}))
    assert unlike == (f"suite_version {before!r} -> {after!r}",)
