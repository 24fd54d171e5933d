"""The data stages one by one, as `dvc repro` calls them: the functions of the flow, results under ``data/<stage>``.

Each folder there is a step that was carried out of the store: its outputs and a manifest without anything that two equal
runs do not share. So DVC's hash of the folder is as reproducible as the step's digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.telling import say, tell

if TYPE_CHECKING:
    from components.store import StepResult

data = typer.Typer(help="The data stages one by one (what dvc.yaml runs).", no_args_is_help=True, rich_markup_mode=None)
RecipeName = Annotated[str, typer.Argument(help="name of a recipe, or a resolved .json file", metavar="RECIPE")]


@data.command()
def collect(recipe: RecipeName = "loop") -> None:
    """Record demonstrations into data/collect.

    Example: actwright data collect loop
    """
    from flows import data_steps

    _done(data_steps.collect(recipe))


@data.command()
def validate(recipe: RecipeName = "loop") -> None:
    """Judge the episodes of data/collect into data/validate.

    Example: actwright data validate loop
    """
    from flows import data_steps

    _done(data_steps.validate(recipe))


@data.command()
def annotate(recipe: RecipeName = "loop") -> None:
    """Label the good episodes of data/collect into data/annotate.

    Example: actwright data annotate loop
    """
    from flows import data_steps

    _done(data_steps.annotate(recipe))


@data.command()
def freeze(recipe: RecipeName = "loop") -> None:
    """Freeze data/collect and data/annotate into the data set version data/freeze.

    Example: actwright data freeze loop
    """
    from flows import data_steps

    _done(data_steps.freeze(recipe))


def ingest(
    source: Annotated[Path, typer.Argument(help="a LeRobot data set, or a folder of workcell recordings", exists=True)],
    recipe: RecipeName = "loop",
) -> None:
    """Take recordings made elsewhere into raw storage, where the next data set is made from.

    Example: actwright ingest .actwright/store/workcells/3f9a.../recordings
    """
    from flows import data_steps

    tell(**data_steps.ingest(source, recipe))


def _done(made: tuple[StepResult, Path]) -> None:
    result, folder = made
    say(f"{result.step.manifest.stage}: {'finished earlier' if result.cached else f'{result.seconds:.1f} s'}, in {folder}")
    tell(stage=result.step.manifest.stage, digest=result.step.digest, key=result.step.manifest.key, cached=result.cached, path=str(folder))
