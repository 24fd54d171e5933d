"""`actwright fleet shadow`: how a candidate's answers differ from those of the live policy."""

from __future__ import annotations

import typer

from flows.commands.serving.service_options import CaFile, ServiceAddress, TokenFile, credentials_of
from flows.terminal.output import print_line, print_result


def shadow_command(url: ServiceAddress, token_file: TokenFile = None, ca_file: CaFile = None) -> None:
    """Show how the candidate in a service's shadow differs from the live policy, per task, with 95 % intervals.

    Compared are the first actions (in the units of the contract), the depth codes and what they decode to, the trace (px), refusals and
    times. Steered and edited decisions are left out.

    Example: actwright fleet shadow http://127.0.0.1:3000
    """
    from components.deployment.fleet.shadow import comparison_lines, fetch_comparison
    from model_core.spec.errors import SpecError

    try:
        found = fetch_comparison(url, credentials_of(token_file, ca_file, 10.0))
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    for line in comparison_lines(found):
        print_line(line)
    print_result(**found)
