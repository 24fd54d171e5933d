"""Which commands read the records of MLflow."""

from __future__ import annotations

import typer

from flows.commands.tracking.lineage import lineage
from flows.commands.tracking.runs import runs_app


def add_tracking(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command()(lineage)
    app.add_typer(runs_app, name="runs")
