"""Wrong usage is answered with an example of right usage, taken from the command's own help text."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_name

from flows.commands.plain_values import PlainValues


class TeachingCommand(PlainValues, TyperCommand):
    """A command that answers a missing or unreadable argument with its first example."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as typer does; an error message gets an example."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            found = re.search(r"^Example: +(.+?)(?:  .*)?$", self.help or "", flags=re.MULTILINE)
            if found:
                reason = f"{error.message.rstrip('.')}. " if error.message else ""
                error.message = f"{reason}Type, for example: {found.group(1)}"
            raise


class TeachingGroup(PlainValues, TyperGroup):
    """A group of such commands."""


def leave_only(app: typer.Typer, group: str, command: str) -> None:
    """Leave only `command` in the group of that name, where it has one: typer builds every option of every command that is there."""
    for inner in app.registered_groups:
        whole = inner.typer_instance
        if inner.name != group or whole is None:
            continue
        commands = [
            one for one in whole.registered_commands if command == (one.name or get_command_name(getattr(one.callback, "__name__", "")))
        ]
        groups = [one for one in whole.registered_groups if command == one.name]
        if commands or groups:
            inner.typer_instance = copy.copy(whole)  # the group itself may be asked for again
            inner.typer_instance.registered_commands, inner.typer_instance.registered_groups = commands, groups


def let_commands_teach(group: typer.Typer) -> None:
    """Make every command of `group` and its groups a `TeachingCommand`, with each example on a line of its own in the help text."""
    for command in group.registered_commands:
        text = inspect.cleandoc((command.callback and command.callback.__doc__) or "")
        command.help = text.replace("\n\nExample:", "\n\n\b\nExample:", 1)  # help texts are wrapped as paragraphs, except after a backspace
        command.cls = TeachingCommand
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            inner.cls = TeachingGroup
            let_commands_teach(inner.typer_instance)
