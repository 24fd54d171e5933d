"""The recipe argument and the --set option, which many commands share, and the recipe that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from components.config.recipe import Recipe

RecipeName = Annotated[str, typer.Argument(help="name of a recipe, or a resolved .json file", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="change one field: --set train.steps=200 (may be given again)", metavar="FIELD=VALUE")
]


def recipe_of(name: str, changes: Sequence[str] | None = None, *, is_run: bool = False, option: str = "") -> Recipe:
    """The named recipe with its changes; an unknown name or field is wrong usage.

    is_run: it is about to be run, so the checkpoint that it starts from must be here. option: the option that named it.
    """
    from flows.commands.overrides import with_changes
    from flows.pipeline.recipes import get_recipe
    from model_core.spec.errors import SpecError

    try:
        found = with_changes(get_recipe(name), changes or ())
        if is_run:
            from flows.pipeline.stages.training import check_start

            check_start(found)
        return found
    except SpecError as error:
        raise typer.BadParameter(f"{option}: {error}" if option else str(error)) from error
