"""`actwright ingest`: recordings from outside become a raw data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.recipe_arguments import recipe_of
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.artifacts.step_store import StepResult


_COUNTS = ("not_successful", "no_outcome", "success_unknown", "not_described", "converted", "shared_sentences")


def ingest(
    source: Annotated[
        Path | None, typer.Argument(help="a folder of recordings or a LeRobot data set; without it, all that waits in object storage")
    ] = None,
    recipe: Annotated[str, typer.Option(help="the recipe whose embodiment the recordings must have", metavar="RECIPE")] = "loop",
    trust_data: Annotated[
        bool,
        typer.Option("--trust-data", help="take in a data set whose stats.json does not describe its data; statistics are computed again"),
    ] = False,
    only_successful: Annotated[
        bool, typer.Option("--only-successful", help="leave out episodes whose source does not say whether they solved their task, too")
    ] = False,
) -> None:
    """Take recordings in: check each, quarantine bad ones with the reason, and make a raw data set of those that did not fail.

    They join the demonstrations of a run that includes them; a schedule that runs here (`actwright schedule`) is notified.
    A data set of another body than the recipe's is quarantined as a whole, and so is one whose stats.json does not describe its data: the
    file or the data was changed. Units, channel order and names that differ without loss are converted, and told.

    Example: actwright ingest
    Example: actwright ingest recordings/cell-07 --recipe metaworld_5
    Example: actwright run loop --set 'include=["3f9a81"]'
    """
    from components.data.accounting.included import labelling_notes
    from flows.commands.operations.schedule import tell_new_recordings
    from flows.pipeline.storage import take_in_recordings
    from flows.platform.wiring import open_platform
    from flows.terminal.stage_progress import StagePanel
    from model_core.spec.errors import NotReady

    chosen = recipe_of(recipe, option="--recipe")
    if source is not None and not source.is_dir():
        raise typer.BadParameter(f"{source} is no folder; give a folder of recordings, or nothing for all that waits in object storage")
    platform = open_platform()
    progress = StagePanel(live=False).stage("collect")
    result = take_in_recordings(platform, chosen, source, progress, trust_data=trust_data, only_successful=only_successful)
    if result is None:
        raise NotReady(
            f"nothing waits in storage {platform.settings.storage}; workcells leave recordings there at the end of `actwright run`"
        )
    record, digest = result.step.record, result.step.digest
    for line in _lines(result):
        print_line(line)
    for note in labelling_notes(result.step.path / "dataset", chosen.annotate):
        print_line(note)
    print_line(f"let them join a run:  actwright run {recipe} --set 'include=[\"{digest[:12]}\"]'")
    is_notified = tell_new_recordings(int(record["episodes"]))
    counts: dict[str, Any] = {k: record[k] for k in ("episodes", "recordings", *_COUNTS, "quarantined", "producers")}
    print_result(digest=digest, cached=result.cached, told_deployment=is_notified, **counts)


def _lines(result: StepResult) -> list[str]:
    """What a person reads: every quarantined recording with its reason, then the counts."""
    record, folder = result.step.record, result.step.path
    before = "as before, nothing new came: " if result.cached else ""
    counts = (
        f"{before}{record['recordings']} recordings: {record['episodes']} taken in, {record['not_successful']} did not solve their task, "
        f"{len(record['quarantined'])} set aside ({folder / 'quarantine'}), {record['copies']} there already"
    )
    return [*(f"set aside {name}: {reason}" for name, reason in set_aside(folder)), counts, *_to_know(record)]


def _to_know(record: Mapping[str, Any]) -> list[str]:
    """What of the episodes that were taken in a person should know: conversions, what their source leaves unsaid, shared sentences."""
    from components.data.inspection.sentences import told

    lines = [f"converted in {count} episodes: {what}" for what, count in record["converted"].items()]
    if count := record["not_described"]:
        lines.append(f"{count} do not say what their numbers mean (unit, mode, gripper); they were taken as the recipe's body says")
    if count := record["success_unknown"]:
        lines.append(f"{count} do not say whether they solved their task: taken in, unless --only-successful leaves them out")
    return lines + told(record["shared_sentences"])


def set_aside(step: Path) -> list[tuple[str, str]]:
    """(recording, its first reason) of every recording that an ingest put into quarantine."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((step / "quarantine").glob("*.json"))]
    return [(document["recording"], document["findings"][0]["reason"]) for document in found]
