"""Which commands run recipes and read their results."""

from __future__ import annotations

import typer

from flows.commands.runs.recipes import recipe, recipes
from flows.commands.runs.results import report, show
from flows.commands.runs.run import evaluate, run, seeds, train


def add_runs(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    for command in (run, recipe, recipes, train, evaluate, seeds, report, show):
        app.command()(command)
