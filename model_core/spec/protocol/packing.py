"""What a field may hold, defined once as a `Kind` and checked in both directions, before it is written and after it was read.

`WireError` is the only exception that leaves this file; bytes are `spec.strict_msgpack`'s.

An array is the map {dtype, shape, data}: dtype from a whitelist of plain little-endian numbers, `data` of exactly the
size that the shape says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import ActwrightError, WireError
from model_core.spec.narrowing import is_dict, is_list, is_mapping, is_sequence
from model_core.spec.protocol.strict_msgpack import LARGE_BYTES, Buffer

MAX_ARRAY_BYTES = 2**31
MAX_NDIM = 5
DTYPES = ("uint8", "int16", "uint16", "int32", "int64", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Kind:
    """How one field's value is written and read; both raise WireError for a value that the field does not allow."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def expect(claim: bool, expected: str, value: object) -> None:
    """Raise WireError naming what was expected and what came instead."""
    if not claim:
        raise unexpected(expected, value)


def unexpected(expected: str, value: object) -> WireError:
    """The error of `expect`, for checks that run for every field of every message."""
    return WireError(f"expected {expected}, got {type(value).__name__} {str(value)[:60]!r}")


def text(limit: int = 256) -> Kind:
    """Text of at most `limit` characters."""
    wanted = f"text of at most {limit} characters"  # built once: these checks run for every field of every message

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit:
            raise unexpected(wanted, value)
        return str(value)

    return Kind(check, check)


def choice(*allowed: str) -> Kind:
    """One of these words."""
    wanted = f"one of {', '.join(allowed)}"

    def check(value: Any) -> str:
        expect(isinstance(value, str) and value in allowed, wanted, value)
        return value

    return Kind(check, check)


def whole(low: int = 0, high: int = 2**53) -> Kind:
    """A whole number; true and false are none."""
    wanted = f"a whole number {low}..{high}"

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise unexpected(wanted, value)
        return value

    return Kind(check, check)


def real(low: float = -1e15, high: float = 1e15) -> Kind:
    """A finite number."""
    wanted = f"a finite number {low:g}..{high:g}"

    def check(value: Any) -> float:
        is_number = type(value) is float or (isinstance(value, int | float) and not isinstance(value, bool))
        expect(is_number and math.isfinite(value) and low <= value <= high, wanted, value)
        return float(value)

    return Kind(check, check)


def flag() -> Kind:
    """True or false, never 0 or 1."""

    def check(value: Any) -> bool:
        expect(type(value) is bool, "true or false", value)
        return value

    return Kind(check, check)


def optional(kind: Kind) -> Kind:
    """Nothing, or what `kind` allows."""
    return Kind(lambda v: None if v is None else kind.write(v), lambda v: None if v is None else kind.read(v))


def mapping(kind: Kind, limit: int = 64) -> Kind:
    """A map from names to what `kind` allows."""
    name = text(128)
    wanted = f"a map of at most {limit} entries"

    def checked(value: Any) -> Mapping[Any, Any]:
        expect(is_mapping(value) and len(value) <= limit, wanted, value)
        return value

    return Kind(
        lambda value: {name.write(k): kind.write(v) for k, v in checked(value).items()},
        lambda value: {name.read(k): kind.read(v) for k, v in checked(value).items()},
    )


def texts(limit: int = 256, length: int = 1000) -> Kind:
    """A list of texts; read as a tuple."""
    line = text(length)

    def checked(value: Any) -> tuple[str, ...]:
        expect(is_sequence(value) and len(value) <= limit, f"a list of at most {limit} texts", value)
        return tuple(line.read(v) for v in value)

    return Kind(lambda value: list(checked(value)), checked)


def blob(limit: int) -> Kind:
    """Bytes, at most `limit` of them; read without a copy where that is possible."""

    def check(value: Any) -> Buffer:
        expect(isinstance(value, bytes | bytearray | memoryview), "bytes", value)
        expect(len(value) <= limit, f"at most {limit} bytes", len(value))
        return value

    return Kind(check, lambda value: bytes(check(value)))


def document(write: Callable[[Any], Any], read: Callable[[Any], Any]) -> Kind:
    """A map with rules of its own."""

    def read_map(value: Any) -> Any:
        expect(isinstance(value, dict), "a map", value)
        return read(value)

    return Kind(write, read_map)


def array(dtype: str, ndim: int) -> Kind:
    """An array of exactly this dtype and number of axes. Read without a copy; never written to afterwards."""
    wire_dtype = np.dtype(dtype).newbyteorder("<")

    def write(value: Any) -> dict[str, Any]:
        checked = np.asarray(value)
        if checked.dtype != wire_dtype or checked.ndim != ndim:
            raise WireError(f"expected a {ndim}-axis {dtype} array, got {checked.dtype} {checked.shape}")
        return {"dtype": dtype, "shape": [int(n) for n in checked.shape], "data": bytes_of(np.ascontiguousarray(checked, wire_dtype))}

    def read(value: Any) -> NDArray[Any]:
        shape, size, data = checked_array(value, dtype, ndim, "raw")
        if len(data) != size:
            raise WireError(f"expected {size} bytes for shape {shape} of {dtype}, got {len(data)}")
        flat = np.frombuffer(data, wire_dtype)
        return (flat if flat.flags.aligned else flat.copy()).reshape(shape)

    return Kind(write, read)


def checked_array(value: Any, dtype: str, ndim: int, packing: str) -> tuple[list[int], int, Buffer]:
    """The shape, the number of bytes when unpacked, and the bytes of an array {dtype, shape, data}, before any is built."""
    expect(is_dict(value) and {"dtype", "shape", "data"} <= value.keys(), "an array {dtype, shape, data}", value)
    shape, data = value["shape"], value["data"]
    if value["dtype"] != dtype or dtype not in DTYPES:
        raise WireError(f"expected dtype {dtype}, got {str(value['dtype'])[:60]!r}")
    if not is_list(shape) or len(shape) != ndim or ndim > MAX_NDIM:
        raise WireError(f"expected {ndim} axes, got {str(shape)[:60]}")
    expect(all(type(n) is int and 0 <= n <= MAX_ARRAY_BYTES for n in shape), "axis lengths that are whole numbers >= 0", shape)
    expect(isinstance(data, bytes | memoryview), "bytes as array data", data)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > MAX_ARRAY_BYTES:
        raise WireError(f"expected an array of at most {MAX_ARRAY_BYTES} bytes, got {size}")
    expect(value.get("packing", "raw") == packing, "the packing of this field", value.get("packing"))
    return shape, size, data


def bytes_of(contiguous: NDArray[Any]) -> Buffer:
    """The bytes of an array: a copy of a small one, a view of a large one."""
    if contiguous.nbytes < LARGE_BYTES:
        return contiguous.tobytes()
    return contiguous.reshape(-1).view(np.uint8).data


# --- a dataclass as a map, checked field by field ---------------------------------------------------------------------


def to_document(value: Any, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """A dataclass -> a map of what its kinds write."""
    written: dict[str, Any] = {}
    for name, kind in kinds.items():
        try:
            written[name] = kind.write(getattr(value, name))
        except WireError as error:
            raise WireError(f"{type(value).__name__}.{name}: {error}") from error
    return written


def from_document(cls: type[Any], kinds: Mapping[str, Kind], document: Mapping[str, Any]) -> Any:
    """A map -> the dataclass. Unknown entries are ignored; a missing one without a default is an error."""
    values: dict[str, Any] = {}
    for name, is_needed in _plan(cls):
        if name not in document:
            if is_needed:
                raise WireError(f"{cls.__name__} lacks the field {name!r}")
            continue
        try:
            values[name] = kinds[name].read(document[name])
        except (ActwrightError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise WireError(f"{cls.__name__}.{name}: {error}") from error
    try:
        return cls(**values)
    except ActwrightError as error:
        raise WireError(f"{cls.__name__}: {error}") from error


@functools.cache
def _plan(cls: type[Any]) -> tuple[tuple[str, bool], ...]:
    """Names of the fields of a dataclass, and which must be there."""
    return tuple((item.name, item.default is MISSING and item.default_factory is MISSING) for item in fields(cls))


def nested(cls: type[Any], kinds: Mapping[str, Kind]) -> Kind:
    """A dataclass inside another."""
    return document(lambda value: to_document(value, kinds), lambda document: from_document(cls, kinds, document))
