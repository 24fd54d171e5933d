"""Where the files of a LeRobot folder are, and what we add to those of version 3.0.

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet                        many episodes a file
    videos/<camera key>/chunk-000/file-000.mp4             many episodes a file
  versions 2.0 and 2.1, which are read as well:
    meta/info.json  meta/tasks.jsonl  meta/episodes.jsonl  meta/episodes_stats.jsonl
    data/chunk-000/episode_000000.parquet                  one episode a file
    videos/chunk-000/<camera key>/episode_000000.mp4       one episode a file
  ours, which other readers pass over:
    meta/actwright.json                                    format, embodiment, where depth is
    meta/actwright_episodes.parquet                        id, task, success, provenance, camera geometry per episode
    depth/<camera key>/chunk-000/file-000.parquet          one row a frame: uint16 millimetres, little endian, row-major

Depth is never put into a video: 1 mm is kept exactly. Our columns in data/: `executed.action` (what was sent, where
`action` is the label), `privileged.tcp_position` (for labelling only) and `recorded.timestamp` (the clock of the
recording, where `timestamp` is frame_index / fps as the format demands).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CODEBASE_VERSION = "v3.0"
ONE_FILE_AN_EPISODE = ("v2.0", "v2.1")
FORMAT = 1
CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DEPTH_PATH = "depth/{depth_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODE_LINES, TASK_LINES = "meta/episodes.jsonl", "meta/tasks.jsonl"  # of versions 2.0 and 2.1
IMAGE_PATH = "images/{image_key}/episode_{episode_index:06d}/frame_{frame_index:06d}.png"
EXTENSION, EXTENSION_EPISODES = "meta/actwright.json", "meta/actwright_episodes.parquet"

STATE, ACTION = "observation.state", "action"
EXECUTED, TCP, RECORDED = "executed.action", "privileged.tcp_position", "recorded.timestamp"
IMAGE_PREFIX, DEPTH_PREFIX = "observation.images.", "observation.depth."


def place(number: int) -> dict[str, int]:
    """Chunk and file index of the `number`-th file."""
    return {"chunk_index": number // CHUNKS_SIZE, "file_index": number % CHUNKS_SIZE}


def is_one_file_an_episode(info: Mapping[str, object]) -> bool:
    """Whether the set has the layout of versions 2.0 and 2.1."""
    return info.get("codebase_version") in ONE_FILE_AN_EPISODE


def file_path(info: Mapping[str, Any], template: str, chunk: int, file: int, **keys: str) -> str:
    """Where a file of a set is: "data_path" or "video_path" of its info.json, for one (chunk, file), in the words of its version.

    In versions 2.0 and 2.1 the number of a file is that of its episode.
    """
    words = ("episode_chunk", "episode_index") if is_one_file_an_episode(info) else ("chunk_index", "file_index")
    return str(info[template]).format(**dict(zip(words, (chunk, file), strict=True)), **keys)
