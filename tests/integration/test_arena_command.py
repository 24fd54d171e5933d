"""`actwright study arena` on finished steps of a real store: files, groups, runs that MLflow compares, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.artifacts.empty_databases import copy_database
from components.artifacts.step_store import StepStore
from components.config.records import EvalReport, Interval, RolloutRow
from components.evaluation.suites.benchmark import Benchmark
from components.evaluation.suites.metaworld import metaworld_loop
from components.evaluation.suites.results import result_of
from flows.commands.main import command_line
from flows.pipeline.stages.suite import RESULT
from model_core.spec.documents import to_document


def called(*words: object):
    return CliRunner().invoke(command_line("study"), ["study", *map(str, words)])


def ran(suite: Benchmark, solved: int, digest: str, reasoning: str = "full") -> EvalReport:
    """The evaluation of a policy that solves the first `solved` states of each task."""
    rows = [
        RolloutRow(
            task=case.task,
            seed=case.seed,
            success=is_solved,
            stop_reason="success" if is_solved else "max_steps",
            steps=9,
            decisions=3,
            refusals=0,
        )
        for case in suite.cases()
        for is_solved in [case.seed - suite.first_seed < solved]
    ]
    return EvalReport(
        checkpoint_digest=digest * 64,
        contract_id="0" * 16,
        successes=0,
        trials=0,
        interval=Interval(low=0.0, high=1.0),
        per_task={},
        episodes=tuple(rows),
        protocol={**suite.rules, "suite": suite.name, "suite_version": suite.version, "first_seed": 1000, "reasoning": reasoning},
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three policies on 20 states of each task, the third at another level of reasoning: as `actwright suite run` leaves them."""
    copy_database("mlflow", tmp_path / "home" / "mlflow.db")
    for name, folder in (("HOME", "home"), ("RUNS", "runs"), ("DATA", "data"), ("STORAGE", "")):
        monkeypatch.setenv(f"ACTWRIGHT_{name}", str(tmp_path / folder) if folder else f"folder:{tmp_path / 'storage'}")
    suite, store = metaworld_loop().chosen(count=20), StepStore(tmp_path / "home" / "store")
    for name, solved, reasoning in (("a", 20, "full"), ("b", 19, "full"), ("c", 4, "action")):
        report = ran(suite, solved, name, reasoning)
        (store.open("suite", name * 16) / "report.json").write_text(json.dumps(to_document(report)))
        store.commit("suite", name * 16, {}, {}, {})
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULT).write_text(json.dumps(to_document(result_of(suite, report))))
    return tmp_path


def test_finished_suites_become_ratings_and_groups(home: Path) -> None:
    from mlflow import MlflowClient

    found = called("arena", f"one={home / 'a'}", f"two={home / 'b'}", home / "c", "--resamples", "200")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["groups"] == [["one", "two"], ["c" * 12]]
    assert told["better"] == [["one", "c" * 12], ["two", "c" * 12]]
    assert "one is better than cccccccccccc" in found.stderr
    assert "one and two are one group" in found.stderr
    assert "Policies differ in reasoning: one full, two full, cccccccccccc action." in found.stderr
    for name in ("result", "table", "picture", "page"):
        assert Path(told[name]).stat().st_size > 500
    runs = _runs(MlflowClient(tracking_uri=f"sqlite:///{home / 'home' / 'mlflow.db'}"))
    assert sorted(runs) == ["arena cccccccccccc", "arena one", "arena two"]
    assert runs["arena one"].data.metrics["elo"] == told["elo"]["one"][0]
    assert runs["arena cccccccccccc"].data.metrics["success_rate"] == pytest.approx(0.2)
    again = called("arena", home / "c", f"two={home / 'b'}", f"one={home / 'a'}", "--resamples", "200")
    assert json.loads(again.stdout) == told
    assert len(_runs(MlflowClient(tracking_uri=f"sqlite:///{home / 'home' / 'mlflow.db'}"))) == 3


def test_what_is_no_evaluation_of_this_home_is_refused(home: Path) -> None:
    suite = metaworld_loop().chosen(count=20)
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / RESULT).write_text(json.dumps(to_document(result_of(suite, ran(suite, 3, "d")))))
    for place, words in ((home / "nothing", "expected a finished evaluation"), (home / "elsewhere", "sums cannot be paired")):
        found = called("arena", home / "a", place)
        assert found.exit_code == 2
        message = " ".join(found.stderr.replace("│", " ").split())
        assert words in message
        assert "Fix: " in message


def _runs(client):
    experiments = [one.experiment_id for one in client.search_experiments()]
    return {str(run.info.run_name): run for run in client.search_runs(experiments)}
