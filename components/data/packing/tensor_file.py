"""A safetensors file by its parts: where each tensor's rows lie, so that single rows are read from a disk or over a network.

The format: eight bytes with the length of the header, the header as JSON (name -> dtype, shape, begin and end), then the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import DatasetError

_DTYPES = {"U8": np.uint8, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F16": np.float16, "F32": np.float32}
_DTYPES |= {"F64": np.float64, "BOOL": np.bool_, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}
LENGTH_BYTES = 8
_MOST_HEADER = 100_000_000  # bytes, the bound of the format

Fetch = Callable[[int, int], bytes | memoryview]  # first byte, number of bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """Where a tensor lies: `begin` counts from the first byte of the file. row_bytes: of one entry along the first dimension."""

    dtype: Any
    shape: tuple[int, ...]
    begin: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    def rows(self, fetch: Fetch, first: int, count: int) -> NDArray[Any]:
        """Rows first .. first+count-1, by one fetch."""
        content = fetch(self.begin + first * self.row_bytes, count * self.row_bytes)
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """The header of a file: its tensors by name, and its metadata."""

    places: Mapping[str, TensorPlace]
    metadata: Mapping[str, str]

    @staticmethod
    def read(name: str, size: int, fetch: Fetch) -> TensorFile:
        """Read the header. name: of the file, for errors. Raises `DatasetError` for a file that is none of this format or is cut off."""
        length = int.from_bytes(bytes(fetch(0, LENGTH_BYTES)), "little") if size > LENGTH_BYTES else 0
        if not 0 < length <= min(size - LENGTH_BYTES, _MOST_HEADER):
            raise DatasetError(f"{name} is no safetensors file, or is cut off. Fix: `dvc pull`, or make it again")
        header = json.loads(bytes(fetch(LENGTH_BYTES, length)))
        metadata = header.pop("__metadata__", {})
        start = LENGTH_BYTES + length
        places = {
            tensor: TensorPlace(dtype=_DTYPES[entry["dtype"]], shape=tuple(entry["shape"]), begin=start + entry["data_offsets"][0])
            for tensor, entry in header.items()
        }
        needed = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if needed != size:
            raise DatasetError(f"{name}: expected {needed} bytes, got {size}. Fix: `dvc pull`, or make it again")
        return TensorFile(places=places, metadata=metadata)
