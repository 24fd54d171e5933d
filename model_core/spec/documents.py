"""Dataclasses to plain JSON documents and back, with errors that name the field, what was expected and what was got.

`to_document` writes, `from_document` reads; a document read back equals what was written. Reading is strict: 2.7 and "4" are
no whole numbers, a name that the dataclass does not have is refused with the nearest name that it has.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from model_core.spec.errors import ActwrightError, SpecError

T = TypeVar("T")
# A number that stays as it was written: 1 is not read as 1.0, so that a document read and written again keeps its digest.
Number: TypeAlias = int | float

# metadata of a field that says how work is done, not what it makes: it does not enter `identity_document`
NEUTRAL: Mapping[str, bool] = types.MappingProxyType({"neutral": True})
# metadata of a field that came later: it enters `identity_document` only where it does not hold its default, so that older keys stand
LATER: Mapping[str, bool] = types.MappingProxyType({"later": True})
_EXPECTED = re.compile(r"Expected `(?P<kind>.+?)`(?: of length (?P<length>\d+))?, got .*", re.DOTALL)
_JSON_NAMES = {"array": "a list", "object": "a mapping", "str": "text"}


def to_document(value: object) -> Any:
    """The plain JSON form of `value`: dataclasses become dicts, tuples and arrays lists, enums their value, paths text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_document(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_document(v) for k, v in typing.cast(Mapping[Any, Any], value).items()}
    if isinstance(value, np.generic | np.ndarray):
        return typing.cast(Any, value.tolist())
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, set | frozenset):
        return [to_document(v) for v in sorted(typing.cast(set[Any], value))]
    if isinstance(value, Sequence):
        return [to_document(v) for v in typing.cast(Sequence[Any], value)]
    raise SpecError(f"cannot write {type(value).__name__} as JSON; use plain values in records and recipes")


def identity_document(value: object) -> Any:
    """`to_document` without the fields marked `NEUTRAL`, and those marked `LATER` that hold their default: equal for two configs that make
    the same thing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in dataclasses.fields(value) if not f.metadata.get("neutral") and not _is_later_default(f, value)]
        return {f.name: identity_document(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {str(k): identity_document(v) for k, v in typing.cast(Mapping[Any, Any], value).items()}
    if isinstance(value, tuple | list):
        return [identity_document(v) for v in typing.cast(Sequence[Any], value)]
    return to_document(value)


def _is_later_default(one: dataclasses.Field[Any], value: object) -> bool:
    return bool(one.metadata.get("later")) and getattr(value, one.name) == one.default


def from_document(kind: type[T], document: object, *, where: str = "") -> T:
    """Build a `kind` (a dataclass) from what `to_document` gave; raises `SpecError` naming the field, `where` being the root's name.

    A value that is already of the field's type is taken as it is. What a `__post_init__` refuses is named with its place too.
    """
    import msgspec  # a command that reads no document, such as an inspection, answers sooner without it

    root = where or kind.__name__
    for place, hint, value in _walk(kind, document, root):
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            _check_names(hint, typing.cast(Mapping[Any, Any], value), place)
    try:
        return _convert(kind, document)
    except msgspec.ValidationError:
        for place, hint, value in _walk(kind, document, root):
            _check_value(hint, value, place)
        raise


def _convert(hint: Any, value: object) -> Any:
    import msgspec

    return msgspec.convert(value, hint, strict=True, dec_hook=_decode)


def _decode(hint: Any, value: Any) -> Any:
    """Values of types that JSON does not have, and that the library does not know."""
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is np.ndarray or typing.get_origin(hint) is np.ndarray:
        return _array(hint, value)
    if hint is object or (isinstance(hint, type) and isinstance(value, hint)):
        return value
    raise ValueError(f"Expected `{getattr(hint, '__name__', hint)}`, got `{type(value).__name__}`")


def _array(hint: Any, value: Any) -> np.ndarray:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise ValueError(f"Expected `array`, got `{type(value).__name__}`")  # noqa: TRY004 (the library turns it into a located error)
    dtypes = [typing.get_args(part)[0] for part in typing.get_args(hint) if typing.get_origin(part) is np.dtype]
    concrete = [dtype for dtype in dtypes if isinstance(dtype, type) and not dtype.__subclasses__()]
    return np.asarray(value, concrete[0] if concrete else None)


def _walk(hint: Any, value: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Every value in a document with its place and the type that it should have, parts before the whole."""
    arguments = typing.get_args(hint)
    choices = [option for option in arguments if option is not type(None)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if len(choices) == 1 and value is not None:
            yield from _walk(choices[0], value, place)
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        kinds = _field_kinds(typing.cast(type[Any], hint))
        for name, part in typing.cast(Mapping[str, Any], value).items():
            if name in kinds:
                yield from _walk(kinds[name], part, f"{place}.{name}")
    elif _is_mapping(hint) and len(arguments) == 2 and isinstance(value, Mapping):
        for name, part in typing.cast(Mapping[str, Any], value).items():
            yield from _walk(arguments[1], part, f"{place}.{name}")
    elif typing.get_origin(hint) in (tuple, list) and isinstance(value, list | tuple):
        parts = typing.cast(Sequence[Any], value)
        each = arguments[:1] * len(parts) if len(arguments) == 1 or arguments[1:] == (Ellipsis,) else arguments
        for index, (kind, part) in enumerate(zip(each, parts, strict=False)):
            yield from _walk(kind, part, f"{place}[{index}]")
    yield place, hint, value


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


@functools.cache
def _field_kinds(kind: type[Any]) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _check_names(kind: Any, value: Mapping[Any, Any], place: str) -> None:
    known = _field_kinds(kind)
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise SpecError(f"{place}.{name}: unknown; " + (f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"))
    for f in dataclasses.fields(kind):
        if f.name not in value and f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise SpecError(f"{place}: field {f.name!r} is missing")


def _check_value(hint: Any, value: Any, place: str) -> None:
    import msgspec

    try:
        _convert(hint, value)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ActwrightError):
            raise SpecError(f"{place}: {error.__cause__}") from error
        raise SpecError(f"{place}: {_reason(hint, value, str(error).split(' - at `')[0])}") from error


def _reason(hint: Any, value: Any, refused: str) -> str:
    options = _options(hint)
    match = _EXPECTED.fullmatch(refused)
    if options:
        expected = f"one of {', '.join(map(repr, options))}"
    elif dataclasses.is_dataclass(hint):
        expected = f"the fields of {getattr(hint, '__name__', hint)}"
    elif match is None:
        return f"{refused}, got {value!r}"
    elif match["length"]:
        expected = f"{match['length']} values"
    else:
        expected = " or ".join(_JSON_NAMES.get(name, name) for name in match["kind"].split(" | "))
    return f"expected {expected}, got {value!r}"


def _options(hint: Any) -> tuple[Any, ...]:
    """The values that an enum or a `Literal` has; none for other types."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return tuple(member.value for member in hint)
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
