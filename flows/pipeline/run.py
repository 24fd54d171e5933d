"""What the commands do: open the platform, carry a recipe through, and end with a table and where to look next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import FinishedSteps, StepNotFinishedError
from components.config.recipe import Recipe
from components.config.records import RunSummary
from components.config.stages import STAGE_NAMES
from flows.pipeline.recipes import RECIPES
from flows.pipeline.run_context import RunContext, make_until
from flows.pipeline.run_summary import account_table, result_table, write_run
from flows.pipeline.stage_records import read_account, read_report, read_verdict
from flows.platform.prefect_server import prefect_api
from flows.platform.settings import load_settings
from flows.platform.wiring import open_platform
from flows.terminal.stage_progress import StagePanel
from model_core.spec.errors import ActwrightError, NotReady
from model_core.spec.files import atomic_write


def begin(recipe: Recipe) -> RunContext:
    """Open the platform and be ready to carry `recipe` through."""
    return RunContext(platform=open_platform(), recipe=recipe)


def run_recipe(recipe: Recipe) -> tuple[RunSummary, Path]:
    """The whole loop as Prefect flows, or, where every step is finished, what was found; returns its summary and its folder."""
    context = begin(recipe)
    summary = finish_found(context)
    if summary is None:
        with prefect_api(context.platform.settings):
            from flows.pipeline.loop import run_loop

            summary = run_loop(context)
    folder = write_run(summary, context.platform.settings.runs)
    console = context.panel.console
    console.print()
    console.print(account_table(summary.account))
    console.print(result_table(summary))
    if not summary.verdict.promote:
        for check in summary.verdict.checks:
            if not check.passed:
                console.print(f"  [red]✗[/red] {check.reason}")
    if note := champion_since(context, summary):
        console.print(f"note: {note}")
    console.print(f"report    {folder / 'report.html'}")
    console.print(f"then try  {_next_command(recipe, summary)}")
    return summary, folder


def _next_command(recipe: Recipe, summary: RunSummary) -> str:
    """What to type after a run. Of a recipe with sources, whose file a person has named, the model is named here."""
    if recipe.data and summary.verdict.promote:
        return f"actwright serve {summary.model_version.name}@champion   (the policy service; a cell of your robot: docs/robots.md)"
    up = f"actwright up {recipe.name}" if recipe.name in RECIPES and recipe.name != "loop" and not recipe.data else "actwright up"
    return f"{up}   (Prefect, MLflow and {'the console' if recipe.data else 'the policy service'})"


def champion_since(context: RunContext, summary: RunSummary) -> str:
    """Who is champion now where a found verdict promoted another version; "" where there is nothing to tell."""
    version = summary.model_version
    if not (summary.verdict.promote and summary.stages["gate"].cached):
        return ""
    entry = context.platform.registry().champion_entry(version.name)
    if entry is None or entry.version == version.version:
        return ""
    now = f"version {entry.version}" if entry.version is not None else "no version"
    why = f"{entry.how}: {entry.reason}" if entry.reason else entry.how
    return (
        f"{version.name}/{version.version} was promoted by this verdict; since number {entry.number} {now} is champion ({why}). "
        f"To make it champion again: `actwright champion promote {version.name}/{version.version} --reason TEXT`"
    )


def finish_found(context: RunContext) -> RunSummary | None:
    """The summary of a run of which every step is finished; None where one is missing, and the run then goes on from those found.

    No server has to be started for it: Prefect's takes longer than to find all steps.
    """
    finds = replace(context.platform, store=FinishedSteps(context.platform.store.root))
    looking = RunContext(platform=finds, recipe=context.recipe, panel=StagePanel(live=False, quiet=True), name=context.name)
    try:
        _carry_out(looking)
        summary = looking.report()
    except (StepNotFinishedError, ActwrightError):  # what is wrong is told where the run meets it
        return None
    finally:
        context.found = looking.results
    with context.panel.shown():
        _carry_out(context)
        context.do("report", lambda _: looking.results["report"])
    return summary


def _carry_out(context: RunContext) -> None:
    """The stages of the recipe up to its report, in their order; none after a gate that holds."""
    for stage in STAGE_NAMES:
        is_last = stage == "package" and not read_verdict(context.step("gate")).promote
        if is_last or stage == "report":
            return
        if stage != "workcells" or not context.recipe.data:
            context.carry_out(stage)


def make_shown(context: RunContext, last: str) -> Step:
    """Make the stages up to `last` and tell what was trained on."""
    with context.panel.shown():
        step = make_until(context, last)
    context.panel.console.print(account_table(read_account(context.steps())))
    return step


def run_seeds(recipe: Recipe, count: int) -> dict[str, Any]:
    """Train and evaluate `count` training seeds on one data set; writes runs/seeds-<recipe>.md and shows it."""
    platform, rows, panel = open_platform(), [], StagePanel()
    for seed in range(count):
        context = RunContext(platform=platform, recipe=replace(recipe, train=replace(recipe.train, seed=seed)), panel=StagePanel())
        with context.panel.shown():
            report = read_report(make_until(context, "evaluate"), recipe.package.embodiment)
        rows += [(seed, task, score) for task, score in sorted(report.per_task.items())]
    lines = ["| training seed | task | solved | 95 % interval |", "|---|---|---|---|"]
    lines += [f"| {s} | {t} | {c.successes}/{c.trials} | {c.interval.low:.0%} .. {c.interval.high:.0%} |" for s, t, c in rows]
    path = platform.settings.runs / f"seeds-{recipe.name}.md"
    atomic_write(path, "\n".join(lines) + "\n")
    panel.print_line("\n".join(lines))
    return {"table": str(path), "seeds": {f"{s}/{t}": [c.successes, c.trials] for s, t, c in rows}}


def latest_summary() -> tuple[Path, Mapping[str, Any]]:
    """The newest run's folder and summary; raises `NotReady` before the first run."""
    folder = load_settings().runs / "latest"
    if not (folder / "summary.json").is_file():
        raise NotReady(f"no run under {folder.parent}; begin with `actwright run`")
    return folder, json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def find_steps(what: str) -> list[Step]:
    """The newest step of a stage, or every step whose key or digest begins with `what`."""
    store = open_platform().store
    if what in STAGE_NAMES:
        found = store.steps(what)[-1:]
    else:
        found = [s for stage in STAGE_NAMES for s in store.steps(stage) if s.digest.startswith(what) or s.manifest.key.startswith(what)]
    if not found:
        raise NotReady(f"no finished step {what!r}; name a stage ({', '.join(STAGE_NAMES)}) or the first digits of a digest")
    return found
