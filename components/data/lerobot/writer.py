"""Episodes -> a LeRobot v3.0 folder. Equal episodes in equal order give equal bytes; nothing appears before it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.columns import interventions
from components.data.lerobot.statistics import picture_histogram, picture_statistics, vector_statistics
from components.data.lerobot.video import LOSSLESS, VideoCodec, VideoWriter
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import CameraGeometry, Episode
from model_core.spec.errors import DatasetError


@dataclass(slots=True)
class _Table:
    """Rows of a growing parquet file set, rolled over by size."""

    path: str
    limit: int
    keys: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    written: int = 0
    writer: Any = None

    def append(self, root: Path, table: pa.Table) -> int:
        """Write `table` as one row group and return the number of the file that it is in."""
        if self.writer is not None and self.written + table.nbytes > self.limit:
            self.close()
            self.number, self.written = self.number + 1, 0
        if self.writer is None:
            path = root / self.path.format(**self.keys, **layout.place(self.number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=3)
        self.writer.write_table(table)
        self.written += table.nbytes
        return self.number

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


@dataclass(slots=True)
class _Video:
    """The mp4 files of one camera, rolled over by number of frames."""

    writer: VideoWriter | None = None
    number: int = -1


class DatasetWriter:
    """A context manager: `with DatasetWriter(folder, embodiment) as writer: writer.add(episode)`.

    The folder is written beside its final name and renamed at the end; after an exception nothing is left.
    video_frames_per_file and file_bytes bound how much one damaged file can take with it.
    """

    def __init__(
        self,
        root: Path,
        embodiment: EmbodimentSpec,
        *,
        codec: VideoCodec = LOSSLESS,
        video_frames_per_file: int = 2000,
        file_bytes: int = 64 * 2**20,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        fps = round(embodiment.control_hz)
        if abs(fps - embodiment.control_hz) > 1e-9:
            raise DatasetError(
                f"LeRobot v3.0 wants a whole number of frames a second, got {embodiment.control_hz}; choose another control rate"
            )
        self.root, self.embodiment, self.fps = root, embodiment, fps
        self._temporary = root.with_name(f".{root.name}.partial")
        self._codec, self._frames_per_file = codec, video_frames_per_file
        self._data = _Table(path=layout.DATA_PATH, limit=file_bytes)
        self._depth: dict[str, _Table] = {}
        self._file_bytes = file_bytes
        self._videos = {camera.name: _Video() for camera in embodiment.cameras}
        self._histograms: dict[str, NDArray[np.int64]] = {c.name: np.zeros((3, 256), np.int64) for c in embodiment.cameras}
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._extension_rows: list[dict[str, Any]] = []
        self._depth_shapes: dict[str, tuple[int, int]] = {}
        self._frames = 0
        self._notes = dict(notes or {})

    def __enter__(self) -> DatasetWriter:
        if self.root.exists():
            raise DatasetError(f"{self.root} exists already; a data set is written once, into a new folder")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._close_files()
                self._finish()
                os.replace(self._temporary, self.root)
        finally:
            self._let_go()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add(self, episode: Episode) -> None:
        """Append one episode. Raises `DatasetError` when its cameras or widths are not the embodiment's."""
        self._check(episode)
        index, length, start = len(self._rows), len(episode), self._frames
        task_index = self._tasks.setdefault(episode.instruction, len(self._tasks))
        columns = self._frame_columns(episode, index, task_index)
        file_number = self._data.append(self._temporary, self._data_table(columns))
        row: dict[str, Any] = {"episode_index": index, "tasks": [episode.instruction], "length": length}
        row |= {f"data/{k}": v for k, v in layout.place(file_number).items()}
        row |= {"dataset_from_index": start, "dataset_to_index": start + length}
        for name in self._videos:
            row |= self._add_frames(name, episode.images[name])
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        row |= {
            f"stats/{key}/{name}": value for key, stats in self._episode_stats(columns, episode).items() for name, value in stats.items()
        }
        self._rows.append(row)
        depth_files = {name: self._add_depth(name, episode.depth_m[name], index) for name in sorted(episode.depth_m)}
        self._extension_rows.append(_extension_row(index, episode, depth_files))
        for key, values in columns.items():
            self._columns.setdefault(key, []).append(values)
        self._frames += length

    def _check(self, episode: Episode) -> None:
        wanted = {c.name: (c.height, c.width, 3) for c in self.embodiment.cameras}
        got = {name: frames.shape[1:] for name, frames in episode.images.items()}
        if got != wanted:
            raise DatasetError(f"episode {episode.episode_id}: cameras must be {wanted}, got {got}")
        lengths = {
            len(a)
            for a in (*episode.images.values(), *episode.depth_m.values(), episode.proprio_TP, episode.actions_TA, episode.executed_TA)
        }
        if lengths != {len(episode)} or len(episode) == 0:
            raise DatasetError(f"episode {episode.episode_id}: its {len(episode)} timestamps do not fit arrays of {sorted(lengths)} steps")
        widths = (episode.proprio_TP.shape[1], episode.actions_TA.shape[1], episode.executed_TA.shape[1])
        if widths != (len(self.embodiment.proprio), len(self.embodiment.action), len(self.embodiment.action)):
            raise DatasetError(f"episode {episode.episode_id}: proprio, action and executed are {widths} wide, not the embodiment's")

    def _frame_columns(self, episode: Episode, index: int, task_index: int) -> dict[str, NDArray[Any]]:
        steps = np.arange(len(episode), dtype=np.int64)
        tcp_T3 = episode.tcp_T3 if episode.tcp_T3 is not None else np.zeros((len(episode), 3), np.float32)
        return {
            layout.STATE: episode.proprio_TP.astype(np.float32),
            layout.ACTION: episode.actions_TA.astype(np.float32),
            layout.EXECUTED: episode.executed_TA.astype(np.float32),
            layout.TCP: tcp_T3.astype(np.float32),
            layout.RECORDED: episode.timestamps_T.astype(np.float64),
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(len(episode), index, np.int64),
            "index": steps + self._frames,
            "task_index": np.full(len(episode), task_index, np.int64),
        }

    def _data_table(self, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
        arrays = {k: pa.FixedSizeListArray.from_arrays(v.ravel(), v.shape[1]) if v.ndim == 2 else pa.array(v) for k, v in columns.items()}
        table = pa.table(arrays)
        described = {"info": {"features": {k: _huggingface_type(v) for k, v in columns.items()}}}
        return table.replace_schema_metadata({"huggingface": json.dumps(described)})

    def _add_frames(self, name: str, frames_THW3: NDArray[np.uint8]) -> dict[str, Any]:
        video, key = self._videos[name], f"{layout.IMAGE_PREFIX}{name}"
        if video.writer is not None and video.writer.frames + len(frames_THW3) > self._frames_per_file:
            video.writer.close()
            video.writer = None
        if video.writer is None:
            video.number += 1
            path = self._temporary / layout.VIDEO_PATH.format(video_key=key, **layout.place(video.number))
            height, width = frames_THW3.shape[1:3]
            video.writer = VideoWriter(path, fps=self.fps, width=width, height=height, codec=self._codec)
        start = video.writer.frames
        video.writer.append(frames_THW3)
        row = {f"videos/{key}/{k}": v for k, v in layout.place(video.number).items()}
        return row | {f"videos/{key}/from_timestamp": start / self.fps, f"videos/{key}/to_timestamp": video.writer.frames / self.fps}

    def _add_depth(self, name: str, depth_THW: NDArray[np.float32], index: int) -> int:
        shape = (depth_THW.shape[1], depth_THW.shape[2])
        if self._depth_shapes.setdefault(name, shape) != shape:
            raise DatasetError(f"depth of camera {name!r} is {shape}, earlier episodes have {self._depth_shapes[name]}")
        millimetres = np.clip(np.rint(np.nan_to_num(depth_THW, nan=0.0) * 1000.0), 0, 65535).astype("<u2")
        width = 2 * shape[0] * shape[1]
        raw = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(millimetres), [None, pa.py_buffer(millimetres.tobytes())])
        steps = np.arange(len(depth_THW), dtype=np.int64)
        table = pa.table({"episode_index": np.full(len(steps), index, np.int64), "frame_index": steps, "depth_mm": raw})
        key = f"{layout.DEPTH_PREFIX}{name}"
        if name not in self._depth:
            self._depth[name] = _Table(path=layout.DEPTH_PATH, limit=self._file_bytes, keys={"depth_key": key})
        return self._depth[name].append(self._temporary, table)

    def _episode_stats(self, columns: Mapping[str, NDArray[Any]], episode: Episode) -> dict[str, dict[str, Any]]:
        stats: dict[str, dict[str, Any]] = {key: vector_statistics(values) for key, values in columns.items()}
        for name in self._videos:
            histogram = picture_histogram(episode.images[name])
            self._histograms[name] += histogram
            stats[f"{layout.IMAGE_PREFIX}{name}"] = picture_statistics(histogram, len(episode))
        return stats

    def _close_files(self) -> None:
        for table in (self._data, *self._depth.values()):
            table.close()
        for video in self._videos.values():
            if video.writer is not None:
                video.writer.close()
                video.writer = None

    def _let_go(self) -> None:
        """Close what is still open; after a full disk even closing fails, and that error is already being raised."""
        for table in (self._data, *self._depth.values()):
            with contextlib.suppress(Exception):
                table.close()
        for video in self._videos.values():
            with contextlib.suppress(Exception):
                if video.writer is not None:
                    video.writer.close()

    def _finish(self) -> None:
        if not self._rows:
            raise DatasetError(f"no episode was added to {self.root.name}; an empty data set is not written")
        root = self._temporary
        path = root / layout.EPISODES_PATH.format(**layout.place(0))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._rows), path, compression="zstd")
        pq.write_table(pa.Table.from_pylist(interventions.kept(self._extension_rows)), root / layout.EXTENSION_EPISODES, compression="zstd")
        self._write_tasks(root / layout.TASKS)
        stats: dict[str, Any] = {key: vector_statistics(np.concatenate(parts)) for key, parts in self._columns.items()}
        for name, histogram in self._histograms.items():
            stats[f"{layout.IMAGE_PREFIX}{name}"] = picture_statistics(histogram, self._frames)
        _write_json(root / layout.STATS, stats)
        _write_json(root / layout.INFO, self._info())
        _write_json(root / layout.EXTENSION, self._extension())

    def _write_tasks(self, path: Path) -> None:
        import pandas as pd

        pd.DataFrame({"task_index": list(self._tasks.values())}, index=pd.Index(list(self._tasks))).to_parquet(path)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": layout.CODEBASE_VERSION,
            "robot_type": self.embodiment.name,
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNKS_SIZE,
            "data_files_size_in_mb": max(1, self._file_bytes // 2**20),
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        action_names = [d.name for d in self.embodiment.action.dims]
        names = {layout.STATE: [d.name for d in self.embodiment.proprio.dims], layout.ACTION: action_names, layout.EXECUTED: action_names}
        names |= {layout.TCP: ["x", "y", "z"]}
        features: dict[str, Any] = {}
        for key, parts in self._columns.items():
            shape = list(parts[0].shape[1:]) or [1]
            features[key] = {"dtype": str(parts[0].dtype), "shape": shape, "names": names.get(key)}
        for camera in self.embodiment.cameras:
            video = {"height": camera.height, "width": camera.width, "codec": self._codec.codec_name, "pix_fmt": self._codec.stored_pix_fmt}
            video |= {"is_depth_map": False, "fps": self.fps, "channels": 3}
            features[f"{layout.IMAGE_PREFIX}{camera.name}"] = {
                "dtype": "video",
                "shape": [camera.height, camera.width, 3],
                "names": ["height", "width", "channels"],
                "info": {f"video.{k}": v for k, v in video.items()} | {"has_audio": False},
            }
        return features

    def _extension(self) -> dict[str, Any]:
        kind = {"dtype": "uint16", "unit": "mm"}
        depth = {
            name: {"path": layout.DEPTH_PATH, "depth_key": f"{layout.DEPTH_PREFIX}{name}", "shape": list(shape), **kind}
            for name, shape in sorted(self._depth_shapes.items())
        }
        return {"format": layout.FORMAT, "embodiment": asdict(self.embodiment), "depth": depth, "notes": self._notes}


def _extension_row(index: int, episode: Episode, depth_files: Mapping[str, int]) -> dict[str, Any]:
    return {
        "episode_index": index,
        "episode_id": episode.episode_id,
        "embodiment": episode.embodiment,
        "task": episode.task,
        "success": episode.success,
        "has_tcp": episode.tcp_T3 is not None,
        "provenance": json.dumps(asdict(episode.provenance), sort_keys=True),
        "geometry": json.dumps({name: geometry_to_json(g) for name, g in sorted(episode.geometry.items())}, sort_keys=True),
        "depth_files": json.dumps(dict(depth_files), sort_keys=True),
    } | interventions.entry(episode)


def geometry_to_json(geometry: CameraGeometry) -> dict[str, Any]:
    """A camera's pinhole as plain JSON."""
    return {
        "width": geometry.width,
        "height": geometry.height,
        "intrinsics_33": geometry.intrinsics_33.tolist(),
        "world_to_camera_44": geometry.world_to_camera_44.tolist(),
    }


def _huggingface_type(values: NDArray[Any]) -> dict[str, Any]:
    value = {"dtype": str(values.dtype), "_type": "Value"}
    return value if values.ndim == 1 else {"feature": value, "length": values.shape[1], "_type": "List"}


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
