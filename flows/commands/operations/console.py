"""`actwright console`: the web console on this machine, until Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions:
    """Where the console listens and who may use it."""

    host: Annotated[str, typer.Option(help="address to bind; beyond loopback --tokens is needed")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="port; 0: any free one", min=0, max=65_535)] = 3100
    cert: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM", exists=True, dir_okay=False)] = None
    key: Annotated[Path | None, typer.Option(help="TLS private key, PEM", exists=True, dir_okay=False)] = None
    tokens: Annotated[
        Path | None, typer.Option(help="who may do what: JSON {sha256 of a token: {subject, role: observe|operate|admin}}", exists=True)
    ] = None


@from_options(ConsoleOptions)
def console(options: ConsoleOptions) -> None:
    """Serve the web console until Ctrl-C; on loopback unless --host says otherwise.

    Its pages show what this home holds and what its cells do. Beyond loopback a person signs in with a token of the role observe, operate
    or admin. Where processor time is short, policy services and cells of this machine go first.

    Example: actwright console
    Example: actwright console --host 0.0.0.0 --tokens tokens.json --cert console.pem --key console.key
    """
    from components.adapters.processes import free_port, let_others_go_first
    from flows.platform.wiring import open_platform
    from flows.web.server import ConsoleAddress, make_server
    from model_core.spec.errors import SpecError

    let_others_go_first()
    try:
        address = ConsoleAddress(
            host=options.host, port=options.port or free_port(0), tokens=options.tokens, certificate=options.cert, key=options.key
        )
        server = make_server(open_platform(), address)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    url = f"{'https' if options.cert else 'http'}://{address.host}:{address.port}"
    print_line(f"console   {url}   (Ctrl-C stops it)")
    print_result(console=url)
    server.run()
    print_line("stopped")
