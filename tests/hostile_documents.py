"""Documents of any kind in which each text is one that a page must show and never run."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from flows.web.http.endpoint import Content, Endpoint, Events

_PLAIN: Mapping[type, object] = {int: 1, float: 1.0, bool: True}


def filled(kind: Any, text: str) -> Any:
    """A value of this type: each text is `text`, each number 1, each sequence and mapping has one entry; what may be None is not."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{one.name: filled(hints[one.name], text) for one in dataclasses.fields(kind) if one.init})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return filled(next(one for one in inner if one is not types.NoneType), text)
    if origin is typing.Literal:
        return inner[0]
    if origin is tuple and Ellipsis not in inner:
        return tuple(filled(one, text) for one in inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {filled(inner[0], text): filled(inner[1], text)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return (filled(inner[0], text),)
    return text


def document_of(endpoint: Endpoint) -> type | None:
    """What an endpoint answers as a document; None for pictures."""
    return endpoint.event if endpoint.answer is Events else None if endpoint.answer is Content else endpoint.answer


def told(endpoint: Endpoint, text: str) -> Endpoint:
    """This endpoint of the console, whatever it is asked, with an answer whose texts are all `text`."""

    async def once():
        yield filled(endpoint.event, text)

    answer = Events(stream=once) if endpoint.answer is Events else filled(endpoint.answer, text)
    return dataclasses.replace(endpoint, query=None, body=None, handle=lambda _: answer)
