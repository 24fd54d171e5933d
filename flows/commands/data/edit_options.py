"""What every command that edits a data set asks for besides the edit itself: the set, the name of the result, who and why."""

from __future__ import annotations

import getpass
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

SET = "a folder, the file of an edit, an edit's name or the first digits of its digest"
SetName = Annotated[str, typer.Argument(help=f"the data set: {SET}", metavar="SET")]
Name = Annotated[str, typer.Option("--as", help="name of the result, kept as data/edits/NAME.yaml; or a path that ends in .yaml")]
Why = Annotated[str, typer.Option("--why", help="the reason, for people who read the lineage later")]
Who = Annotated[str, typer.Option("--who", help="who decided it; empty: the user of this machine")]


def lerobot_folder(folder: Path) -> Path:
    """The LeRobot folder that was named: `folder`, or the data set of a finished stage in it; wrong usage for an index of sources."""
    inner = folder / "dataset"
    found = inner if inner.is_dir() and not (folder / "meta").is_dir() else folder
    if (found / "meta").is_dir():
        return found
    from components.data.sources.raw_index import INDEX

    index = found / INDEX
    if index.is_file():
        names = [str(source["name"]) for source in json.loads(index.read_text(encoding="utf-8"))["sources"]]
        raise typer.BadParameter(
            f"{folder} is an index of sources ({', '.join(names)}), which holds no data; name the folder of one of them"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The name of the result, and who made it and why."""

    name: str
    why: str
    who: str


def signed(name: str, why: str, who: str) -> Signed:
    """The three together; wrong usage where the reason is empty."""
    if not why.strip():
        raise typer.BadParameter('--why is empty; say the reason, for example --why "cell 3 had the wrong camera"')
    return Signed(name=name, why=why, who=who or getpass.getuser())


def pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """LEFT=RIGHT of an option that may be given again; wrong usage for one without "=", or for two of one LEFT."""
    found: dict[str, str] = {}
    for word in given or ():
        left, equals, right = word.partition("=")
        if not equals or not left:
            raise typer.BadParameter(f"{option} {word!r}: write LEFT=RIGHT, with the old side on the left")
        if left in found:
            raise typer.BadParameter(f"{option}: {left!r} is given twice, expected once")
        found[left] = right
    return found
