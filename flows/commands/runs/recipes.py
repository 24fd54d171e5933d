"""`actwright recipes` and `actwright recipe`: list the recipes, and resolve one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.terminal.output import print_line, print_result


def recipe(
    name: RecipeName = "loop", change: Overrides = None, out: Annotated[Path | None, typer.Option(help="write it to this file")] = None
) -> None:
    """Show a recipe with every field resolved, or write it to a file.

    Example: actwright recipe loop --set train.seed=2 --out mine.json && actwright run mine.json
    """
    from model_core.spec.files import atomic_write

    resolved = recipe_of(name, change, is_run=True)
    text = json.dumps(resolved.to_json(), indent=1, sort_keys=True) + "\n"
    if out is None:
        print_line(text)
    else:
        atomic_write(out, text)
    print_result(recipe=resolved.name, digest=resolved.digest, path=str(out) if out else "")


def recipes() -> None:
    """List the recipes, one per line.

    Example: actwright recipes
    """
    from flows.pipeline.recipes import RECIPES, get_recipe

    for name in RECIPES:
        print_line(f"{name:16} {get_recipe(name).description}")
    print_result(recipes=list(RECIPES))
