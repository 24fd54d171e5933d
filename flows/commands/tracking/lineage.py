"""`actwright lineage`: what something was made of, and what was made with it, down to the robots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.fleet.controller_options import ControllerOptions, asked
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result
from model_core.spec.errors import NotReady

if TYPE_CHECKING:
    from components.release.lineage.documents import KnownEpisode, LineageNode
    from flows.pipeline.lineage.gather import Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageOptions(ControllerOptions):
    """What to look for, and where robots and releases are asked for."""

    what: Annotated[
        str,
        typer.Argument(
            help="a model version (actwright/3), a cell, an annotator's name, an audit file; or the first digits of a data set version, "
            "checkpoint, commit, recipe, run or release",
            metavar="NAME, DIGITS or FILE",
        ),
    ]
    releases: Annotated[
        Path | None, typer.Option(help="folder of releases, beside those that the controller was offered", exists=True, file_okay=False)
    ] = None
    fleet: Annotated[bool, typer.Option("--fleet/--no-fleet", help="ask the fleet's controller for releases and robots")] = True


@from_options(LineageOptions)
def lineage(options: LineageOptions) -> None:
    """Show what something was made of, and what was made with it ("this annotator was wrong: which models, releases and robots?").

    From an audit file: what answered its decisions. Releases and robots are asked for at the fleet's controller.

    Example: actwright lineage actwright/3
    Example: actwright lineage 9501b69a
    Example: actwright lineage audit/cell-1/000012-button-7.mcap
    """
    from components.release.lineage.graph import SHORTEST
    from components.release.lineage.outline import in_short
    from flows.pipeline.lineage.gather import lineage_of
    from flows.platform.wiring import open_platform
    from model_core.spec.documents import to_document

    episodes = _episode_in(options.what)
    what = f"episode:{episodes[0].episode}" if episodes else options.what
    ask = (lambda path: asked(options, path)) if options.fleet else None
    found = lineage_of(open_platform(), what, ask, releases=options.releases, episodes=episodes)
    if not found.starts:
        if len(what) < SHORTEST:
            raise typer.BadParameter(f"expected a name or at least {SHORTEST} digits, got {what!r}")
        notes = "".join(f"; {note}" for note in found.notes)
        raise NotReady(f"nothing is called {what!r} here{notes}. Fix: `actwright champion status MODEL` names versions")
    nodes = {node.id: node for node in found.graph.nodes}
    for start in found.starts:
        _print_from(found, nodes, start)
    print_line(in_short(found.graph, found.starts))
    for note in found.notes:
        print_line(note)
    of_kind = {kind: [node.name for node in found.graph.nodes if node.kind == kind] for kind in ("version", "release", "cell")}
    running = [node.name for node in found.graph.nodes if node.facts.get("runs") in of_kind["release"]]
    told = {"starts": list(found.starts), "versions": of_kind["version"], "releases": of_kind["release"], "cells": of_kind["cell"]}
    print_result(what=options.what, **told, running=running, notes=list(found.notes), graph=to_document(found.graph))


def _episode_in(what: str) -> list[KnownEpisode]:
    """The episode of an audit file; none where `what` is no file."""
    from components.artifacts.audit_files import read_audit
    from components.release.lineage.documents import KnownEpisode

    if not Path(what).is_file():
        return []
    found = read_audit(Path(what))
    if not found.records:
        raise typer.BadParameter(f"{what} is no audit file that can be read: {found.problem}")
    if found.problem:
        print_line(f"careful: {what} is not proven: {found.problem}")
    begin = {name: str(value) for name, value in found.records[0].body.items() if isinstance(value, str)}
    return [
        KnownEpisode(
            episode=begin.get("episode_id", Path(what).stem),
            cell=begin.get("cell", ""),
            model_version=begin.get("model_version", ""),
            contract_id=begin.get("contract_id", ""),
            bundle=begin.get("bundle_digest", ""),
        )
    ]


def _print_from(found: Lineage, nodes: dict[str, LineageNode], start: str) -> None:
    from components.release.lineage.outline import described, outline

    node = nodes[start]
    print_line(f"{node.kind} {node.name}")
    for name, value in sorted(node.facts.items()):
        print_line(f"  {name}: {value}")
    for title, backwards in (("made of", True), ("made with it", False)):
        lines = outline(found.graph, start, backwards=backwards)
        print_line(f"  {title}" + ("" if lines else ": nothing on record"))
        for line in lines:
            again = ", see above" if line.is_again else ""
            print_line(f"  {'  ' * line.depth}{described(nodes[line.id])}: {line.how}{again}")
