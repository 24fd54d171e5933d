"""A look at the store before a run: what is finished already is neither made nor asked for twice.

Where everything is, no server has to start: Prefect's takes longer than to find all steps.
"""

from __future__ import annotations

from dataclasses import replace

from components.artifacts.step_store import FinishedSteps, StepNotFinishedError
from components.config.records import RunSummary
from components.config.stages import STAGE_NAMES
from flows.pipeline.run_context import RunContext
from flows.pipeline.stage_records import read_verdict
from flows.terminal.stage_progress import StagePanel
from model_core.spec.errors import ActwrightError


def finish_found(context: RunContext) -> RunSummary | None:
    """The summary of a run of which every step is finished; None where one is missing, and the run then goes on from those found."""
    finds = replace(context.platform, store=FinishedSteps(context.platform.store.root))
    looking = RunContext(platform=finds, recipe=context.recipe, panel=StagePanel(live=False, quiet=True), name=context.name)
    try:
        _carry_out(looking)
        looking.report()
    except (StepNotFinishedError, ActwrightError):  # what is wrong is told where the run meets it
        context.found = looking.results
        return None
    context.found = looking.results
    with context.panel.shown():
        _carry_out(context)
        return context.report()


def _carry_out(context: RunContext) -> None:
    """The stages of the recipe up to its report, in their order; none after a gate that holds."""
    for stage in STAGE_NAMES:
        is_last = stage == "package" and not read_verdict(context.step("gate")).promote
        if is_last or stage == "report":
            return
        if stage != "workcells" or not context.recipe.data:
            context.carry_out(stage)
