"""`actwright up`, `console`, `schedule` and `approve`: open the pages, serve the retraining schedule, run a proposed retraining."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.operations.console import console
from flows.commands.recipe_arguments import RecipeName, recipe_of
from flows.terminal.output import print_result


def up(recipe: RecipeName = "loop") -> None:
    """Open the console, Prefect's page, MLflow's page and the policy service of a recipe's champion on loopback, until Ctrl-C.

    Example: actwright up
    """
    from flows.commands.operations.up import stand_up

    stand_up(recipe_of(recipe))


def schedule(
    recipe: RecipeName = "loop",
    cron: Annotated[str, typer.Option(help="when to look for new data, as cron, in UTC")] = "0 3 * * *",
    automatic: Annotated[bool, typer.Option("--automatic", help="retrain at once instead of proposing")] = False,
) -> None:
    """Register the retraining deployment and serve it until Ctrl-C: by the clock and when new recordings arrive.

    By default a due retraining is only proposed; a person starts it with `actwright approve ID`.

    Example: actwright schedule loop --cron "0 3 * * *"
    """
    if len(cron.split()) != 5:
        raise typer.BadParameter(
            f"--cron {cron!r} has {len(cron.split())} fields, cron has five: minute hour day month weekday, such as '0 3 * * *'"
        )
    from flows.commands.operations.schedule import serve_schedule
    from model_core.spec.errors import SpecError

    try:
        serve_schedule(recipe_of(recipe), cron=cron, automatic=automatic)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def approve(proposal: Annotated[str, typer.Argument(help="id of a proposal, or its first digits; 'list' shows them all")]) -> None:
    """Approve a proposed retraining and run it here.

    Example: actwright approve list
    Example: actwright approve 7c1e
    """
    from flows.commands.operations.schedule import approve_proposal

    print_result(**approve_proposal(proposal))


def add_operations(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    for command in (up, console, schedule, approve):
        app.command()(command)
