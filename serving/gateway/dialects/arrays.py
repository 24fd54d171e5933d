"""Arrays of other projects -> numpy, strictly: plain numbers only, sizes compared before anything is built.

Their own decoders accept object arrays and any dtype text (openpi's crashes the process on one); this one reads four kinds of
numbers, and nothing that could execute code or hold a pointer.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import WireError
from model_core.spec.protocol.packing import MAX_NDIM
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES

_DTYPES = {
    f"{order}{kind}": np.dtype(f"{order}{kind}")
    for kind in ("u1", "i1", "b1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
    for order in "<>|="
    if order in "<>=" or kind.endswith("1")
}
_NAMES = {name: np.dtype(name) for name in ("uint8", "int8", "bool", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")}


def array_of(dtype: Any, shape: Any, data: Any) -> NDArray[Any]:
    """The array of this dtype, shape and data. Raises WireError when they do not agree or name anything but plain numbers."""
    if not isinstance(dtype, str) or (kind := _DTYPES.get(dtype) or _NAMES.get(dtype)) is None:
        raise WireError(f"an array has plain numbers, not dtype {str(dtype)[:40]!r}")
    is_list = isinstance(shape, list | tuple) and len(shape) <= MAX_NDIM
    if not is_list or not all(type(n) is int and 0 <= n <= MAX_MESSAGE_BYTES for n in shape):
        raise WireError(f"an array's shape is a list of at most {MAX_NDIM} whole numbers, got {str(shape)[:60]}")
    size = math.prod(shape) * kind.itemsize
    got = len(data) if isinstance(data, bytes | bytearray | memoryview) else type(data).__name__
    if got != size:
        raise WireError(f"an array of shape {list(shape)} and {dtype} has {size} bytes, got {got}")
    flat = np.frombuffer(data, kind)
    return (flat if flat.flags.aligned else flat.copy()).reshape(shape)


def base64_bytes(text: Any) -> bytes:
    """Base64 text -> bytes; raises WireError."""
    if not isinstance(text, str) or len(text) > 2 * MAX_MESSAGE_BYTES:
        raise WireError("expected base64 text")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError("not base64") from error


def msgpack_array(array: NDArray[Any], *, bytes_keys: bool) -> dict[Any, Any]:
    """An array as openpi (bytes keys) and vla-eval (text keys) write it."""
    document: Mapping[str, Any] = {
        "__ndarray__": True,
        "data": np.ascontiguousarray(array).tobytes(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }
    return {name.encode() if bytes_keys else name: value for name, value in document.items()}


def json_array(array: NDArray[Any]) -> dict[str, Any]:
    """An array as json_numpy writes it."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape)}
