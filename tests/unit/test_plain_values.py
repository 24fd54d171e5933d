"""Values that are converted without pydantic: the same values as those of typer, which refuses every wrong one itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from flows.commands.main import command_line
from flows.commands.teaching import let_commands_teach


def app(seen: list[Any], *, is_plain: bool) -> typer.Typer:
    made = typer.Typer()

    @made.command()
    def one(
        folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
        out: Annotated[Path | None, typer.Option()] = None,
        name: Annotated[str | None, typer.Option()] = None,
        times: Annotated[int, typer.Option(min=1)] = 1,
        share: Annotated[list[str] | None, typer.Option()] = None,
        turned: Annotated[bool, typer.Option()] = True,
    ) -> None:
        """Take values.

        Example: actwright one .
        """
        seen.append((folder, out, name, times, share, turned))

    @made.command()
    def other() -> None:
        """Nothing."""

    if is_plain:
        let_commands_teach(made)
    return made


@pytest.mark.parametrize(
    "words",
    [
        ["."],
        [".", "--out", "new/file", "--name", "x", "--no-turned"],
        [".", "--name", "", "--times", "3"],
        [".", "--share", "a", "--share", "b"],
        ["missing"],
        [__file__],
        [],
        [".", "--times", "0"],
        [".", "--times", "x"],
        [".", "--out"],
    ],
)
def test_what_a_command_is_given_is_what_typer_gives(words):
    ours, theirs = [], []
    done = [CliRunner().invoke(app(seen, is_plain=seen is ours), ["one", *words]) for seen in (ours, theirs)]
    assert done[0].exit_code == done[1].exit_code
    assert ours == theirs
    assert [type(value) for row in ours for value in row] == [type(value) for row in theirs for value in row]


def test_plain_values_ask_typer_for_no_conversion(tmp_path):
    seen: list[Any] = []
    group: Any = typer.main.get_command(app(seen, is_plain=True))
    group(["one", str(tmp_path), "--out", str(tmp_path / "new"), "--name", "x"], standalone_mode=False)
    assert len(seen) == 1
    by_typer = [p.name for p in group.commands["one"].params if p._runtime_param is not None]
    assert by_typer == ["share"]


def test_only_the_named_command_of_a_group_is_there():
    only: Any = typer.main.get_command(command_line("data", "inspect"))
    assert sorted(only.commands["data"].commands) == ["inspect"]
    every: Any = typer.main.get_command(command_line("data", "inpsect"))
    assert {"inspect", "passport", "list"} <= set(every.commands["data"].commands)
    inner: Any = typer.main.get_command(command_line("fleet", "quality"))
    assert sorted(inner.commands["fleet"].commands) == ["quality"]
