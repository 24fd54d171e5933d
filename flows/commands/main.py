"""The command line: one verb a stage, `run` for all of them. Says what it made as one JSON line on stdout.

Exit codes: 0 done, 1 our error, 2 wrong usage, 3 held by the gate, 130 after Ctrl-C, 143 after SIGTERM. Nothing heavy is imported before a
command needs it.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from flows.terminal.output import HELD, ended, say, stoppable, tell

if TYPE_CHECKING:
    from components.config.recipe import Recipe

app = typer.Typer(
    name="actwright",
    help="From demonstrations to robots that act on a served Action Reasoning Model.\n\nStart with: actwright run",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[str, typer.Argument(help="name of a recipe, or a resolved .json file", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="change one field: --set train.steps=200 (may be given again)", metavar="FIELD=VALUE")
]


def recipe_of(name: str, changes: list[str] | None, *, works: bool = False) -> Recipe:
    """The recipe that was asked for, with its changes. works: it is about to be carried out, so what it starts from must be here."""
    from flows.commands.overrides import with_changes
    from flows.pipeline.recipes import get_recipe
    from model_core.spec.errors import SpecError

    try:
        found = with_changes(get_recipe(name), changes or [])
        if works:
            found.check_start()
        return found
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def run(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Run the whole loop, all ten stages; finished ones are found, not made again.

    Example: actwright run            (the default: two Meta-World tasks)
    Example: actwright run loop --set train.seed=1
    """
    from flows.pipeline.run import run_recipe

    chosen = recipe_of(recipe, change, works=True)
    with stoppable():
        outcome, folder = run_recipe(chosen)
    summary = outcome.summary
    verdict = "promote" if summary.verdict.promote else "hold"
    version = f"{summary.model_version.name}/{summary.model_version.version}"
    tell(run=summary.name, verdict=verdict, model_version=version, report=str(folder / "report.html"), summary=str(folder / "summary.json"))
    if not summary.verdict.promote:
        raise typer.Exit(HELD)


@app.command()
def recipe(
    name: RecipeName = "loop", change: Overrides = None, out: Annotated[Path | None, typer.Option(help="write it to this file")] = None
) -> None:
    """Show a recipe with every field resolved, or write it to a file.

    Example: actwright recipe loop --set train.seed=2 --out mine.json && actwright run mine.json
    """
    import json

    from components.artifacts.step_store import write_text_atomically

    resolved = recipe_of(name, change, works=True)
    text = json.dumps(resolved.to_json(), indent=1, sort_keys=True) + "\n"
    if out is None:
        say(text)
    else:
        write_text_atomically(out, text)
    tell(recipe=resolved.name, digest=resolved.digest, path=str(out) if out else "")


@app.command()
def recipes() -> None:
    """List the recipes, a line each.

    Example: actwright recipes
    """
    from flows.pipeline.recipes import RECIPES, get_recipe

    for name in RECIPES:
        say(f"{name:16} {get_recipe(name).description}")
    tell(recipes=list(RECIPES))


@app.command()
def train(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Train on a recipe's data set (made first where it is missing); no evaluation.

    Example: actwright train loop --set train.seed=1 --set train.steps=400
    """
    from flows.pipeline.run import begin
    from flows.pipeline.run_context import make_until

    shift = begin(recipe_of(recipe, change, works=True))
    with stoppable(), shift.board.shown():
        step = make_until(shift, "train")
    tell(checkpoint=str(step.path / "checkpoint"), digest=step.digest, final_loss=step.record["final_loss"])


@app.command()
def evaluate(recipe: RecipeName = "loop", change: Overrides = None) -> None:
    """Examine a recipe's policy in closed loop on fresh seeds (trained first where it is missing).

    Example: actwright evaluate loop --set evaluate.seeds_per_task=50
    """
    from flows.pipeline.run import begin
    from flows.pipeline.run_context import make_until

    shift = begin(recipe_of(recipe, change, works=True))
    with stoppable(), shift.board.shown():
        step = make_until(shift, "evaluate")
    tell(report=str(step.path / "report.json"), digest=step.digest, successes=step.record["successes"], trials=step.record["trials"])


@app.command()
def seeds(recipe: RecipeName = "loop", count: Annotated[int, typer.Option(help="how many training seeds", min=1)] = 3) -> None:
    """Train and evaluate with several training seeds on the same data; prints a table with intervals.

    Example: actwright seeds loop --count 3
    """
    from flows.pipeline.run import run_seeds

    chosen = recipe_of(recipe, None, works=True)
    with stoppable():
        table = run_seeds(chosen, count)
    tell(**table)


@app.command()
def report() -> None:
    """Say where the newest run's report is and what it found.

    Example: actwright report
    """
    from flows.pipeline.run import latest_summary

    folder, summary = latest_summary()
    tell(
        report=str(folder / "report.html"), summary=str(folder / "summary.json"), verdict=summary["verdict"]["promote"], run=summary["name"]
    )


@app.command()
def show(what: Annotated[str, typer.Argument(help="a stage (collect .. report), or the first digits of a step's digest or key")]) -> None:
    """Show the record of a finished step.

    Example: actwright show train
    Example: actwright show 3f9a
    """
    from flows.pipeline.run import find_steps

    for step in find_steps(what):
        say(f"{step.manifest.stage} {step.manifest.key} at {step.path}")
        tell(stage=step.manifest.stage, key=step.manifest.key, digest=step.digest, inputs=step.manifest.inputs, record=step.record)


@app.command()
def up(recipe: RecipeName = "loop") -> None:
    """Open Prefect's page, MLflow's page and the policy service of a recipe's champion on loopback, until Ctrl-C.

    Example: actwright up
    """
    from flows.commands.operations.up import stand_up

    stand_up(recipe_of(recipe, None))


@app.command()
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
        serve_schedule(recipe_of(recipe, None), cron=cron, automatic=automatic)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def approve(proposal: Annotated[str, typer.Argument(help="id of a proposal, or its first digits; 'list' shows the open ones")]) -> None:
    """Approve a proposed retraining and run it here.

    Example: actwright approve list
    Example: actwright approve 7c1e
    """
    from flows.commands.operations.schedule import approve_proposal

    tell(**approve_proposal(proposal))


def _add_groups() -> None:
    from flows.commands.audit.commands import audit_app
    from flows.commands.bench.commands import bench, certify
    from flows.commands.cluster.commands import cluster_app
    from flows.commands.data.stages import data, ingest
    from flows.commands.models.export import export
    from flows.commands.models.model import model_app
    from flows.commands.serving.commands import add_serving

    app.add_typer(data, name="data")
    app.command("ingest")(ingest)
    app.command("export")(export)
    app.add_typer(bench, name="bench")
    app.command("certify")(certify)
    add_serving(app)
    for name, group in (("cluster", cluster_app), ("model", model_app), ("audit", audit_app)):
        app.add_typer(group, name=name)


class TeachingCommand(TyperCommand):
    """A command that answers a missing or unreadable argument with its first example."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever, with an example in the message of what is wrong."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            found = re.search(r"^Example: +(.+?)(?:  .*)?$", self.help or "", flags=re.MULTILINE)
            if found:
                said = f"{error.message.rstrip('.')}. " if error.message else ""
                error.message = f"{said}Type, for example: {found.group(1)}"
            raise


def _let_commands_teach(group: typer.Typer) -> None:
    """Examples stay on lines of their own (help texts are wrapped as paragraphs, except after a backspace) and answer wrong usage."""
    for command in group.registered_commands:
        text = inspect.cleandoc((command.callback and command.callback.__doc__) or "")
        command.help = text.replace("\n\nExample:", "\n\n\b\nExample:", 1)
        command.cls = TeachingCommand
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _let_commands_teach(inner.typer_instance)


def main() -> None:
    """The console script."""
    _add_groups()
    _let_commands_teach(app)
    sys.exit(ended(app))


if __name__ == "__main__":
    main()
