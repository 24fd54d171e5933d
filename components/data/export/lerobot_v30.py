"""Episodes -> a plain LeRobot v3.0 folder: many episodes a file, tables of episodes and tasks, exact statistics."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.export.plain_set import PlainSpec, columns_of, features_of
from components.data.export.statistics_of_set import SetStatistics
from components.data.lerobot import layout
from components.data.lerobot.columns.language_traces import COLUMN, FEATURE
from components.data.lerobot.video import VideoCodec, VideoWriter
from model_core.spec.episode import Episode

DATA_BYTES, VIDEO_BYTES = 100 * 2**20, 200 * 2**20  # LeRobot's own limits of one file


class PlainV30:
    """Writes into a folder that is there and empty. `close` must be called in any case, `finish` only when every episode was added."""

    def __init__(
        self, root: Path, spec: PlainSpec, codec: VideoCodec, *, data_bytes: int = DATA_BYTES, video_bytes: int = VIDEO_BYTES
    ) -> None:
        self._root, self._spec, self._codec = root, spec, codec
        self._limits = data_bytes, video_bytes
        self._statistics = SetStatistics()
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._frames = 0
        self._features: dict[str, Any] = {}
        self._data: Any = None
        self._data_number, self._data_written = 0, 0
        self._videos: dict[str, VideoWriter] = {}
        self._video_numbers: dict[str, int] = {}

    def add(self, episode: Episode, events: pa.Array[Any] | None = None) -> None:
        """Append one episode. events: the language column of its frames, of every episode or of none."""
        number, task = len(self._rows), self._tasks.setdefault(episode.instruction, len(self._tasks))
        columns = columns_of(episode, self._spec, (number, self._frames, task))
        self._features = self._features or features_of(columns, self._spec, self._codec)
        row: dict[str, Any] = {"episode_index": number, "tasks": [episode.instruction], "length": len(episode)}
        row |= {f"data/{name}": value for name, value in layout.place(self._add_rows(columns, events)).items()}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + len(episode)}
        for camera, frames in episode.images.items():
            row |= self._add_frames(camera, frames)
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        for key, statistics in self._statistics.add(columns, episode).items():
            row |= {f"stats/{key}/{name}": value for name, value in statistics.items()}
        self._rows.append(row)
        self._frames += len(episode)

    def finish(self) -> None:
        """Write what describes the set."""
        self.close()
        path = self._root / layout.EPISODES_PATH.format(**layout.place(0))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._rows), path, compression="zstd")
        write_task_table(self._root / layout.TASKS, self._tasks)
        write_json(self._root / layout.STATS, self._statistics.whole())
        write_json(self._root / layout.INFO, self._info())

    def close(self) -> None:
        """Close every file."""
        with contextlib.ExitStack() as stack:
            for video in self._videos.values():
                stack.callback(video.close)
            if self._data is not None:
                stack.callback(self._data.close)
            self._videos, self._data = {}, None

    def _add_rows(self, columns: Mapping[str, NDArray[Any]], events: pa.Array[Any] | None) -> int:
        table = huggingface_table(columns, "List")
        if events is not None:  # its type needs no description beside: Arrow states it whole
            table = table.append_column(COLUMN, events)
            self._features[COLUMN] = dict(FEATURE)
        if self._data is not None and self._data_written + table.nbytes > self._limits[0]:
            self._data.close()
            self._data, self._data_number, self._data_written = None, self._data_number + 1, 0
        if self._data is None:
            path = self._root / layout.DATA_PATH.format(**layout.place(self._data_number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._data.write_table(table)
        self._data_written += table.nbytes
        return self._data_number

    def _add_frames(self, camera: str, frames_THW3: NDArray[np.uint8]) -> dict[str, Any]:
        key = f"{layout.IMAGE_PREFIX}{camera}"
        video = self._videos.get(camera)
        if video is not None and video.path.exists() and video.path.stat().st_size > self._limits[1]:
            self._videos.pop(camera).close()
            video = None
        if video is None:
            number = self._video_numbers[camera] = self._video_numbers.get(camera, -1) + 1
            height, width = frames_THW3.shape[1:3]
            path = self._root / layout.VIDEO_PATH.format(video_key=key, **layout.place(number))
            video = self._videos[camera] = VideoWriter(path, fps=self._spec.fps, width=width, height=height, codec=self._codec)
        start = video.frames
        video.append(frames_THW3)
        row = {f"videos/{key}/{name}": value for name, value in layout.place(self._video_numbers[camera]).items()}
        fps = self._spec.fps
        return row | {f"videos/{key}/from_timestamp": start / fps, f"videos/{key}/to_timestamp": video.frames / fps}

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": layout.CODEBASE_VERSION,
            "robot_type": self._spec.robot,
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNKS_SIZE,
            "data_files_size_in_mb": DATA_BYTES // 2**20,
            "video_files_size_in_mb": VIDEO_BYTES // 2**20,
            "fps": self._spec.fps,
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH if self._spec.cameras else None,
            "features": self._features,
        }


def huggingface_table(columns: Mapping[str, NDArray[Any]], vectors: str) -> pa.Table:
    """Rows as a table that says its types in the form of `datasets`. vectors: what that version calls a list of fixed length."""
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for name, values in columns.items():
        flat = values.reshape(len(values), -1)
        is_vector = values.ndim == 2 and flat.shape[1] > 1
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1]) if is_vector else pa.array(flat.ravel())
        value = {"dtype": str(values.dtype), "_type": "Value"}
        described[name] = {"feature": value, "length": flat.shape[1], "_type": vectors} if is_vector else value
    return pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": described}})})


def write_task_table(path: Path, tasks: Mapping[str, int]) -> None:
    """meta/tasks.parquet: the sentence is the index of the frame, as pandas writes it."""
    import pandas as pd

    pd.DataFrame({"task_index": list(tasks.values())}, index=pd.Index(list(tasks))).to_parquet(path)


def write_json(path: Path, document: object) -> None:
    """A document of meta/."""
    path.write_text(json.dumps(document, indent=4, allow_nan=False) + "\n", encoding="utf-8")
