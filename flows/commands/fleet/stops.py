"""`actwright fleet drill|resume|kill-list`: stop cells at a policy service and measure it, release them; sign the fleet's kill list."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import from_options
from flows.commands.serving.service_options import CaFile, ServiceAddress, TokenFile, credentials_of
from flows.terminal.output import HELD, print_line, print_result

if TYPE_CHECKING:
    from components.deployment.fleet.stops import Drill

_TIMEOUT_S = 10.0


def drill_command(
    url: ServiceAddress,
    cell: Annotated[list[str], typer.Option(help="a cell to stop, once for each", metavar="NAME")],
    reason: Annotated[str, typer.Option(help="why; cells and logs show it")] = "drill",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Stop given cells for real, by the kill switch, and measure how long each takes to hold.

    Measured from the order at the service to the cell's word that its robot has the hold. The cells stay stopped until two
    persons have released them (`actwright fleet resume`) and a person at each cell resumes it. Exits 3 when a cell did not hold
    within the lease of its session, or is not connected.

    Example: actwright fleet drill http://127.0.0.1:3000 --cell cell-1 --cell cell-2
    """
    from components.deployment.fleet.stops import drill
    from model_core.spec.errors import SpecError

    credentials = credentials_of(token_file, ca_file, _TIMEOUT_S)
    try:
        found = drill(url, list(dict.fromkeys(cell)), credentials, reason=reason)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    for line in _lines(found):
        print_line(line)
    print_result(
        cells=len(found.held_after_s),
        p50_s=found.p50_s,
        max_s=found.max_s,
        lease_s=found.lease_s,
        idle=list(found.idle),
        absent=list(found.absent),
        silent=list(found.silent),
    )
    if not found.holds:
        raise typer.Exit(HELD)


def resume_command(url: ServiceAddress, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """Release the kills that were ordered at a policy service, as one of the two persons that this takes; also ends a drain.

    The second is another person: the same token, and another token of the same person, are refused. Where a service has no tokens it
    cannot tell two persons apart, and one is enough. Exits 3 while something is missing.

    Example: actwright fleet resume https://cell-server:3000 --token-file ann.token
    """
    from components.deployment.fleet.stops import release
    from model_core.spec.errors import SpecError

    try:
        is_released, missing = release(url, credentials_of(token_file, ca_file, _TIMEOUT_S))
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    print_line(f"{url}: released; a person at each cell resumes it" if is_released else f"{url}: not released: {missing}")
    print_result(url=url, released=is_released, missing=missing)
    if not is_released:
        raise typer.Exit(HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class KillListOptions:
    """Which file, who signs it, and what changes."""

    file: Annotated[Path, typer.Argument(help="the list that services poll", metavar="FILE")]
    key: Annotated[Path, typer.Option(help="private key that signs it (`actwright fleet keys identity`)", metavar="FILE", exists=True)]
    kill: Annotated[list[str] | None, typer.Option(help="stop this: fleet, or digest=, model=, cell=, site= and a value")] = None
    release: Annotated[list[str] | None, typer.Option(help="a kill that is over, with the two persons who say so: ID=NAME,NAME")] = None
    reason: Annotated[str, typer.Option(help="why; cells and logs show it")] = ""
    by: Annotated[str, typer.Option(help="who stops it")] = ""
    lease_s: Annotated[float, typer.Option(help="how long a service may rely on one list, in seconds", min=0.1, max=86_400.0)] = 10.0
    every_s: Annotated[float, typer.Option(help="sign again so often until Ctrl-C, which renews the lease; 0: once", min=0.0)] = 0.0


@from_options(KillListOptions)
def kill_list_command(options: KillListOptions) -> None:
    """Sign the next kill list of a fleet into a file that its policy services poll (docs/serving.md), and show what is stopped.

    For a fleet without a controller. The list is one document with a number that grows: every run signs a new one, with --every-s again and
    again. What was stopped stays in it until two persons are named who released it.

    Example: actwright fleet kill-list kills.json --key fleet.pem --every-s 3
    Example: actwright fleet kill-list kills.json --key fleet.pem --kill cell=cell-3 --reason smoke --by ann
    Example: actwright fleet kill-list kills.json --key fleet.pem --release k-0123456789ab=ann,bob
    """
    from components.deployment.fleet.kill_list import read_kill, read_released, sign_next
    from model_core.spec.errors import SpecError
    from model_core.spec.fleet.signatures import read_private

    now_s = time.time()
    try:
        key = read_private(options.key)
        kills = [read_kill(text, reason=options.reason, by=options.by, now_s=now_s) for text in options.kill or ()]
        released = [read_released(text) for text in options.release or ()]
        found = sign_next(options.file, key, kills, released, lease_s=options.lease_s)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    for kill in found.kills:
        print_line(f"{kill.id}  {kill.explained}")
    print_line(f"list {found.number}: {len(found.kills)} kills in force, valid for {found.lease_s:g} s after it came")
    while options.every_s > 0:
        time.sleep(options.every_s)
        found = sign_next(options.file, key, lease_s=options.lease_s)
    print_result(number=found.number, kills=[kill.id for kill in found.kills])


def _lines(found: Drill) -> list[str]:
    lines = [f"{cell:<24} held after {1e3 * seconds:7.0f} ms" for cell, seconds in sorted(found.held_after_s.items())]
    lines += [f"{cell:<24} ran no episode: nothing moved" for cell in found.idle]
    lines += [f"{cell:<24} is not connected to this service" for cell in found.absent]
    lines += [f"{cell:<24} gave no word within {found.lease_s:g} s" for cell in found.silent]
    if found.p50_s is not None and found.max_s is not None:
        lines.append(
            f"{len(found.held_after_s)} cells: p50 {1e3 * found.p50_s:.0f} ms, max {1e3 * found.max_s:.0f} ms; lease {found.lease_s:g} s"
        )
    return lines
