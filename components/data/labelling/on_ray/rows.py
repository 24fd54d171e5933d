"""Rows of shards as rows of Parquet files: an id, a reason, and all columns in one field, so that every file has one schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.labelling.engine import Shard, ShardAnswer
from model_core.spec.files import atomic_write

ROW_ID, ERROR, DATA = "row_id", "error", "data"
_ROWS_PER_FILE = 100_000
Row = Mapping[str, NDArray[Any]]


def packed(row: Row) -> bytes:
    """The columns of one row."""
    from safetensors.numpy import save

    return save({name: np.asarray(value, order="C") for name, value in row.items()})


def unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    """The columns of one row, again."""
    from safetensors.numpy import load

    return load(data) if data else {}


def shards_of(ids: Sequence[str], rows: Sequence[Row], most: int) -> Iterator[Shard]:
    """Rows as shards of at most `most`, in their order; rows of other shapes (another camera) begin a new one."""
    first = 0
    while first < len(ids):
        end, shapes = first, _shapes(rows[first])
        while end < len(ids) and end - first < most and _shapes(rows[end]) == shapes:
            end += 1
        columns = {name: np.stack([row[name] for row in rows[first:end]]) for name in rows[first]}
        yield Shard(row_ids=tuple(ids[first:end]), columns=columns)
        first = end


def _shapes(row: Row) -> dict[str, tuple[Any, ...]]:
    return {name: (value.shape, value.dtype) for name, value in row.items()}


def write_rows(shards: Iterable[Shard], folder: Path) -> list[str]:
    """Write all rows of `shards` into Parquet files of `folder`; gives their ids, in order."""
    ids: list[str] = []
    waiting: list[tuple[str, bytes]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        for place, row_id in enumerate(shard.row_ids):
            waiting.append((row_id, packed({name: column[place] for name, column in shard.columns.items()})))
        ids.extend(shard.row_ids)
        if len(waiting) >= _ROWS_PER_FILE:
            _write(waiting, folder / f"rows-{len(ids):012d}.parquet")
            waiting = []
    if waiting:
        _write(waiting, folder / f"rows-{len(ids):012d}.parquet")
    return ids


def _write(rows: Sequence[tuple[str, bytes]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(ROW_ID, pa.string()), (ERROR, pa.string()), (DATA, pa.binary())])
    names, data = [row_id for row_id, _ in rows], [packed_row for _, packed_row in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({ROW_ID: names, ERROR: [""] * len(rows), DATA: data}, schema=schema), sink, compression="zstd")
    atomic_write(path, sink.getvalue().to_pybytes(), durable=False)


def answers_in(folder: Path) -> Iterator[ShardAnswer]:
    """The answers of every file of `folder`. An error's own columns are left out: what is known of such a row is its reason."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=[ROW_ID, ERROR, DATA])
        ids, reasons = table[ROW_ID].to_pylist(), table[ERROR].to_pylist()
        good = [place for place, reason in enumerate(reasons) if not reason]
        rows = [unpacked(table[DATA][place].as_py()) for place in good]
        for shard in shards_of([ids[place] for place in good], rows, len(good) or 1):
            yield ShardAnswer(row_ids=shard.row_ids, columns=shard.columns)
        if errors := {row_id: reason for row_id, reason in zip(ids, reasons, strict=True) if reason}:
            yield ShardAnswer(row_ids=(), columns={}, errors=errors)


def counted(folder: Path) -> tuple[int, int]:
    """(rows, rows with a reason) in `folder`."""
    import pyarrow.parquet as pq

    reasons = [reason for path in folder.glob("*.parquet") for reason in pq.read_table(path, columns=[ERROR])[ERROR].to_pylist()]
    return len(reasons), sum(map(bool, reasons))


def rows_written(folder: Path, known: dict[str, int]) -> int:
    """Rows of the files of `folder` that are whole, while others are being written. known: of the files that were looked at before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in folder.glob("*.parquet"):
        if path.name not in known:
            with contextlib.suppress(OSError, pa.ArrowInvalid):  # being written, or taken back by a resume
                known[path.name] = pq.read_metadata(path).num_rows
    return sum(known.values())
