"""The command line: one command per stage, `run` for all of them. Results are one JSON line on stdout.

Exit codes: 0 done, 1 our error, 2 wrong usage, 3 held by the gate, 130 after Ctrl-C, 143 after SIGTERM. Nothing heavy is imported before a
command needs it.
"""

from __future__ import annotations

import sys

import typer

from flows.commands.audit.commands import audit_app
from flows.commands.bench.commands import add_bench
from flows.commands.cluster.commands import cluster_app
from flows.commands.data.commands import add_data
from flows.commands.models.export import export
from flows.commands.models.model import model_app
from flows.commands.operations.commands import add_operations
from flows.commands.runs.commands import add_runs
from flows.commands.serving.commands import add_serving
from flows.commands.teaching import let_commands_teach
from flows.terminal.output import ended


def command_line() -> typer.Typer:
    """A new command line with every command; each call gives its own, so nothing is registered twice."""
    app = typer.Typer(
        name="actwright",
        help="From demonstrations to robots that act on a served Action Reasoning Model.\n\nStart with: actwright run",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    add_runs(app)
    add_operations(app)
    add_data(app)
    app.command("export")(export)
    add_bench(app)
    add_serving(app)
    app.add_typer(cluster_app, name="cluster")
    app.add_typer(model_app, name="model")
    app.add_typer(audit_app, name="audit")
    let_commands_teach(app)
    return app


def main() -> None:
    """The console script."""
    sys.exit(ended(command_line()))


if __name__ == "__main__":
    main()
