"""The data files of a set as one table of arrays: a row a frame, columns by name, whatever their order and type in each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.meta.info import width_of
from components.data.lerobot.success import SUCCESS_COLUMNS, with_unknown
from components.data.lerobot.tables import is_number, read_schema, read_table, to_float32, to_int64, to_numpy
from model_core.spec.errors import DatasetError

VECTORS = (layout.STATE, layout.ACTION, layout.EXECUTED, layout.TCP)
WHOLE = ("frame_index", "episode_index", "index", "task_index")
TIMES = ("timestamp", layout.RECORDED)
_REQUIRED = ("frame_index", "episode_index")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameTable:
    """Columns (N,) or (N, D) of all data files, one file after the other.

    files: (chunk, file) of every data file. starts_F: the first row of each.
    """

    columns: Mapping[str, NDArray[Any]]
    files: tuple[tuple[int, int], ...]
    starts_F: NDArray[np.int64]
    num_rows: int

    def file_of(self, row: int) -> tuple[int, int]:
        """(chunk, file) that holds a row."""
        return self.files[int(np.searchsorted(self.starts_F, row, side="right")) - 1]

    def place_in_file(self, row: int) -> int:
        """The place of a row in the file that holds it."""
        return row - int(self.starts_F[int(np.searchsorted(self.starts_F, row, side="right")) - 1])

    def columns_of(self, rows: slice) -> dict[str, NDArray[Any]]:
        """These rows of every column."""
        return {name: values[rows] for name, values in self.columns.items()}

    def episode_columns(self, where: str, rows: slice, fps: float) -> dict[str, NDArray[Any]]:
        """The columns of one episode. where: it, for errors. Raises `DatasetError` for a frame stamped with another time."""
        columns = self.columns_of(rows)
        times_T = columns["timestamp"]
        beside = np.abs((times_T - times_T[0]) * fps - np.arange(len(times_T)))
        if (late := np.flatnonzero(beside > 0.5)).size:
            step = int(late[0])
            raise DatasetError(
                f"{where}: frame {step} is stamped {times_T[step]:.6g} s, at {fps:g} frames a second it is due {step / fps:.6g} s "
                "after the first; which picture is its own cannot be told. Fix: correct fps or timestamp"
            )
        return columns


def read_frames(root: Path, info: Mapping[str, Any], files: Sequence[tuple[int, int]]) -> FrameTable:
    """Read the data files named by the episodes. Raises `DatasetError` naming file, column and row of what cannot be held.

    State and action become float32, indices int64, times float64. A time that a file lacks is frame_index / fps, which is how the format
    defines it. Text, nested and incomplete columns of other writers are passed over.
    """
    paths = [root / layout.file_path(info, "data_path", chunk, file) for chunk, file in files]
    _refuse_strangers(root, paths)
    parts = [_read_file(root, path, info) for path in paths]
    lengths = [len(part["frame_index"]) for part in parts]
    filled = [(path, part) for path, part, length in zip(paths, parts, lengths, strict=True) if length]
    if not filled:
        raise DatasetError(f"{root.name}: its data files hold no rows. Fix: record or export the data set again")
    columns: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for _, part in filled for name in part):
        if (joined := _join(root, name, filled)) is not None:
            columns[name] = joined
    starts_F = np.cumsum([0, *lengths], dtype=np.int64)
    columns.setdefault("index", np.arange(int(starts_F[-1]), dtype=np.int64))
    return FrameTable(columns=columns, files=tuple(files), starts_F=starts_F[:-1], num_rows=int(starts_F[-1]))


def _read_file(root: Path, path: Path, info: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    schema, place = read_schema(path), path.relative_to(root).as_posix()
    if len(set(schema.names)) != len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DatasetError(f"{place} has two columns named {twice!r}; which one is meant cannot be told. Fix: remove one")
    known = [name for name in (*VECTORS, *WHOLE, *TIMES) if name in schema.names]
    extra = [field.name for field in schema if field.name not in known and is_number(field.type)]
    if missing := [name for name in _REQUIRED if name not in known]:
        raise DatasetError(
            f"{place} has no column {missing[0]!r}, which says whose its rows are; it has {', '.join(schema.names)}. "
            "Fix: export the data set again with that column"
        )
    table = read_table(path, known + extra)
    columns = {name: _known(table[name], name, f"{place}: column {name!r}", info) for name in known}
    if "timestamp" not in columns:
        columns["timestamp"] = columns["frame_index"] / float(info["fps"])
    for name in extra:
        try:
            columns[name] = to_numpy(with_unknown(table[name]) if name in SUCCESS_COLUMNS else table[name], name)
        except DatasetError:
            continue  # an incomplete column of another writer; nothing here needs it
    return columns


def _known(column: Any, name: str, where: str, info: Mapping[str, Any]) -> NDArray[Any]:
    values = to_numpy(column, where)
    if name in WHOLE:
        return to_int64(values.ravel() if values.ndim == 2 and values.shape[1] == 1 else values, where)
    if name in TIMES:
        if values.ndim == 2 and values.shape[1] != 1:
            raise DatasetError(
                f"{where} holds {values.shape[1]} values a row, expected one time in seconds. Fix: export the data set again"
            )
        return values.ravel().astype(np.float64)
    # one number a step is stored as a plain column
    values = values.reshape(len(values), 1) if values.ndim == 1 else values
    stated = width_of(info["features"][name]) if name in info["features"] else None
    if len(values) and stated is not None and stated != values.shape[1]:
        raise DatasetError(
            f"{where} has {values.shape[1]} values a row, {layout.INFO} states {stated}. Fix: correct the feature's shape, or export again"
        )
    return to_float32(values, where)


def _join(root: Path, name: str, filled: Sequence[tuple[Path, Mapping[str, NDArray[Any]]]]) -> NDArray[Any] | None:
    """One column over all files; None for another writer's column that not every file has alike."""
    with_it = [path for path, part in filled if name in part]
    parts = [part[name] for _, part in filled if name in part]
    alike = len({part.shape[1:] for part in parts}) == 1
    if len(with_it) == len(filled) and alike:
        return np.concatenate(parts)
    if name not in (*VECTORS, *WHOLE, *TIMES):
        return None
    if len(with_it) != len(filled):
        lacks = next(path for path, part in filled if name not in part).relative_to(root).as_posix()
        raise DatasetError(
            f"{lacks} has no column {name!r}, which {with_it[0].relative_to(root).as_posix()} has. "
            "Fix: export the data set again with equal columns in every file"
        )
    first, other = next((a, b) for a, b in pairwise(with_it) if _width(filled, name, a) != _width(filled, name, b))
    raise DatasetError(
        f"{other.relative_to(root).as_posix()}: column {name!r} has {_width(filled, name, other)} values a row, expected "
        f"{_width(filled, name, first)} as in {first.name}. Fix: do not mix recordings of different robots in one data set"
    )


def _width(filled: Sequence[tuple[Path, Mapping[str, NDArray[Any]]]], name: str, path: Path) -> int:
    return next(part[name].shape[1] for place, part in filled if place == path)


def _refuse_strangers(root: Path, paths: Sequence[Path]) -> None:
    """Data files that no episode names: LeRobot reads them too, so every row after them would be another one there."""
    kept = {path for path in (root / "data").rglob("*.parquet") if not path.name.startswith(".")}
    if strangers := sorted(kept - set(paths)):
        named = strangers[0].relative_to(root).as_posix()
        raise DatasetError(
            f"{root.name}: {len(strangers)} data files, first {named}, hold rows of no episode in meta/episodes. Either the recorder ended "
            "without finalize(), or the files are left over. Fix: record or export again, or remove the files that are left over"
        )
