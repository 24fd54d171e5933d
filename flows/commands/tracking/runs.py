"""`actwright runs list|compare`: the runs that MLflow keeps."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.output import print_line, print_result
from model_core.spec.errors import NotReady

if TYPE_CHECKING:
    from components.adapters.mlflow.reading.records import RunRow, TrackingReader

_HELP = "Runs as MLflow recorded them: list the newest, compare some. MLflow itself is not loaded."
runs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
_CURVES = ("train/loss", "validation/loss", "successes", "trials")  # shown in the list where a run has them


@runs_app.command("list")
def list_command(
    stage: Annotated[str, typer.Option(help="only runs of this stage, such as train")] = "",
    recipe: Annotated[str, typer.Option(help="only runs of this recipe")] = "",
    limit: Annotated[int, typer.Option(min=1, help="how many, the newest first")] = 20,
) -> None:
    """List runs, newest first, with the last values of their main curves.

    Example: actwright runs list --stage train --recipe loop
    """
    from flows.platform.wiring import open_platform

    tags = {name: value for name, value in (("stage", stage), ("recipe", recipe)) if value}
    found = open_platform().tracking_reader().runs(tags=tags, limit=limit)
    for run in found:
        print_line(_line(run))
    if not found:
        print_line("no such run; without options the newest runs of every stage are listed")
    print_result(runs=[_short(run) for run in found])


@runs_app.command("compare")
def compare_command(
    runs: Annotated[list[str], typer.Argument(help="two or more runs: the first digits of their ids", metavar="RUN RUN ...")],
) -> None:
    """Show the parameters in which runs differ, and the last values of all their curves side by side.

    Example: actwright runs compare 430f7f 91ab02
    """
    from components.adapters.mlflow.reading.comparison import compare_runs
    from flows.platform.wiring import open_platform

    if len(runs) < 2:
        raise typer.BadParameter(f"expected two or more runs, got {len(runs)}: `actwright runs list` shows their ids")
    reader = open_platform().tracking_reader()
    compared = compare_runs([_one(reader, digits) for digits in runs])
    width = max((len(name) for name in (*compared.params, *compared.metrics)), default=0)
    print_line(f"{'':{width}}  {'  '.join(f'{run[:12]:>12}' for run in compared.runs)}")
    for values_of in (compared.params, compared.metrics):
        for name, values in values_of.items():
            print_line(f"{name:{width}}  {'  '.join(f'{_shown(value):>12}' for value in values)}")
    print_result(**asdict(compared))


def _one(reader: TrackingReader, digits: str) -> RunRow:
    found = reader.run(digits)
    if len(found) != 1:
        which = f"{len(found)} runs begin with {digits!r}: {', '.join(run.run_id for run in found[:5])}" if found else f"no run {digits!r}"
        raise NotReady(f"{which}. Fix: give more digits of one that `actwright runs list` shows")
    return found[0]


def _line(run: RunRow) -> str:
    began = datetime.fromtimestamp(run.started_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    curves = "  ".join(f"{name} {_shown(run.metrics[name])}" for name in _CURVES if name in run.metrics)
    return f"{run.run_id[:12]:12}  {began}  {run.status:8}  {run.name:24}  {curves}".rstrip()


def _shown(value: float | str | None) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else f"{value:.6g}"
    return text if len(text) <= 12 else f"{text[:11]}…"


def _short(run: RunRow) -> dict[str, object]:
    return {
        "id": run.run_id,
        "server_id": run.server_id,
        "name": run.name,
        "status": run.status,
        "started_ms": run.started_ms,
        "ended_ms": run.ended_ms,
        "metrics": dict(run.metrics),
    }
