"""`actwright lineage`: what a model version was made of, and which versions were made with something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.output import print_line, print_result
from model_core.spec.errors import NotReady

if TYPE_CHECKING:
    from components.adapters.mlflow.reading.records import VersionRow


def lineage(
    what: Annotated[
        str,
        typer.Argument(
            help="a model version (actwright/3); or the first digits of a data set version, checkpoint, commit, recipe or run, or of an "
            "annotator's name: then which versions were made with it",
            metavar="MODEL/VERSION or DIGITS",
        ),
    ],
) -> None:
    """Show what a model version was made of, or which versions were made with something ("this annotator was wrong: which models?").

    Example: actwright lineage actwright/3
    Example: actwright lineage 9501b69a
    """
    from components.adapters.mlflow.reading.comparison import SHORTEST, made_with
    from flows.platform.wiring import open_platform

    reader = open_platform().tracking_reader()
    model, _, number = what.rpartition("/")
    if model and number.isdecimal():
        found = [row for row in reader.versions(model) if row.version == int(number)]
        if found:
            _print_version(found[0])
            return
    if len(what) < SHORTEST:
        raise typer.BadParameter(f"expected MODEL/VERSION or at least {SHORTEST} digits, got {what!r}")
    descendants = made_with(reader.versions(), what)
    if not descendants:
        raise NotReady(f"no model version {what!r}, and none was made with it. Fix: `actwright champion status MODEL` names versions")
    for one in descendants:
        print_line(f"{one.version.name}/{one.version.version}  {one.name} {one.value}")
    versions = list(dict.fromkeys(f"{one.version.name}/{one.version.version}" for one in descendants))
    print_result(what=what, versions=versions)


def _print_version(row: VersionRow) -> None:
    width = max((len(name) for name in row.tags), default=0)
    for name, value in sorted(row.tags.items()):
        print_line(f"{name:{width}}  {value}")
    print_result(model=row.name, version=row.version, lineage=dict(row.tags))
