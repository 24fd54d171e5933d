"""`actwright fleet ran`: what every cell of a fleet ran at a time, by the evidence that its controller has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from flows.commands.fleet.controller_options import ControllerOptions, asked
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result


@dataclass(frozen=True, slots=True, kw_only=True)
class RanOptions(ControllerOptions):
    """When."""

    at: Annotated[str, typer.Option(help="a time as ISO 8601, UTC unless it says otherwise (default: now)", metavar="TIME")] = ""


@from_options(RanOptions)
def ran_command(options: RanOptions) -> None:
    """Tell what every cell ran at a time, with the evidence: its reports before and after, or an episode; what is not known is said so.

    Example: actwright fleet ran --at 2026-11-30T14:05
    """
    found = asked(options, "/v1/ran" + (f"?at_s={seconds_of(options.at)!r}" if options.at else ""))
    print_line(f"at {datetime.fromtimestamp(found['at_s'], UTC):%Y-%m-%d %H:%M:%S} UTC, by the controller's clock")
    for cell in found["cells"]:
        what = f"{cell['model_version']} " if cell["model_version"] else ""
        print_line(f"{cell['site']:<12} {cell['cell']:<20} {what}{cell['release'][:12] or '-'}: {cell['told']}")
    proven = sum(cell["proof"] in ("reports", "episode") for cell in found["cells"])
    print_line(f"{proven} of {len(found['cells'])} cells are proven; head of the log: {found['head']}")
    print_result(**found)


def seconds_of(text: str) -> float:
    """Seconds since 1970; wrong usage for a text that is no time."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--at: expected a time such as 2026-11-30T14:05, got {text!r}") from error
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
