"""A plain LeRobot v3.0 folder, as another recorder would write it: none of our own files, and frames that say whose they are.

The upper left quarter of every frame carries its mark: red is 40 x episode + 20, green is 3 x step + 2, so a wrong frame is seen
at once (`mark_of`). Every part can be changed afterwards: `change_info`, `change_rows`, `change_data`.

    root = write_plain_set(tmp_path / "set", [plain_episode(n) for n in range(4)])
    change_rows(root, lambda row: row | {"length": 3} if row["episode_index"] == 1 else row)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

CLOSE, OPEN = "close the green drawer", "open the green drawer"
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlainEpisode:
    """One episode of the Meta-World body. tasks: one sentence a frame."""

    state_TP: NDArray[np.float32]
    actions_TA: NDArray[np.float32]
    frames_THW3: NDArray[np.uint8]
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tasks)


def plain_episode(number: int, *, length: int = 20, task: str = CLOSE, size: int = 80) -> PlainEpisode:
    """Episode `number`, always the same for the same arguments: positions inside the body's range, actions inside -1..1."""
    rng = np.random.default_rng([11, number])
    path_T3 = np.array([0.0, 0.6, 0.2]) + np.linspace(0, 0.1, length)[:, None] * rng.uniform(-1, 1, 3)
    return PlainEpisode(
        state_TP=np.concatenate([path_T3, np.full((length, 1), 0.5)], axis=1).astype(np.float32),
        actions_TA=rng.uniform(-0.9, 0.9, (length, 4)).astype(np.float32),
        frames_THW3=marked_frames(number, length, size),
        tasks=(task,) * length,
    )


def marked_frames(episode: int, length: int, size: int = 80) -> NDArray[np.uint8]:
    """(T, H, W, 3): grey, with the mark of episode and step in the upper left quarter. Up to 6 episodes and 84 steps differ."""
    frames = np.full((length, size, size, 3), 90, np.uint8)
    for step in range(length):
        frames[step, : size // 2, : size // 2] = (40 * episode + 20, 3 * step + 2, 60)
    return frames


def mark_of(frame_HW3: NDArray[np.uint8]) -> tuple[int, int]:
    """(episode, step) that a frame carries."""
    side = frame_HW3.shape[0] // 2
    red, green, _ = frame_HW3[2 : side - 2, 2 : side - 2].reshape(-1, 3).mean(axis=0)
    return round((red - 20) / 40), round((green - 2) / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLayout:
    """How the folder is laid out. fps: of the table; film_fps: of the mp4, where it differs. Files hold whole episodes."""

    fps: float = 20
    film_fps: float | None = None
    robot_type: str = "metaworld-sawyer"
    camera: str = "front"
    action_names: tuple[str, ...] | None = None
    episodes_per_data_file: int = 1000
    episodes_per_film: int = 1000

    @property
    def video_key(self) -> str:
        return f"observation.images.{self.camera}"


def write_plain_set(root: Path, episodes: Sequence[PlainEpisode], layout: PlainLayout | None = None, **info: Any) -> Path:
    """Write the folder; `info` replaces fields of meta/info.json."""
    layout = layout or PlainLayout()
    tasks = list(dict.fromkeys(task for one in episodes for task in one.tasks))
    starts = np.cumsum([0, *(len(one) for one in episodes)]).tolist()
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    for number, part in enumerate(_parts(len(episodes), layout.episodes_per_data_file)):
        tables = [frame_table(episodes[n], n, starts[n], tasks, layout.fps) for n in part]
        pq.write_table(pa.concat_tables(tables), root / f"data/chunk-000/file-{number:03d}.parquet")
    for number, part in enumerate(_parts(len(episodes), layout.episodes_per_film)):
        path = root / f"videos/{layout.video_key}/chunk-000/file-{number:03d}.mp4"
        write_film(path, np.concatenate([episodes[n].frames_THW3 for n in part]), layout.film_fps or layout.fps)
    rows = [_row(episodes, n, starts, layout) for n in range(len(episodes))]
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    write_tasks(root, dict(zip(tasks, range(len(tasks)), strict=True)))
    write_stats(root, episodes)
    document = info_of(episodes, layout) | {"total_episodes": len(episodes), "total_frames": starts[-1], "total_tasks": len(tasks)}
    (root / "meta/info.json").write_text(json.dumps(document | info, indent=1))
    return root


def write_film(
    path: Path,
    frames_THW3: NDArray[np.uint8],
    fps: float,
    *,
    times: Sequence[float] | None = None,
    options: Mapping[str, str] | None = None,
) -> None:
    """Lossless H.264 in RGB: frame k at k / fps seconds, or at the times given (a whole number of 1/90000 s each).

    options: of the encoder, beside or in place of ours (no B-frames, a key frame every 4 frames).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264rgb", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames_THW3.shape[1], frames_THW3.shape[2], "rgb24"
        stream.options = {"qp": "0", "preset": "veryfast", "bf": "0", "g": "4"} | dict(options or {})
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90000)
        for number, pixels_HW3 in enumerate(frames_THW3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HW3), format="rgb24")
            frame.pts = number if times is None else round(times[number] * 90000)
            if times is not None:
                frame.time_base = Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_tasks(root: Path, tasks: Mapping[str, int]) -> None:
    """meta/tasks.parquet as pandas writes it: the sentence is the index, beside its task_index; in the order given."""
    import pandas as pd

    pd.DataFrame({"task_index": list(tasks.values())}, index=pd.Index(list(tasks))).to_parquet(root / "meta/tasks.parquet")


def write_stats(root: Path, episodes: Sequence[PlainEpisode]) -> None:
    """Exact meta/stats.json of state and action; call it again after a change of the data that is meant."""
    columns = {"observation.state": [one.state_TP for one in episodes], "action": [one.actions_TA for one in episodes]}
    (root / "meta/stats.json").write_text(json.dumps({name: _statistics(np.concatenate(parts)) for name, parts in columns.items()}))


def change_info(root: Path, **fields: Any) -> None:
    """Replace fields of meta/info.json; None takes a field out."""
    path = root / "meta/info.json"
    document = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def change_rows(root: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Rewrite every row of meta/episodes; None drops the row."""
    for path in (root / "meta/episodes").rglob("*.parquet"):
        changed = [change(row) for row in pq.read_table(path).to_pylist()]
        pq.write_table(pa.Table.from_pylist([row for row in changed if row is not None]), path)


def change_data(root: Path, change: Callable[[pa.Table], pa.Table], file: int = 0) -> None:
    """Rewrite one data file."""
    path = root / f"data/chunk-000/file-{file:03d}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """`table` with column `name` replaced, or added at the end."""
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    if name not in table.column_names:
        return table.append_column(name, column)
    return table.set_column(table.column_names.index(name), name, column)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command left: its exit code, its one JSON line (None for none), and what people read."""

    code: int
    result: dict[str, Any] | None
    stderr: str


def _parts(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def frame_table(one: PlainEpisode, number: int, start: int, tasks: Sequence[str], fps: float) -> pa.Table:
    """The rows of one episode, without images. start: the index of its first row."""
    steps = np.arange(len(one))
    return pa.table(
        {
            "observation.state": pa.FixedSizeListArray.from_arrays(one.state_TP.ravel(), one.state_TP.shape[1]),
            "action": pa.FixedSizeListArray.from_arrays(one.actions_TA.ravel(), one.actions_TA.shape[1]),
            "timestamp": (steps / fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(len(one), number),
            "index": steps + start,
            "task_index": np.array([tasks.index(task) for task in one.tasks]),
        }
    )


def _row(episodes: Sequence[PlainEpisode], number: int, starts: Sequence[int], layout: PlainLayout) -> dict[str, Any]:
    film, key = number // layout.episodes_per_film, f"videos/{layout.video_key}"
    first = starts[film * layout.episodes_per_film]
    return {
        "episode_index": number,
        "tasks": list(dict.fromkeys(episodes[number].tasks)),
        "length": len(episodes[number]),
        "data/chunk_index": 0,
        "data/file_index": number // layout.episodes_per_data_file,
        "dataset_from_index": starts[number],
        "dataset_to_index": starts[number + 1],
        f"{key}/chunk_index": 0,
        f"{key}/file_index": film,
        f"{key}/from_timestamp": (starts[number] - first) / layout.fps,
        f"{key}/to_timestamp": (starts[number + 1] - first) / layout.fps,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _statistics(values_TD: NDArray[Any]) -> dict[str, list[float]]:
    v = values_TD.astype(np.float64)
    found = {"min": v.min(axis=0), "max": v.max(axis=0), "mean": v.mean(axis=0), "std": v.std(axis=0), "count": np.array([len(v)])}
    found |= {f"q{round(100 * q):02d}": np.quantile(v, q, axis=0) for q in QUANTILES}
    return {name: value.tolist() for name, value in found.items()}


def info_of(episodes: Sequence[PlainEpisode], layout: PlainLayout) -> dict[str, Any]:
    """meta/info.json without its counts."""
    _, height, width, _ = episodes[0].frames_THW3.shape
    whole = {"dtype": "int64", "shape": [1], "names": None}
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [episodes[0].state_TP.shape[1]], "names": None},
        "action": {"dtype": "float32", "shape": [episodes[0].actions_TA.shape[1]], "names": layout.action_names},
        layout.video_key: {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    return {
        "codebase_version": "v3.0",
        "robot_type": layout.robot_type,
        "chunks_size": 1000,
        "fps": layout.fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), whole),
    }
