"""The stages after the release: workcells act on the served policy, and the report is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts.step_manifest import UNDIGESTED, Step
from components.artifacts.step_store import StepResult
from components.config.recipe import Recipe
from components.config.records import Progress, RunSummary
from components.config.stages import STAGE_NAMES, stage_named
from flows.pipeline.stages.step import StepKey, stage_step
from flows.pipeline.stages.training import simulation_of
from flows.platform.wiring import Platform


def workcells_step(platform: Platform, recipe: Recipe, packaged: Step, progress: Progress) -> StepResult:
    """Serve the Bento and let the cells act: rows, and <step>/recordings for the next ingest."""
    simulation = simulation_of(recipe.collect)

    def work(out: Path) -> Mapping[str, Any]:
        from components.deployment.simulated_cells import run_workcells
        from components.simulation.robot import robot_options

        return run_workcells(
            recipe.workcells,
            packaged.path / "bento",
            out,
            progress,
            tasks=recipe.collect.tasks,
            robot_options=robot_options(simulation),
        )

    return stage_step(platform, StepKey(stage=stage_named("workcells"), recipe=recipe, inputs={"bento": packaged}), work)


def report_step(platform: Platform, recipe: Recipe, made: Mapping[str, Step], summary: RunSummary, progress: Progress) -> StepResult:
    """Write the report of the finished stages: <step>/undigested/report.html with everything it shows inside."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.report.page import write_report

        progress.update(0, 1, "writing")
        write_report(summary, out / UNDIGESTED)
        return {"recipe": recipe.name}

    stage = stage_named("report")
    inputs = {name: made[name] for name in STAGE_NAMES if name in made and name != stage.name}
    return stage_step(platform, StepKey(stage=stage, recipe=recipe, inputs=inputs), work)
