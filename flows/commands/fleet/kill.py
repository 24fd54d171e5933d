"""`actwright fleet kill ...`: what may not run on a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from flows.commands.fleet.controller_options import ControllerOptions, asked, ordered
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

kill_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The kill switch: what may not run; one person kills, two release."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KillOptions(ControllerOptions):
    """What, and why."""

    scope: Annotated[str, typer.Argument(help="digest, model, cell, site or fleet", metavar="SCOPE")]
    target: Annotated[
        str, typer.Argument(help="the release's digest, the name of the model (or NAME/3), cell or site; none for fleet", metavar="TARGET")
    ] = ""
    reason: Annotated[str, typer.Option(help="why; it stays in the log")]


@kill_app.command("start")
@from_options(KillOptions)
def kill_start_command(options: KillOptions) -> None:
    """Put a kill in force: the controller proposes it to no cell, and rollouts of it are rolled back.

    Example: actwright fleet kill start digest 0123456789abcdef... --reason "drops cups"
    Example: actwright fleet kill start fleet --reason "wet floor"
    """
    done = ordered(options, "/v1/kills", {"scope": options.scope, "target": options.target, "reason": options.reason})
    print_line(f"kill {done['kill']['id']} is in force")
    print_result(**done)


@kill_app.command("list")
@from_options(ControllerOptions)
def kill_list_command(options: ControllerOptions) -> None:
    """List every kill, released ones too, oldest first.

    Example: actwright fleet kill list
    """
    found = asked(options, "/v1/kills")
    for one in found:
        asks = f", release asked by {one['release_asked_by']}" if one["release_asked_by"] else ""
        state = "in force" + asks if one["released_at_s"] is None else f"released by {one['release_asked_by']} and {one['released_by']}"
        print_line(f"{one['id']:>3}  {one['scope']} {one['target'][:16]} by {one['ordered_by']}: {one['reason']} ({state})")
    print_result(kills=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseKillOptions(ControllerOptions):
    """Which kill."""

    kill: Annotated[int, typer.Argument(help="number of the kill", metavar="KILL")]
    reason: Annotated[str, typer.Option(help="why; it stays in the log")] = ""


@kill_app.command("release")
@from_options(ReleaseKillOptions)
def kill_release_command(options: ReleaseKillOptions) -> None:
    """Ask to release a kill, or agree to it as the second person; the same person under two tokens is one person.

    Example: actwright fleet kill release 2
    """
    done = ordered(options, f"/v1/kills/{options.kill}/release", {"reason": options.reason})
    print_line("released" if done["kill"]["released_at_s"] is not None else "asked; a second person with the role admin has to agree")
    print_result(**done)
