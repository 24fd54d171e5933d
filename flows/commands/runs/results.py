"""`actwright report` and `actwright show`: where the newest report is, and the record of a finished step."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.terminal.output import print_line, print_result


def report() -> None:
    """Print where the newest run's report is and what the gate decided.

    Example: actwright report
    """
    from flows.pipeline.run import latest_summary

    folder, summary = latest_summary()
    files = {"report": str(folder / "report.html"), "summary": str(folder / "summary.json")}
    print_result(**files, verdict=summary["verdict"]["promote"], run=summary["name"])


def show(what: Annotated[str, typer.Argument(help="a stage (collect .. report), or the first digits of a step's digest or key")]) -> None:
    """Show the record of a finished step.

    Example: actwright show train
    Example: actwright show 3f9a
    """
    from flows.pipeline.run import find_steps

    for step in find_steps(what):
        manifest = step.manifest
        print_line(f"{manifest.stage} {manifest.key} at {step.path}")
        print_result(stage=manifest.stage, key=manifest.key, digest=step.digest, inputs=manifest.inputs, record=step.record)
