"""What one run is carried by: the platform, the recipe, the panel a person watches, and what was finished so far."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from components.artifacts.step_store import Step, StepResult
from components.config.recipe import Recipe
from components.config.records import Progress
from flows.pipeline import stages
from flows.platform.wiring import Platform
from flows.terminal.stage_progress import StagePanel

Make = Callable[[Progress], StepResult]
PLAIN_STAGES = ("collect", "validate", "annotate", "freeze", "train", "evaluate")


class RunContext:
    """One run of the loop, or of the first part of it."""

    __slots__ = ("name", "panel", "platform", "recipe", "results")

    def __init__(self, *, platform: Platform, recipe: Recipe, panel: StagePanel | None = None, name: str = "") -> None:
        self.platform, self.recipe = platform, recipe
        self.panel = panel or StagePanel(fault=platform.store.fault if platform.settings.fault else None)
        self.name = name or f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{recipe.name}"
        self.results: dict[str, StepResult] = {}

    def do(self, stage: str, make: Make) -> Step:
        """Make a stage's step (or find it) and show it."""
        self.results[stage] = make(self.panel.stage(stage))
        self.panel.finish(stage, self.results[stage])
        return self.results[stage].step

    def keep(self, name: str, stage: str, make: Make) -> Step:
        """A step that belongs to `stage` but makes nothing of its own: sending what was made somewhere."""
        self.results[name] = make(self.panel.stage(stage))
        self.panel.finish(stage, self.results[stage])
        return self.results[name].step

    def steps(self) -> dict[str, Step]:
        """Everything finished so far."""
        return {name: result.step for name, result in self.results.items()}

    def step(self, stage: str) -> Step:
        """The finished step of a stage."""
        return self.results[stage].step


def make_until(context: RunContext, last: str) -> Step:
    """Make the stages up to `last` (one of `PLAIN_STAGES`) one after the other, without Prefect; finished ones are found."""
    platform, recipe = context.platform, context.recipe
    makes: dict[str, Make] = {
        "collect": lambda p: stages.collect_step(platform, recipe, p),
        "validate": lambda p: stages.validate_step(platform, recipe, context.step("collect"), p),
        "annotate": lambda p: stages.annotate_step(platform, recipe, context.step("collect"), context.step("validate"), p),
        "freeze": lambda p: stages.freeze_step(platform, recipe, context.step("collect"), context.step("annotate"), p),
        "train": lambda p: stages.train_step(platform, recipe, context.step("freeze"), p),
        "evaluate": lambda p: stages.evaluate_step(platform, recipe, context.step("train"), context.step("freeze"), p),
    }
    for stage in PLAIN_STAGES[: PLAIN_STAGES.index(last) + 1]:
        context.do(stage, makes[stage])
    return context.step(last)
