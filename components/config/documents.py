"""Dataclasses to plain JSON documents and back, with errors that name the field and what was meant.

Knows dataclasses, tuples, mappings, enums, optionals and scalars; nothing of what they are about. A document
read back equals what was written; an unknown or missing field is a `SpecError`, never ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

from model_core.spec.errors import SpecError

T = TypeVar("T")

# metadata of a field that says how work is done, not what it makes: it does not enter `identity_document`
NEUTRAL: Mapping[str, bool] = types.MappingProxyType({"neutral": True})


def to_document(value: object) -> Any:
    """The plain JSON form of `value`: dataclasses become dicts, tuples lists, enums their value, paths text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_document(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_document(v) for k, v in value.items()}
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Sequence | set | frozenset):
        return [to_document(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()  # pyright: ignore[reportAttributeAccessIssue]
    raise SpecError(f"cannot write {type(value).__name__} as JSON; use plain values in records and recipes")


def identity_document(value: object) -> Any:
    """`to_document` without the fields marked `NEUTRAL`: equal for two configs that make the same thing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in dataclasses.fields(value) if not f.metadata.get("neutral")]
        return {f.name: identity_document(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {str(k): identity_document(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [identity_document(v) for v in value]
    return to_document(value)


def from_document(kind: type[T], document: object, *, where: str = "") -> T:
    """Build a `kind` (a dataclass) from what `to_document` gave; raises `SpecError` naming field and near misses."""
    return typing.cast(T, _read(kind, document, where or kind.__name__))


def _read(hint: Any, value: Any, where: str) -> Any:
    if hint is Any or hint is object:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _read_dataclass(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is typing.Literal:
        return _checked(value in arguments, value, where, f"one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is not None and issubclass(origin, Mapping):
        _checked(isinstance(value, Mapping), value, where, "a mapping")
        return {k: _read(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        _checked(value in [m.value for m in hint], value, where, f"one of {[m.value for m in hint]}")
        return hint(value)
    return _read_scalar(hint, value, where)


def _read_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    if isinstance(value, kind):
        return value
    _checked(isinstance(value, Mapping), value, where, f"the fields of {kind.__name__}")
    hints, fields = typing.get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise SpecError(f"{where}: no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(fields)}"))
    for name, f in fields.items():
        if name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise SpecError(f"{where}: field {name!r} is missing")
    return kind(**{name: _read(hints[name], v, f"{where}.{name}") for name, v in value.items()})


def _read_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors: list[str] = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _read(option, value, where)
        except SpecError as error:
            errors.append(str(error))
    raise SpecError("; ".join(errors))


def _read_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _checked(isinstance(value, Sequence) and not isinstance(value, str), value, where, "a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    _checked(len(value) == len(arguments), value, where, f"{len(arguments)} values")
    return tuple(_read(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path:
        return Path(str(value))
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool)) if isinstance(hint, type) else True
    return _checked(fits, value, where, getattr(hint, "__name__", str(hint)))


def _checked(fits: bool, value: Any, where: str, expected: str) -> Any:
    if not fits:
        raise SpecError(f"{where}: expected {expected}, got {value!r}")
    return value
