"""Fields of decoded messages, whatever decoded them: numbers by a path, and the time that a message states."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.sources.mcap.mapping import FieldMap
from model_core.spec.errors import DatasetError

_PART = re.compile(r"(?P<name>\w+)(?:\[(?P<first>\d+)(?P<range>:(?P<stop>\d+)?)?\])?")


def value_at(message: Any, path: str) -> Any:
    """What stands at a path such as "pose.position.x" or "data[0:3]". Raises `DatasetError` naming what the message has instead."""
    value = message
    for part in path.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            raise DatasetError(f"field {path!r}: expected names with dots, '[n]' or '[n:m]', got {part!r}. Fix: correct the mapping")
        value = _member(value, match["name"], path)
        if match["first"] is not None:
            value = _entry(value, match, path)
    return value


def _member(value: Any, name: str, path: str) -> Any:
    members = members_of(value)
    if name not in members:
        raise DatasetError(f"field {path!r}: there is no {name!r}; the message has {', '.join(members) or 'no fields'} there")
    return value[name] if isinstance(value, Mapping) else getattr(value, name)


def members_of(value: Any) -> list[str]:
    """The names of a message's fields: of a JSON object, a ROS 2 message or a Protobuf message."""
    if isinstance(value, Mapping):
        return [str(name) for name in value]
    if hasattr(value, "DESCRIPTOR"):
        return [field.name for field in value.DESCRIPTOR.fields]
    return list(getattr(type(value), "__slots__", None) or getattr(value, "__dict__", {}))


def _entry(value: Any, match: re.Match[str], path: str) -> Any:
    first, entries = int(match["first"]), list(value)
    stop = first + 1
    if match["range"]:
        stop = int(match["stop"]) if match["stop"] else len(entries)
    if stop > len(entries) or stop <= first:
        raise DatasetError(f"field {path!r}: the message has {len(entries)} entries there")
    return entries[first:stop] if match["range"] else entries[first]


def numbers_at(message: Any, field: FieldMap) -> NDArray[np.float64]:
    """The (D,) numbers of a field, scaled; D is the number of its dims (1 where it has none).

    Of a field that is itself a message (a point), keys or else dims name its members. Raises `DatasetError` for others or NaN.
    """
    found = value_at(message, field.field)
    if _is_object(found):
        found = [_member(found, name, field.field) for name in field.keys or field.dims]
    elif field.keys:
        found = _by_key(message, field, found)
    try:
        values_D = np.atleast_1d(np.asarray(found, np.float64))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"field {field.field!r} of {field.topic}: expected numbers, got {str(found)[:60]!r}") from error
    wanted = max(len(field.dims), 1)
    if values_D.shape != (wanted,):
        raise DatasetError(f"field {field.field!r} of {field.topic}: expected {wanted} numbers, got an array of {values_D.shape}")
    if not np.isfinite(values_D).all():
        raise DatasetError(f"field {field.field!r} of {field.topic} holds {values_D.tolist()}, expected finite numbers")
    return values_D * field.scale + field.offset


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) or (not hasattr(value, "__len__") and bool(members_of(value)))


def _by_key(message: Any, field: FieldMap, found: Any) -> list[Any]:
    names = [str(name) for name in value_at(message, field.key_field)]
    values = list(found)
    if len(names) != len(values):
        raise DatasetError(f"field {field.field!r} of {field.topic}: {len(values)} values for {len(names)} names")
    for key in field.keys:
        if names.count(key) != 1:
            raise DatasetError(
                f"{field.topic}: {field.key_field} has {key!r} {names.count(key)} times, expected once; it has {', '.join(names)}"
            )
    return [values[names.index(key)] for key in field.keys]


def text_at(message: Any, path: str) -> str:
    """The text of a field. Raises `DatasetError` for anything else."""
    found = value_at(message, path)
    if not isinstance(found, str):
        raise DatasetError(f"field {path!r}: expected text, got {type(found).__name__}")
    return found


def plain_at(message: Any, path: str) -> bool | int | float | str:
    """A single value of a field. Raises `DatasetError` for a list or an object."""
    found = value_at(message, path)
    if not isinstance(found, bool | int | float | str):
        raise DatasetError(f"field {path!r}: expected one value, got {type(found).__name__}")
    return found


def stamp_ns(message: Any) -> int | None:
    """The time that a message states of itself, in nanoseconds: `header.stamp` (ROS 2) or `timestamp` (Foxglove); None without one."""
    members = members_of(message)
    if "header" in members:
        return _time_ns(value_at(message, "header"), "stamp")
    return _time_ns(message, "timestamp") if "timestamp" in members else None


def _time_ns(holder: Any, name: str) -> int | None:
    if name not in members_of(holder):
        return None
    stamp = _member(holder, name, name)
    parts: Sequence[tuple[str, int]] = (("sec", 10**9), ("seconds", 10**9), ("nanosec", 1), ("nsec", 1), ("nanos", 1))
    members = members_of(stamp)
    found = [int(_member(stamp, part, name)) * unit for part, unit in parts if part in members]
    return sum(found) if found else None
