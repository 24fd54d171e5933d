"""A command's options as one frozen dataclass: declared once, with help texts, and handed to the command as one value."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def from_options(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Make a function of one options dataclass a function of its fields, which is what typer reads a command line from.

    Each field is declared as a parameter would be: `field: Annotated[type, typer.Option(...)] = default`.
    """

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**values: Any) -> None:
            command(options(**values))

        hints = get_type_hints(options, include_extras=True)
        fields = dataclasses.fields(options)  # pyright: ignore[reportArgumentType]
        del called.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]  # its signature is not ours
        called.__signature__ = inspect.Signature([_parameter(one, hints[one.name]) for one in fields])  # pyright: ignore[reportAttributeAccessIssue]
        called.__annotations__ = {one.name: hints[one.name] for one in fields} | {"return": None}
        return called

    return decorate


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
