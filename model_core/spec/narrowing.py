"""isinstance for a value of unknown type: after it, the type checker also knows the types of what a container holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """A dict, or another mapping."""
    return type(value) is dict or isinstance(value, Mapping)  # the first check is faster and nearly always decides


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """A dict, as JSON and msgpack are read."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """A list, and no tuple."""
    return isinstance(value, list)


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """A list or a tuple; text is none."""
    return isinstance(value, list | tuple)
