"""Typed values that need no conversion by pydantic, which typer would load for them: a fifth of the time until a command begins.

Texts, usable paths and defaults of the right type are taken here. Everything else, above all every wrong value, goes typer's way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

NOT_PLAIN = object()


class PlainValues:
    """Beside a command or group of typer: its parameters take plain values themselves."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, among them `--help`, which typer makes when it is asked for them."""
        found: list[Any] = super().get_params(ctx)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        for parameter in found:
            if "process_value" not in vars(parameter):
                parameter.process_value = partial(_process_value, parameter, parameter.process_value)
        return found


def _process_value(parameter: Any, by_typer: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    found = plain_value(parameter, value)
    if found is NOT_PLAIN:
        return by_typer(context, value)
    return parameter.callback(context, parameter, found) if parameter.callback is not None else found


def plain_value(parameter: Any, value: Any) -> Any:
    """What typer would make of `value`, or `NOT_PLAIN` where that is typer's to say."""
    described = getattr(parameter, "type_descriptor", None)  # of a newer typer perhaps not there: then all is typer's
    if described is None or parameter.multiple or parameter.nargs != 1 or described.parameter_info.parser is not None:
        return NOT_PLAIN
    if value is None:
        return NOT_PLAIN if parameter.required else None
    kind = described.annotation
    if type(value) is kind and (kind is str or (kind in (bool, int, float) and value == parameter.default)):
        return value
    return Path(value) if kind is Path and type(value) is str and _is_usable(value, described.parameter_info) else NOT_PLAIN


def _is_usable(path: str, wanted: Any) -> bool:
    """Whether a path is as the parameter asks, where that needs no more than a look: it is there and may be read, or need not be there."""
    if wanted.resolve_path or wanted.allow_dash or wanted.writable or wanted.path_type is not None:
        return False
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return not wanted.exists and "\0" not in path
    return (wanted.dir_okay if is_folder else wanted.file_okay) and (os.access(path, os.R_OK) or not wanted.readable)
