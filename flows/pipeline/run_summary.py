"""What came of a run, for people and programs: the summary, its file, the table at the end and the verdict's page."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from components.artifacts.files import write_text_atomically
from components.artifacts.step_store import UNDIGESTED, Step
from components.config.records import STAGES, RunSummary, StageTiming, Verdict
from components.report.page import summary as summary_of
from components.report.page import write_report
from flows.pipeline import stages

if TYPE_CHECKING:
    from flows.pipeline.run_context import RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run's summary, where its page was drawn (None before the report stage), and MLflow's own id of the training."""

    summary: RunSummary
    drawn: Path | None = None
    server_run_id: str = ""

    def stage_rows(self) -> list[dict[str, Any]]:
        """One row a stage, for Prefect's table artifact."""
        return [
            {"stage": n, "seconds": round(t.seconds, 1), "cached": t.cached, "digest": t.digest[:12]}
            for n, t in self.summary.stages.items()
        ]

    def write(self, runs: Path) -> Path:
        """Fill runs/<name>/ and point runs/latest at it; returns the folder."""
        folder = runs / self.summary.name
        folder.mkdir(parents=True, exist_ok=True)
        if self.drawn is not None:
            shutil.copytree(self.drawn, folder, dirs_exist_ok=True)
            if not _tells_of(self.summary.name, self.drawn):  # a page that was found was drawn by the run that made it, under its name
                stages = {name: stage for name, stage in self.summary.stages.items() if name != "report"}
                write_report(replace(self.summary, stages=stages), folder, server_run_id=self.server_run_id)
        document = summary_of(self.summary, server_run_id=self.server_run_id)
        document["stages"] = {n: {**row, "digest": self.summary.stages[n].digest} for n, row in document["stages"].items()}
        write_text_atomically(folder / "summary.json", json.dumps(document, indent=1) + "\n")
        beside = runs / f".latest.{os.getpid()}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(self.summary.name)
        os.replace(beside, runs / "latest")
        return folder


def summarize(context: RunContext) -> Outcome:
    """The summary of the stages that are finished; needs collect to gate."""
    made = context.steps()
    quarantined = int(made["validate"].record.get("quarantined", 0))
    summary = RunSummary(
        name=context.name,
        recipe_name=context.recipe.name,
        recipe=context.recipe.to_json(),
        stages={
            name: StageTiming(seconds=r.seconds, cached=r.cached, digest=r.step.digest)
            for name, r in ((n, context.results[n]) for n in STAGES if n in context.results)
        },
        dataset=stages.read_dataset(made["freeze"], quarantined, stages.producers_of(made["collect"], context.recipe)),
        train=stages.read_train_run(made["train"]),
        evaluation=stages.read_report(made["evaluate"]),
        verdict=stages.read_verdict(made["gate"]),
        model_version=stages.read_model_version(made["gate"]),
        workcells=stages.read_workcells(made["workcells"]) if "workcells" in made else (),
        paths={name: str(step.path) for name, step in made.items()},
    )
    server_run_id = context.platform.tracker().server_run_id(summary.train.run_id)
    return Outcome(summary=summary, drawn=_drawn(made.get("report")), server_run_id=server_run_id)


def _tells_of(run: str, drawn: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((drawn / "summary.json").read_text(encoding="utf-8"))["name"] == run
    return False


def _drawn(report: Step | None) -> Path | None:
    return report.path / UNDIGESTED if report is not None else None


def verdict_page(verdict: Verdict) -> str:
    """The gate's decision as Markdown."""
    lines = [f"- {'✓' if check.passed else '✗'} **{check.name}**: {check.reason}" for check in verdict.checks]
    return "\n".join([f"# {'Promoted' if verdict.promote else 'Held'}", "", *(lines or [f"- {reason}" for reason in verdict.reasons])])


def outcome_table(summary: RunSummary) -> Table:
    """The table at the end of a run."""
    table = Table(title=f"{summary.recipe_name}: {'promoted' if summary.verdict.promote else 'held by the gate'}", title_justify="left")
    for name in ("who", "task", "solved", "95 % interval", "p50 / p99 ms"):
        table.add_column(name, justify="left" if name in ("who", "task") else "right")
    for task, score in summary.evaluation.per_task.items():
        interval = f"{score.interval.low:.0%} .. {score.interval.high:.0%}"
        table.add_row("evaluation", task, f"{score.successes}/{score.trials}", interval, "")
    for row in summary.workcells:
        table.add_row(row.cell, row.task, f"{row.successes}/{row.episodes}", "", f"{row.p50_ms:.0f} / {row.p99_ms:.0f}")
    return table
