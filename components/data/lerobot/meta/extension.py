"""Our own files beside a LeRobot set: meta/actwright.json, meta/actwright_episodes.parquet and depth. Absent in plain sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.lerobot.tables import read_json, read_table
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import DatasetError

_FIX = "Fix: write or fetch the data set again"


class Extension:
    """Our description of a set and of its episodes, by episode_index and never by place. Empty for a plain set.

    numbers: the episodes of meta/episodes. Raises `DatasetError` for another format, or where one of them has not exactly one row.
    """

    def __init__(self, root: Path, numbers: Sequence[int]) -> None:
        self._root, self._numbers = root, tuple(numbers)
        path = root / layout.EXTENSION
        self.document: Mapping[str, Any] = read_json(path) if path.exists() else {}
        self._depth_cache: tuple[Path, pa.Table] | None = None
        if self.document:
            _check_format(root, self.document)

    @cached_property
    def rows(self) -> Mapping[int, Mapping[str, Any]]:
        """episode_index -> its row."""
        if not self.document:
            return {}
        rows = read_table(self._root / layout.EXTENSION_EPISODES).to_pylist()
        found = {row["episode_index"]: row for row in rows}
        lacks = [number for number in self._numbers if number not in found]
        if lacks or len(found) != len(rows):
            said = f"has no row of episode {lacks[0]}" if lacks else "has two rows of one episode"
            raise DatasetError(f"{self._root.name}/{layout.EXTENSION_EPISODES} {said}, expected one of each of meta/episodes. {_FIX}")
        return found

    def of(self, number: int) -> Mapping[str, Any]:
        """The row of episode `number`; empty for a plain set."""
        return self.rows.get(number, {})

    def geometry(self, number: int) -> dict[str, CameraGeometry]:
        """How the cameras of an episode stood, where that is known."""
        return {name: _geometry(document) for name, document in json.loads(self.of(number).get("geometry", "{}")).items()}

    def depth(self, row: EpisodeIndexRow) -> dict[str, NDArray[np.float32]]:
        """Depth in metres (T, H, W) of every camera that has some."""
        files = json.loads(self.of(row.number).get("depth_files", "{}"))
        return {name: self._depth_of(row, name, number) for name, number in files.items()}

    def _depth_of(self, row: EpisodeIndexRow, name: str, number: int) -> NDArray[np.float32]:
        spec = self.document["depth"][name]
        path = self._root / spec["path"].format(depth_key=spec["depth_key"], **layout.place(number))
        if self._depth_cache is None or self._depth_cache[0] != path:
            self._depth_cache = (path, read_table(path))
        table = self._depth_cache[1]
        mine = table.take(np.flatnonzero(table["episode_index"].to_numpy() == row.number))
        if not np.array_equal(mine["frame_index"].to_numpy(), np.arange(row.length)):
            raise DatasetError(
                f"depth of {name!r}: expected frames 0 to {row.length - 1} of episode {row.number}, got {mine.num_rows} rows. {_FIX}"
            )
        millimetres = np.frombuffer(b"".join(mine["depth_mm"].to_pylist()), "<u2").reshape(row.length, *spec["shape"])
        return millimetres.astype(np.float32) / np.float32(1000.0)


def _check_format(root: Path, document: Mapping[str, Any]) -> None:
    depth = document.get("depth", {})
    odd = [name for name, spec in depth.items() if (spec.get("dtype"), spec.get("unit")) != ("uint16", "mm")]
    if document.get("format") == layout.FORMAT and not odd:
        return
    said = f"depth of {odd[0]!r} as {depth[odd[0]].get('dtype')} in {depth[odd[0]].get('unit')}" if odd else document.get("format")
    raise DatasetError(
        f"{root.name}/{layout.EXTENSION} states {said}, expected format {layout.FORMAT} with depth as uint16 in mm. "
        "Fix: read it with the version of Actwright that wrote it"
    )


def _geometry(document: Mapping[str, Any]) -> CameraGeometry:
    arrays = {name: np.array(document[name], np.float64) for name in ("intrinsics_33", "world_to_camera_44")}
    return CameraGeometry(width=document["width"], height=document["height"], **arrays)
