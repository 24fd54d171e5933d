"""A message of nested maps -> flat names, each of which stands there once: of two values under one name neither is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from model_core.spec.errors import ContractError, WireError

NESTED: Any = object()
_MAX_DEPTH = 4


def flatten(document: Mapping[Any, Any], leaf: Callable[[Mapping[Any, Any]], Any]) -> dict[str, Any]:
    """Maps inside maps become "a/b". leaf: the value that a map stands for (an array), or `NESTED` for a map of fields.

    Raises WireError for a message that is nested too deep, ContractError for a name that comes twice.
    """
    values: dict[str, Any] = {}
    _collect(document, "", values, leaf)
    return values


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Add a field. Raises ContractError where it is there already, however it was written the first time."""
    if name in values:
        raise ContractError(f"{name[:60]!r} comes twice in one message, so it is not known which one counts. Fix: send it once")
    values[name] = value


def _collect(document: Mapping[Any, Any], path: str, values: dict[str, Any], leaf: Callable[[Mapping[Any, Any]], Any]) -> None:
    if path.count("/") > _MAX_DEPTH:
        raise WireError(f"nested deeper than {_MAX_DEPTH}")
    for key, value in document.items():
        name = f"{path}{key.decode(errors='replace') if isinstance(key, bytes) else key}"
        found = leaf(value) if isinstance(value, dict) else value
        if found is NESTED:
            _collect(value, f"{name}/", values, leaf)
        else:
            put(values, name, found)
