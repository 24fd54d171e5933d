"""A command of one options dataclass: its fields are what the command line takes, with their defaults and help texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from flows.commands.options import from_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """Who is greeted, and how often."""

    name: Annotated[str, typer.Argument(help="who")]
    times: Annotated[int, typer.Option(help="how often", min=1)] = 1


def app() -> typer.Typer:
    made = typer.Typer()

    @made.command()
    @from_options(Greeting)
    def greet(options: Greeting) -> None:
        """Greet.

        Example: actwright greet you
        """
        typer.echo(" ".join([options.name] * options.times))

    return made


def test_fields_are_read_from_the_command_line():
    assert CliRunner().invoke(app(), ["you", "--times", "2"]).output == "you you\n"
    assert CliRunner().invoke(app(), ["you"]).output == "you\n"


def test_a_field_without_default_is_required_and_bounds_hold():
    assert CliRunner().invoke(app(), []).exit_code == 2
    assert CliRunner().invoke(app(), ["you", "--times", "0"]).exit_code == 2


def test_the_help_text_is_that_of_the_command_and_its_fields():
    printed = CliRunner().invoke(app(), ["--help"]).output
    assert "Greet." in printed
    assert "how often" in printed
