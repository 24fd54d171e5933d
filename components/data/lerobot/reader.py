"""Read LeRobot v3.0 folders as `Episode`s: ours with everything we add, and anybody's plain ones.

What a plain set lacks stays empty: no depth, no geometry, `executed_TA` equals the action, the task is its instruction.
Extra columns and files of other writers are passed over. `DatasetWriter` writes the same layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.artifacts.files import dataset_digest
from components.data.lerobot import layout
from components.data.lerobot.tables import is_number, read_json, read_table, to_numpy
from components.data.lerobot.video import VideoReader
from components.data.lerobot.writer import DatasetWriter
from model_core.spec.contract import EmbodimentSpec, embodiment_from_json
from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.errors import DatasetError

__all__ = ["DatasetReader", "DatasetWriter", "EpisodeIndexRow", "dataset_digest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeIndexRow:
    """What is known of an episode without reading its frames."""

    index: int
    episode_id: str
    task: str
    instruction: str
    length: int
    start: int
    success: bool
    provenance: Provenance


class DatasetReader:
    """Random and sequential access to the episodes of one folder. Cheap to make: frames are read when asked for.

    Not thread-safe (video positions). Raises `DatasetError` naming the file when something is missing or torn.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = read_json(root / layout.INFO)
        version = self.info.get("codebase_version")
        if version != layout.CODEBASE_VERSION:
            raise DatasetError(
                f"{root.name} is a LeRobot {version} data set; this reads {layout.CODEBASE_VERSION}. Fix: convert it with LeRobot first"
            )
        self.fps = float(self.info["fps"])
        self.features: Mapping[str, Any] = self.info["features"]
        extension = root / layout.EXTENSION
        self.extension: Mapping[str, Any] = read_json(extension) if extension.exists() else {}
        self._episodes = self._read_episodes()
        self._videos: dict[Path, VideoReader] = {}
        self._depth_cache: tuple[Path, pa.Table] | None = None

    def __len__(self) -> int:
        return len(self._episodes)

    @property
    def frames(self) -> int:
        """Number of frames of the whole set."""
        return int(self.info["total_frames"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order of the features (of the embodiment, where it is known)."""
        keys = [key for key, feature in self.features.items() if feature["dtype"] == "video"]
        names = [key.removeprefix(layout.IMAGE_PREFIX) for key in keys]
        if self.embodiment is None:
            return tuple(names)
        order = [c.name for c in self.embodiment.cameras]
        return tuple(sorted(names, key=lambda n: order.index(n) if n in order else len(order)))

    @cached_property
    def embodiment(self) -> EmbodimentSpec | None:
        """The body that recorded this set; None where the writer did not name it."""
        document = self.extension.get("embodiment")
        return embodiment_from_json(document) if document else None

    @cached_property
    def stats(self) -> Mapping[str, Any]:
        """The statistics file as it is: validation checks whether it belongs to the data."""
        return read_json(self.root / layout.STATS)

    @cached_property
    def instructions(self) -> tuple[str, ...]:
        """The instruction of each task index."""
        table = read_table(self.root / layout.TASKS)
        name = next((n for n in ("__index_level_0__", "task") if n in table.column_names), table.column_names[0])
        pairs = sorted(zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True))
        return tuple(text for _, text in pairs)

    @cached_property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """Every episode, in order."""
        return tuple(self._row(i) for i in range(len(self)))

    @cached_property
    def table(self) -> pa.Table:
        """All per-frame columns (no images) of all data files, in index order."""
        numbers = sorted({(e["data/chunk_index"], e["data/file_index"]) for e in self._episodes})
        return pa.concat_tables([read_table(self._data_path(*n)) for n in numbers]).combine_chunks()

    def column(self, name: str) -> NDArray[Any]:
        """One per-frame column as (N,) or (N, D). Raises `DatasetError` when there is none."""
        if name not in self.table.column_names:
            raise DatasetError(f"{self.root.name} has no column {name!r}; it has {', '.join(self.table.column_names)}")
        return to_numpy(self.table[name])

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index`, whole. Leaving out images or depth makes it cheap."""
        row = self.rows[index]
        columns = self._columns(index)
        action = columns.get(layout.ACTION, np.zeros((row.length, 0), np.float32))
        ours = self._ours.get(index, {})
        return Episode(
            episode_id=row.episode_id,
            embodiment=ours.get("embodiment", str(self.info.get("robot_type") or "unknown")),
            task=row.task,
            instruction=row.instruction,
            success=row.success,
            provenance=row.provenance,
            images={name: self.images(index, name) for name in self.cameras} if images else {},
            depth_m=self._depth(index) if depth else {},
            geometry={name: _geometry(g) for name, g in json.loads(ours.get("geometry", "{}")).items()},
            proprio_TP=columns.get(layout.STATE, np.zeros((row.length, 0), np.float32)),
            actions_TA=action,
            executed_TA=columns.get(layout.EXECUTED, action),
            timestamps_T=columns.get(layout.RECORDED, columns["timestamp"]).astype(np.float64),
            tcp_T3=columns.get(layout.TCP) if ours.get("has_tcp", False) else None,
        )

    def episodes(self, indices: Sequence[int] | None = None, *, images: bool = True, depth: bool = True) -> Iterator[Episode]:
        """Episodes one after the other; in increasing order no video is ever seeked back."""
        for index in range(len(self)) if indices is None else indices:
            yield self.episode(index, images=images, depth=depth)

    def images(self, index: int, camera: str) -> NDArray[np.uint8]:
        """All frames (T, H, W, 3) of one camera of one episode. Raises `DatasetError` for a missing or truncated video."""
        key = camera if camera in self.features else f"{layout.IMAGE_PREFIX}{camera}"
        entry, fps = self._episodes[index], self.fps
        if f"videos/{key}/from_timestamp" not in entry:
            raise DatasetError(f"episode {index} has no video of camera {camera!r}; the set has {', '.join(self.cameras) or 'none'}")
        path = self.root / str(self.info["video_path"]).format(
            video_key=key, chunk_index=entry[f"videos/{key}/chunk_index"], file_index=entry[f"videos/{key}/file_index"]
        )
        if not path.exists():
            raise DatasetError(f"the video {path.relative_to(self.root).as_posix()} of camera {camera!r} is missing")
        video = self._videos.get(path)
        if video is None:
            for old in [p for p in self._videos if p.parents[1] == path.parents[1]]:
                self._videos.pop(old).close()
            video = self._videos[path] = VideoReader(path, fps)
        return video.read(round(entry[f"videos/{key}/from_timestamp"] * fps), entry["length"])

    def close(self) -> None:
        """Close open videos."""
        for video in self._videos.values():
            video.close()
        self._videos.clear()

    def _read_episodes(self) -> list[dict[str, Any]]:
        paths = sorted((self.root / "meta" / "episodes").rglob("*.parquet"))
        if not paths:
            raise DatasetError(f"{self.root.name}/meta/episodes holds no parquet file; the data set is incomplete")
        rows: list[dict[str, Any]] = []
        for path in paths:
            names = [n for n in pq.read_schema(path).names if not n.startswith("stats/")]
            rows += read_table(path, names).to_pylist()
        return sorted(rows, key=lambda r: r["episode_index"])

    @cached_property
    def _ours(self) -> dict[int, dict[str, Any]]:
        path = self.root / layout.EXTENSION_EPISODES
        return {r["episode_index"]: r for r in read_table(path).to_pylist()} if path.exists() else {}

    def _row(self, index: int) -> EpisodeIndexRow:
        entry, ours = self._episodes[index], self._ours.get(index, {})
        instruction = str(entry["tasks"][0]) if entry.get("tasks") else ""
        unknown = {"producer": "unknown", "cell": "", "seed": 0}
        return EpisodeIndexRow(
            index=index,
            episode_id=ours.get("episode_id", f"{self.root.name}-{index:06d}"),
            task=ours.get("task", instruction),
            instruction=instruction,
            length=int(entry["length"]),
            start=int(entry["dataset_from_index"]),
            success=bool(ours.get("success", False)),
            provenance=Provenance(**(json.loads(ours["provenance"]) if ours else unknown)),
        )

    def _columns(self, index: int) -> dict[str, NDArray[Any]]:
        row = self.rows[index]
        part = self.table.slice(row.start, row.length)
        if part.num_rows != row.length:
            raise DatasetError(
                f"episode {row.episode_id}: expected {row.length} rows from {row.start}, the data files end after {part.num_rows}"
            )
        return {name: to_numpy(part[name]) for name in part.column_names if is_number(part.schema.field(name).type)}

    def _depth(self, index: int) -> dict[str, NDArray[np.float32]]:
        files = json.loads(self._ours.get(index, {}).get("depth_files", "{}"))
        return {name: self._depth_of(index, name, number) for name, number in files.items()}

    def _depth_of(self, index: int, name: str, number: int) -> NDArray[np.float32]:
        spec = self.extension["depth"][name]
        path = self.root / spec["path"].format(depth_key=spec["depth_key"], **layout.place(number))
        if self._depth_cache is None or self._depth_cache[0] != path:
            self._depth_cache = (path, read_table(path))
        table = self._depth_cache[1]
        rows = np.flatnonzero(table["episode_index"].to_numpy() == index)
        if len(rows) != self.rows[index].length:
            raise DatasetError(f"depth of {name!r}: expected {self.rows[index].length} frames of episode {index}, got {len(rows)}")
        raw = b"".join(table["depth_mm"].slice(int(rows[0]), len(rows)).to_pylist())
        millimetres = np.frombuffer(raw, "<u2").reshape(len(rows), *spec["shape"])
        return millimetres.astype(np.float32) / np.float32(1000.0)

    def _data_path(self, chunk_index: int, file_index: int) -> Path:
        return self.root / str(self.info["data_path"]).format(chunk_index=chunk_index, file_index=file_index)


def _geometry(document: Mapping[str, Any]) -> CameraGeometry:
    arrays = {name: np.array(document[name], np.float64) for name in ("intrinsics_33", "world_to_camera_44")}
    return CameraGeometry(width=document["width"], height=document["height"], **arrays)
