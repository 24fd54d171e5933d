"""The data stages one by one, as `dvc repro` calls them: the functions of the flow, results under ``data/<stage>``.

Each folder there is a copy of a finished step: its outputs and a manifest without anything that two equal
runs do not share. So DVC's hash of the folder is as reproducible as the step's digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.data.editing import merge, relabel, select, split, trim
from flows.commands.data.export_set import export_set
from flows.commands.data.ingest import ingest
from flows.commands.data.inspect import inspect, passport
from flows.commands.data.repair_set import repair_set
from flows.commands.data.sets import diff, list_sets, show
from flows.commands.data.topics import topics
from flows.commands.data.web.listing import web
from flows.commands.recipe_arguments import RecipeName
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.artifacts.step_store import StepResult

data = typer.Typer(
    help="Data sets: look at them, edit them, export them; and the data stages one by one (what dvc.yaml runs).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
data.command("list")(list_sets)
data.command("export")(export_set)
data.command("repair")(repair_set)
for edit_command in (show, diff, merge, split, select, trim, relabel):
    data.command()(edit_command)


@data.command()
def collect(recipe: RecipeName = "loop") -> None:
    """Record demonstrations into data/collect.

    Example: actwright data collect loop
    """
    from flows.pipeline import dvc_data

    _done(dvc_data.collect(recipe))


@data.command()
def validate(recipe: RecipeName = "loop") -> None:
    """Judge the episodes of data/collect into data/validate.

    Example: actwright data validate loop
    """
    from flows.pipeline import dvc_data

    _done(dvc_data.validate(recipe))


@data.command()
def annotate(recipe: RecipeName = "loop") -> None:
    """Label the good episodes of data/collect into data/annotate.

    Example: actwright data annotate loop
    """
    from flows.pipeline import dvc_data

    _done(dvc_data.annotate(recipe))


@data.command()
def freeze(recipe: RecipeName = "loop") -> None:
    """Freeze data/collect and data/annotate into the data set version data/freeze.

    Example: actwright data freeze loop
    """
    from flows.pipeline import dvc_data

    _done(dvc_data.freeze(recipe))


def add_data(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    data.command()(inspect)
    data.command()(passport)
    data.command()(topics)
    data.command()(web)
    app.add_typer(data, name="data")
    app.command()(ingest)


def _done(made: tuple[StepResult, Path]) -> None:
    result, folder = made
    print_line(f"{result.step.manifest.stage}: {'finished earlier' if result.cached else f'{result.seconds:.1f} s'}, in {folder}")
    for note in result.step.record.get("notes", ()):
        print_line(f"note: {note}")
    print_result(
        stage=result.step.manifest.stage, digest=result.step.digest, key=result.step.manifest.key, cached=result.cached, path=str(folder)
    )
