"""`actwright data repair`: a whole data set of what a crashed recorder left, and the list of what could not be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.data.edit_options import Name, Who, signed
from flows.commands.data.progress_lines import ProgressLines
from flows.terminal.output import print_line, print_result


def repair_set(
    folder: Annotated[Path, typer.Argument(help="the LeRobot v2.0, v2.1 or v3.0 folder that the recorder left", metavar="FOLDER")],
    new: Annotated[Path, typer.Argument(help="the new folder", metavar="NEW")],
    name: Name,
    why: Annotated[str, typer.Option("--why", help="what happened, for people who read the lineage later")] = "the recorder crashed",
    who: Who = "",
) -> None:
    """Rebuild a folder into a new one: files without footer, gaps in indices, half episodes, missing lists, films of other lengths.

    The old folder stays as it is. What is kept was decoded frame by frame; what is given up is listed, and stays in the lineage.

    Example: actwright data repair recordings/monday recordings/monday-whole --as monday --why "the battery was empty"
    """
    from flows.pipeline.data_sets import keep_repair
    from flows.platform.wiring import open_platform

    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder; give the one that the recorder wrote")
    by = signed(name, why, who)
    told, kept = keep_repair(open_platform(), (folder, new), by.name, (by.who, by.why), ProgressLines())
    for line in told.restored:
        print_line(f"restored: {line}")
    for line in told.given_up:
        print_line(f"given up: {line}")
    print_line(f"repair: {told.episodes} episodes, {told.frames} frames, in {new}")
    print_result(operation="repair", restored=told.restored, given_up=told.given_up, **kept)
