"""Tables and documents of a LeRobot data set, read by column name and with errors that name file, column and row.

Writers differ: lists of fixed or free length, float64 or int32 in one file, columns in another order, extra and text columns. What can be
held without loss is; everything else is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_core.spec.errors import DatasetError


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers, or lists of numbers."""
    value = kind.value_type if is_list(kind) else kind
    return pa.types.is_floating(value) or pa.types.is_integer(value) or pa.types.is_boolean(value)


def to_numpy(column: pa.ChunkedArray, where: str) -> NDArray[Any]:
    """A column of numbers as (N,), or of lists of numbers as (N, D). where: file and column, for errors.

    Raises `DatasetError` naming the row that is empty or has another number of values.
    """
    if not is_number(column.type):
        raise DatasetError(f"{where} holds {column.type}, expected numbers or lists of numbers. Fix: write it as float32 or int64")
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise DatasetError(f"{where}, row {row} is empty, expected a number in every row. Fix: fill it in, or remove its episode")
    if not is_list(array.type):
        return _numbers(array)
    return _matrix(array, where)


def _numbers(array: Any) -> NDArray[Any]:
    """An array of numbers without an empty value, as it lies in memory. pyarrow's own `to_numpy` would import pandas for half a second."""
    if pa.types.is_boolean(array.type):
        bits = np.frombuffer(array.buffers()[1] or b"", np.uint8)
        return np.unpackbits(bits, bitorder="little")[array.offset : array.offset + len(array)].astype(np.bool_)
    return np.from_dlpack(array)


def _matrix(array: Any, where: str) -> NDArray[Any]:
    if not len(array):
        return np.zeros((0, 0))
    if pa.types.is_fixed_size_list(array.type):
        width, first = int(array.type.list_size), array.offset * int(array.type.list_size)
    else:
        offsets = np.from_dlpack(array.offsets)
        lengths, first = np.diff(offsets), int(offsets[0])
        width = int(np.bincount(lengths).argmax())
        if (odd := np.flatnonzero(lengths != width)).size:
            row = int(odd[0])
            raise DatasetError(
                f"{where}, row {row} has {int(lengths[row])} values, expected {width} as in the other rows. Fix: correct that row"
            )
    flat = array.values.slice(first, width * len(array))
    if flat.null_count:
        row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0]) // width
        raise DatasetError(f"{where}, row {row} has an empty value, expected {width} numbers. Fix: fill it in, or remove its episode")
    return _numbers(flat).reshape(len(array), width)


def to_float32(values: NDArray[Any], where: str) -> NDArray[np.float32]:
    """`values` as float32. Raises `DatasetError` naming the row where that would lose the value, and not only its last digit."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        cast = values.astype(np.float32)
    is_float = np.issubdtype(values.dtype, np.floating)
    lost = np.isfinite(values) & ~np.isfinite(cast) if is_float else values != cast.astype(np.float64)
    if lost.any():
        place = np.argwhere(lost)[0]
        got = values[tuple(place)]
        raise DatasetError(f"{where}, row {int(place[0])} is {got}, which float32 cannot hold. Fix: write it in a larger unit")
    _check_resolution(values, cast, where)
    return cast


# Rounding may take at most this share of a column's range. What is below 1e-4 of any unit, or 1e-12 of the values, is noise.
_LOST_SHARE, _LOST_LEAST, _NOISE_SHARE = 0.01, 1e-4, 1e-12


def _check_resolution(values: NDArray[Any], cast: NDArray[np.float32], where: str) -> None:
    """Refuse large values with small differences, such as the time of day in seconds: float32 would make them equal."""
    finite = np.isfinite(values).all(axis=0)
    columns, rounded = values.reshape(len(values), -1)[:, finite.ravel()], cast.reshape(len(values), -1)[:, finite.ravel()]
    if values.dtype != np.float64 or not columns.size:
        return
    span, largest = np.ptp(columns, axis=0), np.abs(columns).max(axis=0)
    lost = np.abs(columns - rounded).max(axis=0)
    if (bad := np.flatnonzero((lost > np.maximum(_LOST_SHARE * span, _LOST_LEAST)) & (span > _NOISE_SHARE * largest))).size:
        which = bad[0]
        raise DatasetError(
            f"{where} has values of {largest[which]:.6g} that differ by {span[which]:.3g} at most, which float32 cannot tell apart. "
            "Fix: subtract a constant before writing it"
        )


def to_int64(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    """`values` as int64. Raises `DatasetError` naming the row that is no whole number."""
    with np.errstate(invalid="ignore"):
        cast = values.astype(np.int64)
    odd = np.flatnonzero(cast != values)
    if values.ndim != 1 or odd.size:
        said = f", row {int(odd[0])} is {values[odd[0]]}" if values.ndim == 1 else " holds lists"
        raise DatasetError(f"{where}{said}, expected a whole number in every row. Fix: write it as int64")
    return cast


def read_json(path: Path) -> dict[str, Any]:
    """A document of the data set; raises `DatasetError` for one that is missing or no JSON."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path.parent.parent.name} has no {path.parent.name}/{path.name}; this is not a whole LeRobot data set"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path.parent.name}/{path.name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path.parent.name}/{path.name} is a {type(document).__name__}, expected an object")
    return document


def read_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file; raises `DatasetError` for one that cannot be read."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Some columns of a Parquet file (None: all); raises `DatasetError` for one that cannot be read."""
    try:
        # as a file, not as a partitioned data set: a folder named a=b would add a column
        with pq.ParquetFile(path) as file:
            return file.read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        if odd := _empty_row(path, str(error)):
            raise DatasetError(f"{odd} is empty, expected a number in every row. Fix: fill it in, or remove its episode") from error
        raise _unreadable(path, error) from error


def _empty_row(path: Path, error: str) -> str:
    """Which column and row made pyarrow fail: it cannot read an empty row of a list of fixed length. Empty for other errors."""
    if (found := re.search(r"lists to be of size=\d+ but index (\d+) had size=0", error)) is None:
        return ""
    with pq.ParquetFile(path) as file:
        for name in file.schema_arrow.names:
            try:
                file.read(columns=[name], use_threads=False)
            except pa.ArrowException:
                return f"{path.parent.parent.name}/{path.parent.name}/{path.name}: column {name!r}, row {int(found[1]) - 1}"
    return ""


def _unreadable(path: Path, error: Exception) -> DatasetError:
    ended = " It has no footer: the process that wrote it ended before it closed the file." if "footer" in str(error) else ""
    return DatasetError(f"cannot read {path.parent.name}/{path.name}: {error}.{ended} Fix: record or export the data set again")
