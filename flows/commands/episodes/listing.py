"""`actwright episodes list`: the table of all episodes on the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.data.progress_lines import ProgressLines
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.episodes.index import IndexedEpisode


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """What a person asks of the table."""

    text: Annotated[list[str] | None, typer.Argument(help="words of the id, task, instruction, producer, cell or cause")] = None
    place: Annotated[list[Path] | None, typer.Option("--place", help="a further folder with episodes; it is remembered")] = None
    within: Annotated[str, typer.Option("--in", help="only of this place: its name, key or path")] = ""
    kind: Annotated[str, typer.Option(help="set, edit, recordings or audit")] = ""
    task: Annotated[str, typer.Option(help="the whole name of a task")] = ""
    outcome: Annotated[str, typer.Option(help="solved, failed or unknown")] = ""
    robot: Annotated[str, typer.Option(help="of one robot")] = ""
    model: Annotated[str, typer.Option(help="the policy that acted, NAME/VERSION")] = ""
    findings: Annotated[str, typer.Option(help="some, none or unknown: what the inspection of rows found")] = ""
    choice: Annotated[str, typer.Option(help="included, left_out or open: what a person decided")] = ""
    sort: Annotated[str, typer.Option(help="set, episode, task, outcome, producer, model, cell, length, seconds, findings or at")] = "set"
    descending: Annotated[bool, typer.Option("--descending", help="the largest first")] = False
    offset: Annotated[int, typer.Option(help="leave out so many of the first", min=0)] = 0
    limit: Annotated[int, typer.Option(help="show at most so many", min=1, max=1000)] = 50


@from_options(ListOptions)
def list_command(options: ListOptions) -> None:
    """List episodes of every data set, edit, recording and audit of this machine: what has changed is read first, and no image is decoded.

    Example: actwright episodes list drawer --outcome failed --sort length --descending
    Example: actwright episodes list --place recordings/cell-07 --place audit
    """
    from components.data.episodes.query import EpisodeQuery
    from flows.pipeline.episodes.library import episode_library
    from flows.platform.wiring import open_platform
    from model_core.spec.errors import SpecError

    library = episode_library(open_platform().settings)
    for done in library.refresh(options.place or (), ProgressLines()):
        if done.problem:
            print_line(f"{done.place.name} cannot be read: {done.problem}")
    same = ("kind", "task", "outcome", "robot", "model", "findings", "choice", "sort", "descending", "offset", "limit")
    given: dict[str, Any] = {name: getattr(options, name) for name in same}
    within = library.place(options.within).key if options.within else ""
    try:
        asked = EpisodeQuery(text=" ".join(options.text or ()), place=within, **given)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    page = library.index.page(asked)
    for one in page.episodes:
        print_line(_line(one))
    print_line(f"{len(page.episodes)} of {page.total} episodes in {len(library.index.places())} places")
    print_result(total=page.total, episodes=[_document(one) for one in page.episodes])


def _line(one: IndexedEpisode) -> str:
    row, revised = one.row, one.revised
    outcome = revised.get("outcome", row.outcome)
    findings = "" if one.findings is None else f"  {len(one.findings)} findings" if one.findings else ""
    choice = {1: "  included", 0: "  left out"}.get(revised.get("included", -1), "")
    return f"{one.place.name:<20} {row.episode_id:<32} {row.length:>6} frames  {outcome:<8} {row.task}{findings}{choice}"


def _document(one: IndexedEpisode) -> dict[str, Any]:
    place = {"place": one.place.key, "set": one.place.name, "kind": one.place.kind, "path": str(one.place.path)}
    return {**place, **asdict(one.row), "findings": one.findings, "revised": dict(one.revised)}
