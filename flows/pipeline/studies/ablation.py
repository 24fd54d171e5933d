"""An ablation: each variant of a recipe goes through the same stages as any run, and finished steps are found and not made again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from components.artifacts.step_store import FinishedSteps, StepNotFinishedError
from components.config.recipe import Recipe
from components.config.records import EvalReport
from components.config.stages import LOCAL_STAGES
from components.evaluation.arena.ablation import ablation_markdown, pooled
from components.evaluation.arena.standings import ArenaResult, ArenaRules, Evaluated, arena_of
from components.evaluation.arena.variants import BASE, Variant, is_trained_as
from flows.pipeline.run_context import RunContext, make_until
from flows.pipeline.stage_records import read_report
from flows.pipeline.studies.arena import write_arena
from flows.platform.wiring import Platform
from flows.terminal.stage_progress import StagePanel
from model_core.spec.errors import ActwrightError, GateError
from model_core.spec.files import atomic_write

TABLE = "ablation.md"
LAST = "evaluate"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTraining:
    """One training of a variant. found, missing: stages that are finished, and to be made. as_variant: who has the same training before."""

    variant: str
    seed: int
    found: tuple[str, ...]
    missing: tuple[str, ...]
    as_variant: str = ""


def plan_ablation(platform: Platform, variants: Sequence[Variant], trainings: int) -> list[PlannedTraining]:
    """What would be found and what made; nothing is run."""
    planned: list[PlannedTraining] = []
    for variant in variants:
        earlier = next((one.name for one in variants[: variants.index(variant)] if is_trained_as(variant.recipe, one.recipe)), "")
        for number in range(trainings):
            recipe = variant.seeded(number)
            found = _found(platform, recipe)
            missing = tuple(stage for stage in LOCAL_STAGES[: LOCAL_STAGES.index(LAST) + 1] if stage not in found)
            planned.append(PlannedTraining(variant=variant.name, seed=recipe.train.seed, found=found, missing=missing, as_variant=earlier))
    return planned


def plan_lines(variants: Sequence[Variant], planned: Sequence[PlannedTraining]) -> list[str]:
    """The plan in sentences."""
    base = variants[0].recipe
    lines = [f"{one.name}: {one.question}" for one in variants]
    for one in planned:
        shares = f"; has the training of {one.as_variant}" if one.as_variant and "train" in one.missing else ""
        made = f"to make: {', '.join(one.missing)}" if one.missing else "finished"
        found = f" (found: {', '.join(one.found)})" if one.found and one.missing else ""
        lines.append(f"  {one.variant}, training seed {one.seed}: {made}{found}{shares}")
    trainings = sum("train" in one.missing and not one.as_variant for one in planned)
    lines.append(
        f"{trainings} trainings of {base.train.steps} steps of {base.train.global_batch} samples; "
        f"{sum(LAST in one.missing for one in planned)} evaluations of {base.evaluate.seeds_per_task} cases of each task"
    )
    return lines


def run_ablation(
    platform: Platform,
    variants: Sequence[Variant],
    trainings: int,
    command: str,
    carry_out: Callable[[RunContext], EvalReport] | None = None,
) -> tuple[ArenaResult, Path]:
    """Train and evaluate every variant as often as asked, compare them, and write the table, the picture, the page and the tracker's runs.

    A variant that fails the image-swap check is left out and told; the base must pass. carry_out: how one recipe becomes an evaluation
    (default: its stages). Raises what the stages raise, and as `arena_of` does.
    """
    entries, left_out = list[Evaluated](), dict[str, str]()
    for variant in variants:
        reports = list[EvalReport]()
        try:
            for number in range(trainings):
                context = RunContext(platform=platform, recipe=variant.seeded(number))
                context.panel.print_line(f"{variant.name}, training seed {context.recipe.train.seed}")
                reports.append((carry_out or _carried_out)(context))
        except GateError as error:
            if variant.name == BASE:
                raise
            left_out[variant.name] = str(error)
            continue
        entries.append(Evaluated(name=variant.name, report=pooled(reports)))
    result = arena_of(entries, ArenaRules())
    folder = write_arena(platform, result, command)
    atomic_write(folder / TABLE, ablation_markdown(result, variants, trainings, left_out))
    return result, folder


def _carried_out(context: RunContext) -> EvalReport:
    with context.panel.shown():
        return read_report(make_until(context, LAST), context.recipe.package.embodiment)


def _found(platform: Platform, recipe: Recipe) -> tuple[str, ...]:
    looking = RunContext(
        platform=replace(platform, store=FinishedSteps(platform.store.root)), recipe=recipe, panel=StagePanel(live=False, quiet=True)
    )
    with contextlib.suppress(StepNotFinishedError, ActwrightError):  # what is wrong is told where the run meets it
        make_until(looking, LAST)
    return tuple(looking.results)
