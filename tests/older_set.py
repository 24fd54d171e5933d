"""A LeRobot v2.0 or v2.1 folder, as another recorder would write it: JSON lines, one data file and one film (or none) an episode.

root = write_older_set(tmp_path / "set", [plain_episode(n) for n in range(4)], images="bytes")
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from tests.plain_set import PlainEpisode, PlainLayout, frame_table, info_of, with_column, write_film

DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
FILM = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def write_older_set(
    root: Path,
    episodes: Sequence[PlainEpisode],
    layout: PlainLayout | None = None,
    *,
    images: Literal["films", "bytes", "files"] = "films",
    chunks_size: int = 2,
    **info: Any,
) -> Path:
    """Write the folder. images: in films, as PNG in the rows, or as PNG files; `info` replaces fields of meta/info.json."""
    layout = layout or PlainLayout()
    tasks = list(dict.fromkeys(task for one in episodes for task in one.tasks))
    starts = np.cumsum([0, *(len(one) for one in episodes)]).tolist()
    (root / "meta").mkdir(parents=True)
    for number, one in enumerate(episodes):
        place = {"episode_chunk": number // chunks_size, "episode_index": number}
        table = frame_table(one, number, starts[number], tasks, layout.fps)
        if images == "films":
            write_film(root / FILM.format(video_key=layout.video_key, **place), one.frames_THW3, layout.fps)
        else:
            table = with_column(table, layout.video_key, _cells(root, one.frames_THW3, number, layout.video_key, images))
        path = root / DATA.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=7)
    lines = [{"episode_index": n, "tasks": list(dict.fromkeys(one.tasks)), "length": len(one)} for n, one in enumerate(episodes)]
    _write_lines(root / "meta/episodes.jsonl", lines)
    _write_lines(root / "meta/tasks.jsonl", [{"task_index": n, "task": task} for n, task in enumerate(tasks)])
    document = info_of(episodes, layout) | {"codebase_version": "v2.1", "data_path": DATA, "video_path": FILM, "chunks_size": chunks_size}
    document |= {"total_episodes": len(episodes), "total_frames": starts[-1], "total_tasks": len(tasks)}
    if images != "films":
        document["features"][layout.video_key]["dtype"] = "image"
        document["video_path"] = None
    (root / "meta/info.json").write_text(json.dumps(document | info, indent=1))
    return root


def _cells(root: Path, frames_THW3: NDArray[np.uint8], number: int, key: str, images: str) -> pa.Array:
    cells: list[dict[str, bytes | str | None]] = []
    for step, pixels_HW3 in enumerate(frames_THW3):
        name = f"images/{key}/episode_{number:06d}/frame_{step:06d}.png"
        sink = io.BytesIO()
        Image.fromarray(pixels_HW3).save(sink, "PNG")
        if images == "files":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(sink.getvalue())
        cells.append({"bytes": sink.getvalue() if images == "bytes" else None, "path": name})
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
