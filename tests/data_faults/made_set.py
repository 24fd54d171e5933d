"""A data set in memory, as arrays that a fault can change, and its form on disk: a plain LeRobot v3.0 folder, or one of our writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MadeEpisode:
    """One episode. frames: camera -> (T, H, W, 3). columns: further columns of the rows; fields: further fields of meta/episodes."""

    state_TP: NDArray[np.float32]
    action_TA: NDArray[np.float32]
    frames: Mapping[str, NDArray[np.uint8]]
    task: str
    times_T: NDArray[np.float64] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Any])
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __len__(self) -> int:
        return len(self.state_TP)

    def part(self, keep: NDArray[Any] | slice) -> MadeEpisode:
        """The frames `keep` of it."""
        return replace(
            self,
            state_TP=self.state_TP[keep],
            action_TA=self.action_TA[keep],
            frames={name: frames[keep] for name, frames in self.frames.items()},
            times_T=None if self.times_T is None else self.times_T[keep],
            columns={name: list(np.asarray(values, object)[keep]) for name, values in self.columns.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MadeSet:
    """A set. per_file: episodes in one data file and one film. lossy: 4:2:0 films. info: fields of info.json that differ. card: README.md.

    ours: written by our own writer, with its description of the embodiment. episode_statistics: each episode states its own.
    """

    episodes: tuple[MadeEpisode, ...]
    fps: int
    robot: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    per_file: int = 1000
    lossy: bool = False
    ours: bool = False
    episode_statistics: bool = False
    card: str = ""
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def change(self, place: int, change: Callable[[MadeEpisode], MadeEpisode]) -> MadeSet:
        """The set with episode `place` changed."""
        return replace(self, episodes=tuple(change(one) if n == place else one for n, one in enumerate(self.episodes)))

    def change_from(self, place: int, change: Callable[[MadeEpisode], MadeEpisode]) -> MadeSet:
        """The set with the episodes from `place` on changed."""
        return replace(self, episodes=tuple(change(one) if n >= place else one for n, one in enumerate(self.episodes)))

    def change_all(self, change: Callable[[MadeEpisode], MadeEpisode]) -> MadeSet:
        """The set with every episode changed."""
        return replace(self, episodes=tuple(change(one) for one in self.episodes))


def write_made_set(root: Path, made: MadeSet) -> Path:
    """Write the folder; statistics are exact."""
    return _write_ours(root, made) if made.ours else _write_plain(root, made)


def _write_plain(root: Path, made: MadeSet) -> Path:
    lengths = [len(one) for one in made.episodes]
    starts = np.cumsum([0, *lengths]).tolist()
    tasks = list(dict.fromkeys(one.task for one in made.episodes))
    cameras = list(made.episodes[0].frames)
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    files = [range(first, min(first + made.per_file, len(lengths))) for first in range(0, len(lengths), made.per_file)]
    for number, part in enumerate(files):
        tables = [rows_of(made, n, starts[n], tasks) for n in part]
        pq.write_table(pa.concat_tables(tables), root / f"data/chunk-000/file-{number:03d}.parquet")
        for camera in cameras:
            film = np.concatenate([made.episodes[n].frames[camera] for n in part])
            write_film(root / f"videos/observation.images.{camera}/chunk-000/file-{number:03d}.mp4", film, made.fps, lossy=made.lossy)
    rows = [_entry(made, n, starts, cameras) for n in range(len(lengths))]
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    names = pa.table({"task_index": np.arange(len(tasks)), "task": pa.array(tasks)})
    pq.write_table(names, root / "meta/tasks.parquet")
    (root / "meta/stats.json").write_text(json.dumps(exact_statistics(root)))
    (root / "meta/info.json").write_text(json.dumps(_info(made, cameras, starts[-1], len(tasks)) | dict(made.info), indent=1))
    if made.card:
        (root / "README.md").write_text(made.card)
    return root


def rows_of(made: MadeSet, number: int, start: int, tasks: Sequence[str]) -> pa.Table:
    """The rows of one episode as they stand in a data file."""
    one = made.episodes[number]
    steps = np.arange(len(one))
    table = {
        "observation.state": pa.FixedSizeListArray.from_arrays(one.state_TP.astype(np.float32).ravel(), one.state_TP.shape[1]),
        "action": pa.FixedSizeListArray.from_arrays(one.action_TA.astype(np.float32).ravel(), one.action_TA.shape[1]),
        "timestamp": (steps / made.fps if one.times_T is None else one.times_T).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(one), number),
        "index": steps + start,
        "task_index": np.full(len(one), tasks.index(one.task)),
    }
    return pa.table(table | {name: pa.array(list(values)) for name, values in one.columns.items()})


def _entry(made: MadeSet, number: int, starts: Sequence[int], cameras: Sequence[str]) -> dict[str, Any]:
    file, one = number // made.per_file, made.episodes[number]
    first = starts[file * made.per_file]
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": [one.task],
        "length": len(one),
        "data/chunk_index": 0,
        "data/file_index": file,
        "dataset_from_index": starts[number],
        "dataset_to_index": starts[number + 1],
    }
    for camera in cameras:
        key = f"videos/observation.images.{camera}"
        begin, end = ((starts[n] - first) / made.fps for n in (number, number + 1))
        row |= {f"{key}/chunk_index": 0, f"{key}/file_index": file, f"{key}/from_timestamp": begin, f"{key}/to_timestamp": end}
    if made.episode_statistics:
        for name, values in (("observation.state", one.state_TP), ("action", one.action_TA)):
            row |= {f"stats/{name}/{key}": value for key, value in statistics_of(values).items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0} | dict(one.fields)


def _info(made: MadeSet, cameras: Sequence[str], frames: int, tasks: int) -> dict[str, Any]:
    whole = {"dtype": "int64", "shape": [1], "names": None}
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [len(made.state_names)], "names": list(made.state_names)},
        "action": {"dtype": "float32", "shape": [len(made.action_names)], "names": list(made.action_names)},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    } | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), whole)
    for camera in cameras:
        shape = list(made.episodes[0].frames[camera].shape[1:])
        features[f"observation.images.{camera}"] = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    for name, values in made.episodes[0].columns.items():
        kind = {bool: "bool", float: "float32", int: "int64", str: "string"}[type(values[0])]
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    return {
        "codebase_version": "v3.0",
        "robot_type": made.robot,
        "total_episodes": len(made.episodes),
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": 1000,
        "fps": made.fps,
        "splits": {"train": f"0:{len(made.episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }


def statistics_of(values: NDArray[Any]) -> dict[str, list[float]]:
    """All ten statistics of (T, D), exact."""
    v = np.asarray(values, np.float64).reshape(len(values), -1)
    found = {"min": v.min(axis=0), "max": v.max(axis=0), "mean": v.mean(axis=0), "std": v.std(axis=0), "count": np.array([len(v)])}
    found |= {f"q{round(100 * q):02d}": np.quantile(v, q, axis=0) for q in QUANTILES}
    return {name: value.tolist() for name, value in found.items()}


def exact_statistics(root: Path) -> dict[str, Any]:
    """Statistics of state and action, from the data files of a folder."""
    tables = [pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet"))]
    columns = {name: [np.array(t[name].to_pylist()) for t in tables] for name in ("observation.state", "action")}
    return {name: statistics_of(np.concatenate(parts)) for name, parts in columns.items()}


def write_film(path: Path, frames_THW3: NDArray[np.uint8], fps: int, *, lossy: bool = False) -> None:
    """H.264, without loss in RGB or with it in 4:2:0; a key frame every 2 frames, as LeRobot's recorder sets it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264" if lossy else "libx264rgb", rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames_THW3.shape[1], frames_THW3.shape[2], "yuv420p" if lossy else "rgb24"
        stream.thread_count = 1
        stream.options = {"preset": "ultrafast", "bf": "0", "g": "2"} | ({"crf": "12"} if lossy else {"qp": "0"})
        for number, pixels_HW3 in enumerate(frames_THW3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HW3), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_ours(root: Path, made: MadeSet) -> Path:
    from components.data.lerobot.writer import DatasetWriter
    from model_core.spec.episode import Episode, Provenance
    from tests.episodes import BODY

    with DatasetWriter(root, BODY) as writer:
        for number, one in enumerate(made.episodes):
            writer.add(
                Episode(
                    episode_id=f"made-{number:04d}",
                    embodiment=BODY.name,
                    task=str(one.fields.get("name", one.task)),
                    instruction=one.task,
                    success=True,
                    provenance=Provenance(producer="expert:made", cell="bench", seed=number),
                    images=dict(one.frames),
                    depth_m={},
                    geometry={},
                    proprio_TP=one.state_TP.astype(np.float32),
                    actions_TA=one.action_TA.astype(np.float32),
                    executed_TA=one.action_TA.astype(np.float32),
                    timestamps_T=np.arange(len(one)) / BODY.control_hz if one.times_T is None else one.times_T,
                )
            )
    if made.info:
        path = root / "meta/info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(made.info)))
    return root
