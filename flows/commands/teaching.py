"""Wrong usage is answered with an example of right usage, taken from the command's own help text."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand


class TeachingCommand(TyperCommand):
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


def let_commands_teach(group: typer.Typer) -> None:
    """Make every command of `group` and its groups a `TeachingCommand`, with each example on a line of its own in the help text."""
    for command in group.registered_commands:
        text = inspect.cleandoc((command.callback and command.callback.__doc__) or "")
        command.help = text.replace("\n\nExample:", "\n\n\b\nExample:", 1)  # help texts are wrapped as paragraphs, except after a backspace
        command.cls = TeachingCommand
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            let_commands_teach(inner.typer_instance)
