"""`actwright up`, `console`, `schedule` and `approve`: open the pages, serve the retraining schedule, run a proposed retraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from flows.commands.cluster.job import TrainOptions, planned_job, require_digest, spread_recipe
from flows.commands.operations.console import console
from flows.commands.options import from_options
from flows.commands.recipe_arguments import RecipeName, recipe_of
from flows.terminal.output import print_result


def up(recipe: RecipeName = "loop") -> None:
    """Open the console, Prefect's page, MLflow's page and the policy service of a recipe's champion on loopback, until Ctrl-C.

    Example: actwright up
    """
    from flows.commands.operations.up import stand_up

    stand_up(recipe_of(recipe))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions(TrainOptions):
    """When what is retrained, and on which machines."""

    cron: Annotated[str, typer.Option(help="when to look for new data, as cron, in UTC")] = "0 3 * * *"
    automatic: Annotated[bool, typer.Option("--automatic", help="retrain at once instead of proposing")] = False
    pool: Annotated[
        str, typer.Option(help="Prefect's work pool of Kubernetes that runs the flows, each as a Job of --image; empty: this command does")
    ] = ""
    on_cluster: Annotated[bool, typer.Option("--on-cluster", help="train on --nodes machines of a cluster, not here")] = False


@from_options(ScheduleOptions)
def schedule(options: ScheduleOptions) -> None:
    """Register the retraining deployment in Prefect's work pool `actwright`, and work for it until Ctrl-C.

    By the clock and when new recordings arrive. By default a due retraining is only proposed; a person starts it with `actwright approve`.
    What is killed (this command, its worker, a flow, Prefect) goes on where it was when it is started again.

    Example: actwright schedule loop --cron "0 3 * * *"
    Example: actwright schedule loop --automatic --on-cluster --nodes 2 --image registry.example/actwright-worker@sha256:...
    """
    if len(options.cron.split()) != 5:
        fields = f"--cron {options.cron!r} has {len(options.cron.split())} fields"
        raise typer.BadParameter(f"{fields}, cron has five: minute hour day month weekday, such as '0 3 * * *'")
    if options.on_cluster or options.pool:
        require_digest(options.image, allow_tag=options.allow_tag)
    from flows.commands.operations.schedule import Schedule, serve_schedule
    from model_core.spec.errors import SpecError

    try:
        cluster = planned_job(options) if options.on_cluster else None
        recipe = spread_recipe(options, is_run=True) if options.on_cluster else recipe_of(options.recipe, options.change)
        serve_schedule(
            Schedule(
                recipe=recipe,
                cron=options.cron,
                automatic=options.automatic,
                cluster=cluster,
                kubeconfig=options.kubeconfig,
                pool=options.pool,
                image=options.image,
            )
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


def approve(
    proposal: Annotated[str, typer.Argument(help="id of a proposal, or its first digits; 'list' shows them all")],
    scheduled: Annotated[bool, typer.Option("--scheduled", help="let the served schedule run it, instead of this command")] = False,
) -> None:
    """Approve a proposed retraining and run it here, or let the schedule run it.

    Example: actwright approve list
    Example: actwright approve 7c1e
    Example: actwright approve 7c1e --scheduled
    """
    from flows.commands.operations.schedule import approve_proposal

    print_result(**approve_proposal(proposal, scheduled=scheduled))


def add_operations(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    for command in (up, console, schedule, approve):
        app.command()(command)
