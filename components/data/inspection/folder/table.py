"""The data files of a folder as columns, one file after the other, whatever is wrong with single ones of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.inspection.folder.facts import FactList
from components.data.lerobot.tables import is_list, is_number, to_numpy
from model_core.spec.errors import DatasetError

_SMALL = 8 << 20  # bytes of a file up to which several threads take more time than they save


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawTable:
    """Columns of numbers (N,) or (N, D) and of other things (as they are) over all data files that can be read.

    starts: file -> (its first row, its rows). dtypes: column -> as stored.
    """

    rows: int = 0
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    others: Mapping[str, pa.ChunkedArray] = field(default_factory=dict[str, pa.ChunkedArray])
    starts: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    dtypes: Mapping[str, str] = field(default_factory=dict[str, str])


def take_memory_of_the_system() -> None:
    """Have pyarrow allocate as numpy does, for the whole process. Its own allocator takes so much at once that tables of a few MB are read
    in half of the processor time without it.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def read_raw_table(root: Path, files: Sequence[str], facts: FactList) -> RawTable:
    """Read `files`, in their order. Facts: `file_missing`, `file_unreadable`, `column_missing`, `values_missing`."""
    tables: dict[str, pa.Table] = {}
    for name in files:
        if not facts.check("file_missing", (root / name).is_file(), name, "the data file is missing"):
            continue
        facts.look("file_unreadable")
        try:
            with pq.ParquetFile(root / name) as file:
                tables[name] = file.read(use_threads=os.path.getsize(root / name) > _SMALL)
        except (OSError, pa.ArrowException) as error:
            facts.add(
                "file_unreadable", name, f"the data file cannot be read ({error}); a process that is killed leaves one without footer"
            )
    if not tables:
        return RawTable()
    starts, row = {}, 0
    for name, table in tables.items():
        starts[name] = (row, table.num_rows)
        row += table.num_rows
    columns: dict[str, NDArray[Any]] = {}
    others: dict[str, pa.ChunkedArray] = {}
    first = next(iter(tables.values()))
    for field_ in first.schema:
        if parts := _parts(field_.name, tables, facts):
            _sort(field_.name, parts, columns, others, facts)
    dtypes = {f.name: str(f.type.value_type if is_list(f.type) else f.type) for f in first.schema}
    return RawTable(rows=row, columns=columns, others=others, starts=starts, dtypes=dtypes)


def _parts(name: str, tables: Mapping[str, pa.Table], facts: FactList) -> list[pa.ChunkedArray]:
    for file, table in tables.items():
        if table.column_names.count(name) != 1:
            facts.add(
                "column_missing", file, f"column {name!r} is there {table.column_names.count(name)} times, expected once as in others"
            )
            return []
    return [table[name] for table in tables.values()]


def _sort(
    name: str,
    parts: Sequence[pa.ChunkedArray],
    columns: dict[str, NDArray[Any]],
    others: dict[str, pa.ChunkedArray],
    facts: FactList,
) -> None:
    if not all(is_number(part.type) for part in parts):
        if len({part.type for part in parts}) == 1:
            others[name] = pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=parts[0].type)
        return
    facts.look("values_missing")
    try:
        arrays = [to_numpy(part, f"column {name!r}") for part in parts]
        arrays = [a.reshape(len(a)) if a.ndim == 2 and a.shape[1] == 1 and name in _SCALARS else a for a in arrays]
        columns[name] = np.concatenate(arrays)
    except DatasetError as error:
        facts.add("values_missing", name, str(error))
        if not is_list(parts[0].type):  # what is missing is no number, and the rest still counts
            columns[name] = np.concatenate([part.to_numpy().astype(np.float64) for part in parts])
    except ValueError:
        widths = sorted({str(getattr(part.type, "list_size", "free")) for part in parts})
        facts.add("column_width", name, f"its data files hold rows of different width ({', '.join(widths)}), expected one")


_SCALARS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
