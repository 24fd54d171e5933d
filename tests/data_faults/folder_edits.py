"""Changes of the files of a LeRobot v3.0 folder in place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def data_files(root: Path) -> list[Path]:
    """The data files, in order."""
    return sorted((root / "data").rglob("*.parquet"))


def films(root: Path, camera: int = 0) -> list[Path]:
    """The films of one camera, in order."""
    return sorted(sorted((root / "videos").iterdir())[camera].rglob("*.mp4"))


def change_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite one Parquet file."""
    pq.write_table(change(pq.read_table(path)), path)


def change_column(root: Path, name: str, change: Callable[[np.ndarray], Any]) -> None:
    """Replace one column of every data file."""
    for path in data_files(root):
        table = pq.read_table(path)
        column = pa.array(change(np.array(table[name].to_pylist())))
        pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def change_entries(root: Path, change: Callable[[list[Row]], list[Row]]) -> None:
    """Rewrite meta/episodes."""
    path = next((root / "meta/episodes").rglob("*.parquet"))
    pq.write_table(pa.Table.from_pylist(change(pq.read_table(path).to_pylist())), path)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a JSON document, which `change` changes in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=1))


def cut_file(path: Path, share: float) -> None:
    """Keep the first `share` of a file, as a full disk or a kill does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
