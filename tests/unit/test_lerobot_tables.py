"""Columns of a Parquet file as arrays: every kind of number and list, also of a part of a column, and without importing pandas.

Run: .venv/bin/python -m pytest tests/unit/test_lerobot_tables.py
"""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.lerobot.tables import to_numpy
from model_core.spec.errors import DatasetError

ROWS = 11


@pytest.mark.parametrize("kind", ["int8", "int64", "uint16", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", ["one", "list", "large_list", "fixed"])
def test_every_kind_comes_as_it_was_written_whole_or_in_part(kind, shape):
    values = np.random.default_rng(0).integers(0, 2 if kind == "bool" else 90, (ROWS, 1 if shape == "one" else 3)).astype(kind)
    one = pa.array(values.ravel())
    offsets = np.arange(ROWS + 1) * 3
    made = {
        "one": lambda: one,
        "list": lambda: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), one),
        "large_list": lambda: pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), one),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(one, 3),
    }[shape]()
    wanted = values[:, 0] if shape == "one" else values
    for column, rows in (
        (pa.chunked_array([made]), wanted),
        (pa.chunked_array([made.slice(3, 5)]), wanted[3:8]),
        (pa.chunked_array([made.slice(0, 3), made.slice(5)]), np.concatenate([wanted[:3], wanted[5:]])),
    ):
        found = to_numpy(column, "x")
        assert found.dtype == rows.dtype
        assert np.array_equal(found, rows)


def test_rows_of_no_or_unequal_length():
    assert to_numpy(pa.chunked_array([pa.array([], pa.list_(pa.float32()))]), "x").shape == (0, 0)
    assert to_numpy(pa.chunked_array([pa.array([[], []], pa.list_(pa.float32()))]), "x").shape == (2, 0)
    column = pa.chunked_array([pa.array([[0.0], [1.0, 2.0], [3.0, 4.0], [5.0], [6.0, 7.0]]).slice(1)])
    with pytest.raises(DatasetError, match="x, row 2 has 1 values, expected 2"):
        to_numpy(column, "x")


def test_a_table_is_read_without_pandas(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [True, False], "c": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "t.parquet")
    script = (
        "import sys; from pathlib import Path; from components.data.lerobot.tables import read_table, to_numpy; "
        "t = read_table(Path(sys.argv[1])); print([to_numpy(t[n], n).tolist() for n in t.column_names], 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "t.parquet")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[1, 2], [True, False], [[1.0, 2.0], [3.0, 4.0]]] False"
