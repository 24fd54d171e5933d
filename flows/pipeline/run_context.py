"""What one run works with: the platform, the recipe, the panel that a person watches, and the steps finished so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepResult
from components.config.recipe import Recipe
from components.config.records import Progress, RunSummary
from components.config.stages import LOCAL_STAGES, stages_of
from flows.pipeline import storage
from flows.pipeline.run_summary import summarize, with_report
from flows.pipeline.stage_records import read_account
from flows.pipeline.stages import data, deployment, release, study_lock, training
from flows.platform.wiring import Platform
from flows.terminal.stage_progress import StagePanel

Make = Callable[[Progress], StepResult]


class RunContext:
    """One run of the loop, or of the first part of it. found: steps that a look before the run found finished. launch: trains elsewhere."""

    __slots__ = ("found", "launch", "name", "panel", "platform", "recipe", "results")

    def __init__(
        self, *, platform: Platform, recipe: Recipe, panel: StagePanel | None = None, name: str = "", launch: training.Launch | None = None
    ) -> None:
        self.platform, self.recipe, self.launch = platform, recipe, launch
        titles = {stage.name: stage.title for stage in stages_of(recipe)}
        self.panel = panel or StagePanel(fault=platform.store.fault if platform.settings.fault else None, titles=titles)
        self.name = name or f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{recipe.name}"
        self.results: dict[str, StepResult] = {}
        self.found: Mapping[str, StepResult] = {}

    def make(self, stage: str) -> Step:
        """Make a stage's step (or find it) from the steps finished so far."""
        return self.do(stage, lambda progress: MAKERS[stage](self, progress))

    def do(self, stage: str, make: Make) -> Step:
        """Make a stage's step (or find it) by `make` and show it."""
        return self.keep(stage, stage, make)

    def keep(self, name: str, stage: str, make: Make) -> Step:
        """A step that belongs to `stage` under a name of its own, such as sending the stage's result somewhere."""
        progress = self.panel.stage(stage)
        self.results[name] = self.found.get(name) or make(progress)
        self.panel.finish(stage, self.results[stage])
        if name == stage:
            for note in self.results[stage].step.record.get("notes", ()):
                self.panel.print_line(f"note: {note}")
        return self.results[name].step

    def carry_out(self, stage: str) -> Step:
        """What the task of a stage does: make its step, and send it where it is kept."""
        step = self.make(stage)
        if stage in KEEPERS:
            name, send = KEEPERS[stage]
            self.keep(name, stage, lambda progress: send(self, progress))
        return step

    def report(self) -> RunSummary:
        """Summarize the run and write its report."""
        summary = self.summary()
        self.do("report", lambda progress: deployment.report_step(self.platform, self.recipe, self.steps(), summary, progress))
        return with_report(summary, self.results["report"])

    def steps(self) -> dict[str, Step]:
        """Every step finished so far."""
        return {name: result.step for name, result in self.results.items()}

    def step(self, stage: str) -> Step:
        """The finished step of a stage."""
        return self.results[stage].step

    def summary(self) -> RunSummary:
        """The summary of the stages that are finished; needs collect to gate."""
        return summarize(self.name, self.recipe, self.results, self.platform.tracker())


# how a stage is made from the steps before it; the report is made from a summary of them (see loop)
MAKERS: Mapping[str, Callable[[RunContext, Progress], StepResult]] = {
    "collect": lambda c, progress: data.collect_step(c.platform, c.recipe, progress),
    "validate": lambda c, progress: data.validate_step(c.platform, c.recipe, c.step("collect"), progress),
    "annotate": lambda c, progress: data.annotate_step(c.platform, c.recipe, c.step("collect"), c.step("validate"), progress),
    "freeze": lambda c, progress: data.freeze_step(c.platform, c.recipe, c.step("collect"), c.step("annotate"), progress),
    "train": lambda c, progress: training.train_step(c.platform, c.recipe, c.step("freeze"), progress, c.launch, read_account(c.steps())),
    "evaluate": lambda c, progress: study_lock.locked_evaluation(c.platform, c.recipe, c.step("train"), c.step("freeze"), progress),
    "gate": lambda c, progress: release.gate_step(c.platform, c.recipe, c.step("evaluate"), c.step("train"), c.step("freeze"), progress),
    "package": lambda c, progress: release.package_step(c.platform, c.recipe, c.step("train"), c.step("freeze"), c.step("gate"), progress),
    "workcells": lambda c, progress: deployment.workcells_step(c.platform, c.recipe, c.step("package"), progress),
}

# where the result of a stage is sent: the name of that step, and how
KEEPERS: Mapping[str, tuple[str, Callable[[RunContext, Progress], StepResult]]] = {
    "collect": ("upload", lambda c, progress: storage.keep_raw(c.platform, c.step("collect"), progress)),
    "freeze": ("vault", lambda c, progress: storage.keep_version(c.platform, c.recipe, c.steps(), progress)),
    "workcells": ("recordings", lambda c, progress: storage.keep_recordings(c.platform, c.step("workcells"), progress)),
}


def make_until(context: RunContext, last: str) -> Step:
    """Make the stages up to `last` (one of `LOCAL_STAGES`) one after the other, without Prefect; finished ones are found."""
    for stage in LOCAL_STAGES[: LOCAL_STAGES.index(last) + 1]:
        context.make(stage)
    return context.step(last)
