"""Ablations: what each variant changes, what the plan finds, and the table of trainings that are compared seed by seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.artifacts.step_store import StepStore
from components.config.recipe import Recipe
from components.config.records import EvalReport, RolloutRow
from components.evaluation.arena.ablation import APART, pooled
from components.evaluation.arena.variants import BASE, MAKERS, variants_of
from components.evaluation.evaluate import make_report
from components.evaluation.suite import open_suite
from flows.pipeline.recipes import get_recipe
from flows.pipeline.run_context import RunContext
from flows.pipeline.studies.ablation import TABLE, plan_ablation, plan_lines, run_ablation
from flows.platform.settings import load_settings
from flows.platform.wiring import Platform
from model_core.spec.errors import GateError, SpecError
from tests.fakes import make_contract
from tests.tracking_twins import NullTracker


class Untracked(Platform):
    """A platform without a tracking server."""

    def tracker(self) -> NullTracker:
        return NullTracker()


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    settings = load_settings().model_copy(update={"home": tmp_path / "home", "runs": tmp_path / "runs"})
    return Untracked(settings=settings, store=StepStore(settings.store_root))


def miniature() -> Recipe:
    recipe = get_recipe("miniature")
    return replace(recipe, evaluate=replace(recipe.evaluate, seeds_per_task=10))


def answered(context: RunContext) -> EvalReport:
    """The evaluation of a recipe as the evaluation writes it: with depth all is solved, without it every third case."""
    cfg = context.recipe.evaluate
    suite = open_suite(cfg, context.recipe.collect)
    rows = []
    for case in suite.cases():
        success = cfg.reasoning == "full" or case.seed % 3 == 0
        reason = "success" if success else "max_steps"
        rows.append(RolloutRow(task=case.task, seed=case.seed, success=success, stop_reason=reason, steps=4, decisions=1, refusals=0))
    return make_report(cfg, suite, make_contract(), f"{context.recipe.train.seed:064d}", rows, {})


def test_a_variant_changes_one_thing_and_no_budget() -> None:
    base, *others = variants_of(miniature())
    answers = ["answers-reuse-depth", "answers-trace+action", "answers-action"]
    assert [base.name, *(one.name for one in others)] == [BASE, *answers, "steered", "without-depth", "without-labels"]
    assert all(one.recipe.train == base.recipe.train and one.recipe.collect == base.recipe.collect for one in others)
    levels = ["reuse-depth", "trace+action", "action", "full", "trace+action", "action"]
    assert [one.recipe.evaluate.reasoning for one in others] == levels
    assert [one.recipe.evaluate.steering for one in others] == ["none", "none", "none", "whole", "none", "none"]
    assert [one.recipe.annotate.has_depth for one in others] == [True, True, True, True, False, False]
    assert [one.recipe.annotate.is_labelled for one in others] == [True, True, True, True, True, False]
    started = variants_of(miniature(), ["mid-training"], "checkpoints/mid")[1].recipe
    assert started == replace(base.recipe, train=replace(base.recipe.train, init_from="checkpoints/mid"))
    assert variants_of(started, ["mid-training"])[1].recipe == base.recipe


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["no-depth"], "no such variants: no-depth. Fix: choose among answers-reuse-depth, answers-trace"),
        (["mid-training"], "is the recipe as it is. Fix: name the folder of a checkpoint: --start FOLDER"),
        (["without-depth", "without-depth"], "named twice"),
    ],
)
def test_variants_that_cannot_be_are_refused(names: list[str], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        variants_of(miniature(), names)


def test_the_plan_runs_nothing_and_tells_which_trainings_are_shared(platform: Platform) -> None:
    variants = variants_of(miniature(), ["answers-action", "without-depth"])
    planned = plan_ablation(platform, variants, 2)
    assert [(one.variant, one.seed, one.as_variant) for one in planned] == [
        (BASE, 0, ""),
        (BASE, 1, ""),
        ("answers-action", 0, BASE),
        ("answers-action", 1, BASE),
        ("without-depth", 0, ""),
        ("without-depth", 1, ""),
    ]
    assert {one.missing for one in planned} == {("collect", "validate", "annotate", "freeze", "train", "evaluate")}
    assert plan_lines(variants, planned)[-1] == "4 trainings of 6 steps of 8 samples; 6 evaluations of 10 cases of each task"
    assert not list(platform.settings.home.glob("store/[a-z]*/*"))  # no step, and none begun


def test_variants_are_compared_seed_by_seed_and_scene_by_scene(platform: Platform) -> None:
    variants = variants_of(miniature(), ["answers-action"])
    result, folder = run_ablation(platform, variants, 2, "actwright study ablate miniature", answered)
    cases = 2 * 10 * len(miniature().collect.tasks)
    assert (result.cases, {one.name for one in result.standings}) == (cases, {BASE, "answers-action"})
    (pair,) = result.pairs
    assert pair.better == BASE
    assert pair.wins + pair.losses + pair.ties == cases
    table = (folder / TABLE).read_text()
    assert "base is better than answers-action" in table
    assert f"| base | the recipe as it is | {cases}/{cases} | 100.0 % |" in table
    lost = max(pair.wins, pair.losses) / cases
    assert f"| {-lost:+.3f} | " in table
    assert "seeds 0 to 1" in table


def test_a_variant_that_fails_the_image_swap_check_is_left_out_and_named(platform: Platform) -> None:
    def blind(context: RunContext) -> EvalReport:
        if not context.recipe.annotate.is_labelled:
            raise GateError("the policy ignores the image")
        return answered(context)

    result, folder = run_ablation(platform, variants_of(miniature(), ["answers-action", "without-labels"]), 1, "", blind)
    assert len(result.standings) == 2
    assert "- without-labels is left out: the policy ignores the image" in (folder / TABLE).read_text()


def test_scenes_of_several_trainings_are_cases_of_their_own(platform: Platform) -> None:
    report = answered(RunContext(platform=platform, recipe=miniature()))
    both = pooled([report, replace(report, checkpoint_digest="f" * 64)])
    assert len({(row.task, row.seed) for row in both.episodes}) == 2 * len(report.episodes)
    assert both.episodes[-1].seed == report.episodes[-1].seed + APART
    assert pooled([report]) == report


def test_every_variant_has_a_question() -> None:
    assert all(question.endswith("?") for question, _ in MAKERS.values())
