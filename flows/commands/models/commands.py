"""Puts the commands about models on the command line: `actwright export`, `actwright champion ...` and `actwright model ...`."""

from __future__ import annotations

import typer

from flows.commands.models.champion import champion_app
from flows.commands.models.export import export
from flows.commands.models.model import model_app


def add_models(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command()(export)
    app.add_typer(champion_app, name="champion")
    app.add_typer(model_app, name="model")
