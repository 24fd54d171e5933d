"""The command line: one command per stage, `run` for all of them. Results are one JSON line on stdout.

Exit codes: 0 done, 1 our error, 2 wrong usage, 3 held by the gate (of `run`: rejected; 4 not enough evidence,
5 nothing can be compared), 130 after Ctrl-C, 143 after SIGTERM. Nothing heavy is imported before a
command needs it, and where the first word names a command only the part that holds it is.
"""

from __future__ import annotations

import gc
import importlib
import sys
from dataclasses import dataclass

import typer

from flows.commands.overview import add_overview
from flows.commands.teaching import TeachingGroup, leave_only, let_commands_teach
from flows.terminal.output import ended


@dataclass(frozen=True, slots=True)
class Part:
    """Commands that one module adds: its function `add`, and the first words of what it adds."""

    module: str
    add: str
    words: tuple[str, ...]


# in the order of the help text
PARTS = (
    Part("flows.commands.runs.commands", "add_runs", ("run", "recipe", "recipes", "train", "evaluate", "seeds", "report", "show")),
    Part("flows.commands.tracking.commands", "add_tracking", ("runs", "lineage")),
    Part("flows.commands.operations.commands", "add_operations", ("up", "console", "schedule", "approve")),
    Part("flows.commands.data.commands", "add_data", ("ingest", "data")),
    Part("flows.commands.data.embodiment", "add_embodiment", ("embodiment",)),
    Part("flows.commands.episodes.commands", "add_episodes", ("episodes",)),
    Part("flows.commands.suites.commands", "add_suites", ("suite",)),
    Part("flows.commands.studies.commands", "add_studies", ("study",)),
    Part("flows.commands.models.commands", "add_models", ("export", "champion", "model")),
    Part("flows.commands.bench.commands", "add_bench", ("certify", "bench")),
    Part("flows.commands.serving.commands", "add_serving", ("serve", "probe", "fault-server", "fault-proxy", "workcell")),
    Part("flows.commands.cluster.commands", "add_cluster", ("cluster",)),
    Part("flows.commands.fleet.commands", "add_fleet", ("fleet",)),
    Part("flows.commands.audit.commands", "add_audit", ("audit",)),
)


def command_line(first: str = "", second: str = "") -> typer.Typer:
    """A new command line; each call gives its own, so nothing is registered twice.

    first: the first word that was typed. Where it names a command, only the commands of its part are there, for "--help" only their names
    with a sentence each; otherwise every command. second: the word after it; where it names a command of the group, only that one is.
    """
    app = typer.Typer(
        name="actwright",
        cls=TeachingGroup,
        help="From demonstrations to robots that act on a served Action Reasoning Model.\n\nStart with: actwright run",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    if first == "--help":
        add_overview(app)
        return app
    for part in [part for part in PARTS if first in part.words] or PARTS:
        getattr(importlib.import_module(part.module), part.add)(app)
    leave_only(app, first, second)
    let_commands_teach(app)
    return app


def main() -> None:
    """The console script."""
    # The libraries of a command are millions of objects that stay. With the usual thresholds the collector of garbage looks them through
    # again and again while they load: a fifth of the time until a command that asks MLflow answers.
    gc.set_threshold(20_000, 20, 20)
    code = ended(lambda: command_line(*(sys.argv[1:3] or ["--help"]))())
    gc.freeze()  # the interpreter looks everything through twice more before it ends, a tenth of the time of a short command
    sys.exit(code)


if __name__ == "__main__":
    main()
