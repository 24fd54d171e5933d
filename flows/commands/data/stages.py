"""The data stages one by one, as `dvc repro` calls them: the functions of the flow, results under ``data/<stage>``.

Each folder there is a step that was carried out of the store: its outputs and a manifest without anything that two equal
runs do not share. So DVC's hash of the folder is as reproducible as the step's digest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.output import say, tell

if TYPE_CHECKING:
    from components.artifacts.step_store import StepResult

data = typer.Typer(help="The data stages one by one (what dvc.yaml runs).", no_args_is_help=True, rich_markup_mode=None)
RecipeName = Annotated[str, typer.Argument(help="name of a recipe, or a resolved .json file", metavar="RECIPE")]


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


def ingest(
    source: Annotated[
        Path | None, typer.Argument(help="a folder of recordings or a LeRobot data set; without it, all that waits in object storage")
    ] = None,
    recipe: Annotated[str, typer.Option(help="the recipe whose body the recordings must have", metavar="RECIPE")] = "loop",
    trust_data: Annotated[
        bool, typer.Option("--trust-data", help="take in a data set whose stats.json is of other data; statistics are computed anew")
    ] = False,
) -> None:
    """Take recordings in: check each, set bad ones aside with the reason, and make a raw data set of the successful ones.

    They join the demonstrations of a run that includes them; a schedule that runs here (`actwright schedule`) is told.
    A data set whose stats.json is not of its data is set aside whole and told: the file or the data was changed.

    Example: actwright ingest
    Example: actwright ingest recordings/cell-07 --recipe metaworld_5
    Example: actwright run loop --set 'include=["3f9a81"]'
    """
    from flows.commands.operations.schedule import tell_new_recordings
    from flows.pipeline.recipes import get_recipe
    from flows.pipeline.storage import take_in_recordings
    from flows.platform.wiring import open_house
    from flows.terminal.stage_progress import Board
    from model_core.spec.errors import NotReady, SpecError

    try:
        chosen = get_recipe(recipe)
    except SpecError as error:
        raise typer.BadParameter(f"--recipe: {error}") from error
    if source is not None and not source.is_dir():
        raise typer.BadParameter(f"{source} is no folder; give a folder of recordings, or nothing for all that waits in object storage")
    house = open_house()
    result = take_in_recordings(house, chosen, source, Board(live=False).stage("collect"), trust_data=trust_data)
    if result is None:
        raise NotReady(f"nothing waits in storage {house.settings.storage}; workcells leave recordings there at the end of `actwright run`")
    record, digest = result.step.record, result.step.digest
    for name, reason in set_aside(result.step.path):
        say(f"set aside {name}: {reason}")
    before = "as before, nothing new came: " if result.cached else ""
    say(
        f"{before}{record['recordings']} recordings: {record['episodes']} taken in, {record['not_successful']} did not solve their task, "
        f"{len(record['quarantined'])} set aside ({result.step.path / 'quarantine'}), {record['copies']} there already"
    )
    say(f"let them join a run:  actwright run {recipe} --set 'include=[\"{digest[:12]}\"]'")
    heard = tell_new_recordings(int(record["episodes"]))
    told = {k: record[k] for k in ("episodes", "recordings", "not_successful", "quarantined", "producers")}
    tell(digest=digest, cached=result.cached, told_deployment=heard, **told)


def set_aside(step: Path) -> list[tuple[str, str]]:
    """(recording, its first reason) of every recording that an ingest put into quarantine."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((step / "quarantine").glob("*.json"))]
    return [(document["recording"], document["findings"][0]["reason"]) for document in found]


def _done(made: tuple[StepResult, Path]) -> None:
    result, folder = made
    say(f"{result.step.manifest.stage}: {'finished earlier' if result.cached else f'{result.seconds:.1f} s'}, in {folder}")
    tell(stage=result.step.manifest.stage, digest=result.step.digest, key=result.step.manifest.key, cached=result.cached, path=str(folder))
