"""The labels of a data set on disk: one parquet row per frame. One table of fields serves the writer, the reader and the frozen shards.

labels/labels-00000.parquet   episode_id, frame_index, depth_codes (100), trace (x1 y1 .. 2..10 numbers), trace_len

Traces alone have no column depth_codes, in any file.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE

EPISODES_PER_FILE = 200
_EMPTY = -1  # follows the last point of a trace that has fewer than the most


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelField:
    """One kind of label: what a frame has of it, and its name in each place.

    name: the parquet column. attribute: the array in `EpisodeLabels`. tensor: the array in a frozen shard. shape: of one frame's label.
    greatest: largest value. is_optional: a whole data set may have none of it. is_padded: a frame may have fewer than shape[0] entries (at
    least one); `_EMPTY` fills the rest, the column leaves them out, and their number is stored as `<name>_len` beside it.
    """

    name: str
    attribute: str
    tensor: str
    dtype: DTypeLike
    shape: tuple[int, ...]
    greatest: int
    is_padded: bool = False
    is_optional: bool = False

    @property
    def width(self) -> int:
        """Numbers per frame when nothing is left out."""
        return math.prod(self.shape)

    def entries(self, values_N: NDArray[Any]) -> NDArray[np.int64]:
        """How many entries each frame has of a padded field: (N,)."""
        return (values_N.reshape(len(values_N), self.shape[0], -1)[:, :, 0] != _EMPTY).sum(axis=1).astype(np.int64)

    def columns(self, values_N: NDArray[Any]) -> dict[str, Any]:
        """The pyarrow columns of these labels (N, *shape)."""
        import pyarrow as pa

        kind = pa.from_numpy_dtype(self.dtype)
        if not self.is_padded:
            return {self.name: pa.FixedSizeListArray.from_arrays(pa.array(values_N.reshape(-1), kind), self.width)}
        flat_NW = values_N.reshape(-1, self.width)
        numbers_N = (flat_NW != _EMPTY).sum(axis=1)
        ends = pa.array(np.concatenate([[0], np.cumsum(numbers_N)]), pa.int32())
        return {
            self.name: pa.ListArray.from_arrays(ends, pa.array(flat_NW[flat_NW != _EMPTY], kind)),
            f"{self.name}_len": pa.array(self.entries(values_N), pa.int8()),
        }

    def values(self, column: Any) -> NDArray[Any]:
        """The labels (N, *shape) of a parquet column. Raises `DatasetError` for a frame without its label or a value out of range."""
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        lengths_N = np.full(len(column), self.width)
        if self.is_padded:
            lengths_N = np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), np.int64)
            entry = self.width // self.shape[0]
            is_whole = bool(((lengths_N % entry == 0) & (lengths_N >= entry) & (lengths_N <= self.width)).all()) and len(lengths_N) > 0
        else:
            is_whole = len(flat) == self.width * len(column)
        if not is_whole or (len(flat) and (flat.min() < 0 or flat.max() > self.greatest)):
            least = "1.." if self.is_padded else ""
            raise DatasetError(
                f"column {self.name}: expected {least}{self.shape[0]} entries within 0..{self.greatest} for each of {len(column)} frames, "
                f"got {len(flat)} numbers within {flat.min(initial=0)}..{flat.max(initial=0)}. Fix: annotate again"
            )
        values_NW = np.full((len(column), self.width), _EMPTY, np.int64)
        values_NW[np.arange(self.width)[None, :] < lengths_N[:, None]] = flat
        return values_NW.reshape(-1, *self.shape).astype(self.dtype)


LABEL_FIELDS = (
    LabelField(
        name="depth_codes",
        attribute="codes_TG",
        tensor="depth_codes_NG",
        dtype=np.uint8,
        shape=(DEPTH_CELLS,),
        greatest=255,
        is_optional=True,
    ),
    LabelField(
        name="trace",
        attribute="trace_T52",
        tensor="trace_N52",
        dtype=np.int16,
        shape=(TRACE_MAX_POINTS, 2),
        greatest=TRACE_RANGE,
        is_padded=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeLabels:
    """The labels of one episode. codes_TG: uint8 (T, 100), None for traces alone. trace_T52: int16 (T, 5, 2), -1 after the last point."""

    trace_T52: NDArray[np.int16]
    codes_TG: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.trace_T52)

    @property
    def fields(self) -> tuple[LabelField, ...]:
        """The kinds of label that it has."""
        return tuple(field for field in LABEL_FIELDS if getattr(self, field.attribute) is not None)

    def samples(self, steps_N: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The labels of these frames as tensors of a frozen shard."""
        tensors: dict[str, NDArray[Any]] = {}
        for field in self.fields:
            tensors[field.tensor] = getattr(self, field.attribute)[steps_N]
            if field.is_padded:
                tensors[f"{field.name}_len_N"] = field.entries(tensors[field.tensor])
        return tensors


def write_labels(folder: Path, labels: Mapping[str, EpisodeLabels], annotators: Mapping[str, str]) -> None:
    """Write the labels of all episodes, in order, and the versions of their `annotators`; equal labels give equal bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    names = list(labels)
    for number, first in enumerate(range(0, len(names), EPISODES_PER_FILE)):
        part = {name: labels[name] for name in names[first : first + EPISODES_PER_FILE]}
        atomic_write(folder / f"labels-{number:05d}.parquet", _parquet(part, annotators), durable=False)


def _parquet(labels: Mapping[str, EpisodeLabels], annotators: Mapping[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "episode_id": pa.array(_repeated((name, len(label)) for name, label in labels.items()), pa.string()),
        "frame_index": pa.array(np.concatenate([np.arange(len(label)) for label in labels.values()]), pa.int64()),
    }
    for field in next(iter(labels.values())).fields:  # one annotation gives all of its episodes the same kinds
        columns |= field.columns(np.concatenate([getattr(label, field.attribute) for label in labels.values()]))
    table = pa.table(columns).replace_schema_metadata({"annotators": json.dumps(dict(annotators), sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _repeated(counts: Iterable[tuple[str, int]]) -> list[str]:
    return [name for name, count in counts for _ in range(count)]


def read_labels(folder: Path) -> dict[str, EpisodeLabels]:
    """Labels by episode id. Raises `DatasetError` for a hole, a value out of range or an episode labelled twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DatasetError(f"{folder} holds no labels; run annotate first")
    fields = _fields_of({path.name: pq.read_schema(path).names for path in paths})
    names = ["episode_id", "frame_index", *(field.name for field in fields)]
    table = pa.concat_tables([pq.read_table(p, columns=names) for p in paths])
    ids = np.array(table["episode_id"].to_pylist(), dtype=object)
    steps_N = table["frame_index"].to_numpy()
    arrays = {field.attribute: field.values(table[field.name].combine_chunks()) for field in fields}
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    found: dict[str, EpisodeLabels] = {}
    for start, stop in zip(starts, np.r_[starts[1:], len(ids)], strict=True):
        episode = str(ids[start])
        if episode in found:
            raise DatasetError(f"labels of episode {episode} are not in one piece; annotate it again")
        if not np.array_equal(steps_N[start:stop], np.arange(stop - start)):
            raise DatasetError(f"labels of episode {episode} skip a frame; no label may be silently empty. Fix: annotate it again")
        found[episode] = EpisodeLabels(**{name: array[start:stop] for name, array in arrays.items()})
    return found


def _fields_of(columns: Mapping[str, list[str]]) -> tuple[LabelField, ...]:
    """The kinds of label that the files hold; columns: those of each file. Raises `DatasetError` where only some files have one."""
    found = list[LabelField]()
    for field in LABEL_FIELDS:
        without = [name for name, mine in columns.items() if field.name not in mine]
        if not without:
            found.append(field)
        elif not field.is_optional or len(without) < len(columns):
            raise DatasetError(f"labels: {without[0]} has no column {field.name}. Fix: annotate again")
    return tuple(found)
