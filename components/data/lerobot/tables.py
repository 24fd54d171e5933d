"""Tables and documents of a LeRobot data set, read with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_core.spec.errors import DatasetError


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers, or lists of numbers."""
    value = kind.value_type if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) else kind
    return pa.types.is_floating(value) or pa.types.is_integer(value) or pa.types.is_boolean(value)


def to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column as an array; a column of lists becomes a matrix."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_fixed_size_list(array.type) or pa.types.is_list(array.type):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(array), -1) if len(array) else flat.reshape(0, 0)
    return array.to_numpy(zero_copy_only=False)


def read_json(path: Path) -> dict[str, Any]:
    """A document of the data set; raises `DatasetError` for one that is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path.parent.parent.name} has no {path.parent.name}/{path.name}; this is not a whole LeRobot v3.0 data set"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path.parent.name}/{path.name} is not JSON: {error}") from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Some columns of a Parquet file (None: all); raises `DatasetError` for one that cannot be read."""
    try:
        return pq.read_table(path, columns=columns, use_threads=False)
    except (FileNotFoundError, OSError, pa.ArrowException) as error:
        raise DatasetError(f"cannot read {path.parent.name}/{path.name}: {error}") from error
