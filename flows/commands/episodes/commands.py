"""The group of commands about episodes."""

from __future__ import annotations

import typer

from flows.commands.episodes.label_studio import label_fetch, label_send
from flows.commands.episodes.labels import label_agreement, label_answers, label_tasks
from flows.commands.episodes.listing import list_command
from flows.commands.episodes.revisions import revise, revisions, undo, version

episodes = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Episodes of all sets, recordings and audits: find them, correct what is stated of them, sort out failures.",
)
episodes.command("list")(list_command)
for command in (revise, undo, revisions, version, label_tasks, label_answers, label_send, label_fetch, label_agreement):
    episodes.command()(command)


def add_episodes(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(episodes, name="episodes")
