"""The list of serving commands: a policy on a socket, robots that act on it, and the fault tools."""

from __future__ import annotations

import typer

from flows.commands.serving.fault_tools import fault_proxy, fault_server
from flows.commands.serving.probe import probe
from flows.commands.serving.serve import serve
from flows.commands.serving.workcell import workcell_app


def add_serving(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command("serve")(serve)
    app.command("probe")(probe)
    app.add_typer(workcell_app, name="workcell")
    passing = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("fault-server", context_settings=passing)(fault_server)
    app.command("fault-proxy", context_settings=passing)(fault_proxy)
