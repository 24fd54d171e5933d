"""How commands name a fleet's controller, and what they ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from flows.commands.serving.service_options import CaFile, TokenFile, credentials_of
from flows.terminal.output import print_line
from model_core.spec.fleet.documents import CONTROLLER_PORT

ControllerUrl = Annotated[str, typer.Option(help="address of the controller (default: ACTWRIGHT_FLEET_URL)", envvar="ACTWRIGHT_FLEET_URL")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """Which controller, with which token."""

    url: ControllerUrl = f"http://127.0.0.1:{CONTROLLER_PORT}"
    token_file: TokenFile = None
    ca_file: CaFile = None


def asked(options: ControllerOptions, path: str) -> Any:
    """What the controller tells."""
    from components.deployment.fleet.controller import ask

    return ask(options.url, path, credentials_of(options.token_file, options.ca_file, 10.0))


def ordered(options: ControllerOptions, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Give an order; tells what came of it and the head of the log, which a careful person keeps."""
    from components.deployment.fleet.controller import order

    done = order(options.url, path, body, credentials_of(options.token_file, options.ca_file, 10.0))
    if "told" in done:
        print_line(done["told"])
    if done.get("head"):
        print_line(f"head of the log: {done['head']}")
    return done
