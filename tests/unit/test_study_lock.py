"""The gate's comparison is locked before the candidate's first trial, with the design that the gate finds afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepStore, run_step
from components.config.recipe import Recipe
from components.config.records import RolloutRow
from components.evaluation.evaluate import make_report
from components.evaluation.studies.design import is_locked, read_design
from components.evaluation.studies.evidence import design_of
from components.evaluation.suite import open_suite
from flows.pipeline.stages.comparison import Comparison, further_pairs
from flows.pipeline.stages.study_lock import lock_before_trials
from flows.pipeline.stages.training import simulation_of
from model_core.spec.documents import to_document
from tests.toy_policy import CONTRACT
from tests.tracking_twins import MemoryRegistry

RECIPE = Recipe(name="locked")
SUITE = open_suite(RECIPE.evaluate, simulation_of(RECIPE.collect))


def rows(seeds):
    counted = {"success": True, "stop_reason": "success", "steps": 40, "decisions": 10, "refusals": 0}
    return [RolloutRow(task=task, seed=seed, **counted) for task in RECIPE.collect.tasks for seed in seeds]


def report(letter, seeds=range(930_000, 930_020)):
    return make_report(RECIPE.evaluate, SUITE, CONTRACT, letter * 64, rows(seeds), {"image_swap_change": 0.9})


@pytest.fixture
def platform(tmp_path):
    registry = MemoryRegistry()
    return SimpleNamespace(store=StepStore(tmp_path / "store"), settings=SimpleNamespace(home=tmp_path), registry=lambda: registry)


def made(platform, stage, record, files):
    def work(out: Path):
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(json.dumps(content))
        return record

    return run_step(platform.store, stage=stage, config=record, inputs={}, work=work, code_version="1").step


def trained(platform, letter) -> Step:
    return made(platform, "train", {"checkpoint_digest": letter * 64}, {"checkpoint/contract.json": CONTRACT.to_json()})


def promote(platform, letter):
    registry = platform.registry()
    known = {"checkpoint_uri": "", "contract_id": CONTRACT.contract_id, "run_id": "", "lineage": {}}
    version = registry.create_version(RECIPE.package.model_name, checkpoint_digest=letter * 64, **known)
    registry.promote(version, expected=None)


def test_the_design_is_the_one_that_the_gate_finds_after_the_evaluation(platform, tmp_path):
    candidate = trained(platform, "a")
    assert lock_before_trials(platform, RECIPE, candidate) == "", "there is no champion"
    promote(platform, "c")
    assert lock_before_trials(platform, RECIPE, candidate) == "", "the champion was never evaluated here"
    made(platform, "evaluate", to_document(report("c")), {"report.json": to_document(report("c"))})
    name = lock_before_trials(platform, RECIPE, candidate)
    afterwards = design_of(RECIPE.gate, report("a"), report("c"))
    assert name == afterwards.digest[:16]
    assert is_locked(tmp_path / "studies", afterwards)
    assert not (tmp_path / "studies" / name / "trials.jsonl").exists(), "no trial yet"


def test_a_design_that_is_locked_after_the_evaluation_says_so(platform, tmp_path):
    candidate, champion = report("a"), report("c")
    compared = Comparison(candidate=candidate, champion=champion, evidence=("1", "2"), trained=trained(platform, "a"), trained_before=None)
    late = further_pairs(platform, RECIPE, compared, SimpleNamespace(update=lambda *_: None))
    assert read_design(tmp_path / "studies" / late.study).evaluated_before
    promote(platform, "c")
    made(platform, "evaluate", to_document(champion), {"report.json": to_document(champion)})
    name = lock_before_trials(platform, RECIPE, trained(platform, "a"))
    early = further_pairs(platform, RECIPE, replace(compared), SimpleNamespace(update=lambda *_: None))
    assert (early.study, read_design(tmp_path / "studies" / name).evaluated_before) == (name, False)
