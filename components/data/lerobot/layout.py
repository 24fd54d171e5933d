"""Where the files of a LeRobot v3.0 folder are, and what we add to it.

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet                        many episodes a file
    videos/<camera key>/chunk-000/file-000.mp4             many episodes a file
  ours, which other readers pass over:
    meta/actwright.json                                    format, embodiment, where depth is
    meta/actwright_episodes.parquet                        id, task, success, provenance, camera geometry per episode
    depth/<camera key>/chunk-000/file-000.parquet          one row a frame: uint16 millimetres, little endian, row-major

Depth is never put into a video: 1 mm is kept exactly. Our columns in data/: `executed.action` (what was sent, where
`action` is the label), `privileged.tcp_position` (for labelling only) and `recorded.timestamp` (the clock of the
recording, where `timestamp` is frame_index / fps as the format demands).
"""

from __future__ import annotations

CODEBASE_VERSION = "v3.0"
FORMAT = 1
CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DEPTH_PATH = "depth/{depth_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EXTENSION, EXTENSION_EPISODES = "meta/actwright.json", "meta/actwright_episodes.parquet"

STATE, ACTION = "observation.state", "action"
EXECUTED, TCP, RECORDED = "executed.action", "privileged.tcp_position", "recorded.timestamp"
IMAGE_PREFIX, DEPTH_PREFIX = "observation.images.", "observation.depth."


def place(number: int) -> dict[str, int]:
    """Chunk and file index of the `number`-th file."""
    return {"chunk_index": number // CHUNKS_SIZE, "file_index": number % CHUNKS_SIZE}
