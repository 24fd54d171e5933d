"""Episodes -> a plain LeRobot v2.1 folder: one data file and one film a camera for each episode, and lines of JSON that describe them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.data.export.lerobot_v30 import huggingface_table, write_json
from components.data.export.plain_set import PlainSpec, columns_of, features_of
from components.data.export.statistics_of_set import SetStatistics
from components.data.lerobot import layout
from components.data.lerobot.video import VideoCodec, VideoWriter
from model_core.spec.episode import Episode

VERSION = "v2.1"
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
STATISTICS = ("min", "max", "mean", "std", "count")  # this version has no quantiles


class PlainV21:
    """Writes into a folder that is there and empty. `finish` only when every episode was added."""

    def __init__(self, root: Path, spec: PlainSpec, codec: VideoCodec) -> None:
        self._root, self._spec, self._codec = root, spec, codec
        self._tasks: dict[str, int] = {}
        self._lines: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Any]] = []
        self._frames = 0
        self._features: dict[str, Any] = {}

    def add(self, episode: Episode) -> None:
        """Append one episode."""
        number, task = len(self._lines), self._tasks.setdefault(episode.instruction, len(self._tasks))
        place = {"episode_chunk": number // layout.CHUNKS_SIZE, "episode_index": number}
        columns = columns_of(episode, self._spec, (number, self._frames, task))
        self._features = self._features or features_of(columns, self._spec, self._codec)
        path = self._root / DATA_PATH.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(huggingface_table(columns, "Sequence"), path, compression="snappy")
        for camera, frames in episode.images.items():
            height, width = frames.shape[1:3]
            film = self._root / VIDEO_PATH.format(video_key=f"{layout.IMAGE_PREFIX}{camera}", **place)
            video = VideoWriter(film, fps=self._spec.fps, width=width, height=height, codec=self._codec)
            try:
                video.append(frames)
            finally:
                video.close()
        found = SetStatistics().add(columns, episode)
        kept = {key: {name: values[name] for name in STATISTICS} for key, values in found.items()}
        self._statistics.append({"episode_index": number, "stats": kept})
        self._lines.append({"episode_index": number, "tasks": [episode.instruction], "length": len(episode)})
        self._frames += len(episode)

    def finish(self) -> None:
        """Write what describes the set."""
        (self._root / "meta").mkdir(exist_ok=True)
        _write_lines(self._root / "meta/episodes.jsonl", self._lines)
        _write_lines(self._root / "meta/tasks.jsonl", [{"task_index": index, "task": task} for task, index in self._tasks.items()])
        _write_lines(self._root / "meta/episodes_stats.jsonl", self._statistics)
        write_json(self._root / layout.INFO, self._info())

    def close(self) -> None:
        """Every file is closed as soon as its episode is written."""

    def _info(self) -> dict[str, Any]:
        count = len(self._lines)
        return {
            "codebase_version": VERSION,
            "robot_type": self._spec.robot,
            "total_episodes": count,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "total_videos": count * len(self._spec.cameras),
            "total_chunks": (count + layout.CHUNKS_SIZE - 1) // layout.CHUNKS_SIZE,
            "chunks_size": layout.CHUNKS_SIZE,
            "fps": self._spec.fps,
            "splits": {"train": f"0:{count}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._spec.cameras else None,
            "features": self._features,
        }


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
