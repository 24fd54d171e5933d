"""Changing single fields of a recipe from the command line: ``train.steps=200``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from components.config.recipe import Recipe
from model_core.spec.errors import SpecError


def with_changes(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """`recipe` with FIELD=VALUE applied in order; VALUE is JSON or plain text. Raises `SpecError` naming what was probably meant."""
    if not changes:
        return recipe
    document = recipe.to_json()
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise SpecError(f"--set {change!r}: write FIELD=VALUE, such as --set train.steps=200")
        _put(document, path.strip().split("."), _value(text))
    return Recipe.from_json(document)


def _put(document: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, last = path
    for depth, name in enumerate(parents):
        inner = document.setdefault(name, {})
        if not isinstance(inner, dict):
            raise SpecError(f"--set {'.'.join(path)}: {'.'.join(path[: depth + 1])} is a value and has no field {path[depth + 1]!r}")
        document = inner
    document[last] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
