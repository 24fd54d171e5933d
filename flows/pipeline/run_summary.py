"""What a run did, for people and programs: its summary, its folder, the table at the end and the verdict's page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from components.artifacts.step_manifest import UNDIGESTED
from components.artifacts.step_store import StepResult
from components.config.ports import Tracker
from components.config.recipe import Recipe
from components.config.records import AccountRow, RunSummary, StageTiming
from components.config.stages import STAGE_NAMES
from components.evaluation.judging.documents import title_of, verdict_junit, verdict_markdown
from components.report.page import write_report, write_summary
from components.report.view import fallen_away
from flows.pipeline import stage_records as records
from model_core.spec.files import atomic_write, writer_name

REPORT = "report"


def summarize(name: str, recipe: Recipe, results: Mapping[str, StepResult], tracker: Tracker) -> RunSummary:
    """The summary of the stages that are finished; needs collect to gate."""
    made = {stage: result.step for stage, result in results.items()}
    quarantined = int(made["validate"].record.get("quarantined", 0))
    training = records.read_train_run(made["train"])
    return RunSummary(
        name=name,
        recipe_name=recipe.name,
        recipe=recipe.to_json(),
        stages={stage: _timing(results[stage]) for stage in STAGE_NAMES if stage in results},
        dataset=records.read_dataset(made["freeze"], quarantined, records.producers_of(made["collect"], recipe)),
        train=training,
        evaluation=records.read_report(made["evaluate"], recipe.package.embodiment),
        verdict=records.read_verdict(made["gate"]),
        model_version=records.read_model_version(made["gate"]),
        workcells=records.read_workcells(made["workcells"]) if "workcells" in made else (),
        paths={stage: str(step.path) for stage, step in made.items()},
        tracker_run_id=tracker.server_run_id(training.run_id),
        account=records.read_account(made),
        notes=records.read_notes(made),
    )


def with_report(summary: RunSummary, result: StepResult) -> RunSummary:
    """The summary of a run whose report was just written (or found)."""
    return replace(summary, stages={**summary.stages, REPORT: _timing(result)}, paths={**summary.paths, REPORT: str(result.step.path)})


def stage_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """One row per stage, for Prefect's table artifact."""
    return [
        {"stage": name, "seconds": round(timing.seconds, 1), "cached": timing.cached, "digest": timing.digest[:12]}
        for name, timing in summary.stages.items()
    ]


def write_run(summary: RunSummary, runs: Path) -> Path:
    """Fill runs/<name>/ with the report and the summary, and point runs/latest at it; returns the folder."""
    folder = runs / summary.name
    folder.mkdir(parents=True, exist_ok=True)
    if REPORT in summary.paths:
        if summary.stages[REPORT].cached:  # the page in the store was written by an earlier run, and shows its name
            stages = {name: timing for name, timing in summary.stages.items() if name != REPORT}
            write_report(replace(summary, stages=stages), folder)
        else:
            shutil.copytree(Path(summary.paths[REPORT]) / UNDIGESTED, folder, dirs_exist_ok=True)
    write_summary(summary, folder)
    atomic_write(folder / "gate.md", verdict_markdown(summary.verdict))
    atomic_write(folder / "gate.xml", verdict_junit(summary.verdict))
    beside = runs / f".latest.{writer_name()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(summary.name)
    os.replace(beside, runs / "latest")
    return folder


def _timing(result: StepResult) -> StageTiming:
    return StageTiming(seconds=result.seconds, cached=result.cached, digest=result.step.digest)


def account_table(rows: Sequence[AccountRow]) -> Table:
    """What a run trained on and what fell away where: a row for each stage and source."""
    table = Table(title="what it trained on, and what fell away where", title_justify="left")
    for name in ("stage", "source", "episodes", "frames", "fell away"):
        table.add_column(name, justify="right" if name in ("episodes", "frames") else "left")
    for row in rows:
        lost = "; ".join(f"{fallen_away(one)}: {one.reason}" for one in row.dropped)
        if row.intervened:
            lost += f"{'; ' if lost else ''}(a person acted in {row.intervened:,} of the frames)"
        table.add_row(*(Text(cell) for cell in (row.stage, row.source or "all", f"{row.episodes:,}", f"{row.frames:,}", lost)))
    return table


def result_table(summary: RunSummary) -> Table:
    """The table at the end of a run."""
    table = Table(title=f"{summary.recipe_name}: {title_of(summary.verdict).lower()}", title_justify="left")
    for name in ("who", "task", "solved", "95 % interval", "p50 / p99 ms"):
        table.add_column(name, justify="left" if name in ("who", "task") else "right")
    for task, score in summary.evaluation.per_task.items():
        interval = f"{score.interval.low:.0%} .. {score.interval.high:.0%}"
        table.add_row("evaluation", task, f"{score.successes}/{score.trials}", interval, "")
    if found := summary.evaluation.open_loop:
        table.add_row("held-out episodes", f"error {found['error_ratio']:.2f} of that of the mean action", "", "", "")
    for row in summary.workcells:
        table.add_row(row.cell, row.task, f"{row.successes}/{row.episodes}", "", f"{row.p50_ms:.0f} / {row.p99_ms:.0f}")
    return table
