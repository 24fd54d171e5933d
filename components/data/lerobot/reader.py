"""Read LeRobot folders of version 2.0, 2.1 and 3.0 as `Episode`s: ours with everything we add, and anybody's plain ones.

What a plain set lacks stays empty: no depth, no geometry, `executed_TA` equals the action, the task is its instruction.
Extra columns and files of other writers are passed over. Before an episode is given, info.json, meta/episodes, the data
files and the starts in the films are compared: a set whose parts contradict each other is refused. `DatasetWriter` writes version 3.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.files import dataset_digest
from components.data.lerobot import layout
from components.data.lerobot.columns import interventions
from components.data.lerobot.film_spans import FilmKey, FilmSpan, film_key, film_spans, first_frame
from components.data.lerobot.frame_table import FrameTable, read_frames
from components.data.lerobot.image_columns import ImageEpisode, read_images
from components.data.lerobot.meta.episode_index import EpisodeIndexRow, check_counts, check_rows, read_entries
from components.data.lerobot.meta.extension import Extension
from components.data.lerobot.meta.info import is_camera, is_film, picture_size, read_info
from components.data.lerobot.meta.tasks import read_tasks, task_of
from components.data.lerobot.success import stated_success, statements
from components.data.lerobot.tables import read_json
from components.data.lerobot.video import VideoReader
from components.data.lerobot.writer import DatasetWriter
from components.data.packing.kept_images import KeptImages, fetch_images
from model_core.spec.contract import EmbodimentSpec, embodiment_from_json
from model_core.spec.episode import Episode, Provenance
from model_core.spec.errors import DatasetError

__all__ = ["DatasetReader", "DatasetWriter", "EpisodeIndexRow", "TaskError", "dataset_digest"]


class TaskError(DatasetError):
    """The frames of an episode name no one task."""


class DatasetReader:
    """Random and sequential access to the episodes of one folder. Cheap to make: frames are read when asked for.

    Not thread-safe (video positions). Raises `DatasetError` naming the file when something is missing or torn.
    """

    def __init__(self, root: Path, kept: KeptImages | None = None) -> None:
        self.root, self._kept = root, kept
        self.info = read_info(root)
        self.fps = float(self.info["fps"])
        self.features: Mapping[str, Any] = self.info["features"]
        self._camera_keys = [key for key, feature in self.features.items() if is_camera(feature)]
        self._film_keys = [key for key, feature in self.features.items() if is_film(feature)]
        self._entries = read_entries(root, self.info)
        self._ours = Extension(root, [entry["episode_index"] for entry in self._entries])
        self._videos: dict[Path, VideoReader] = {}
        self._digest = ""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def frames(self) -> int:
        """Number of frames of the whole set."""
        return int(self.info["total_frames"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order of the features (of the embodiment, where it is known)."""
        names = [key.removeprefix(layout.IMAGE_PREFIX) for key in self._camera_keys]
        if self.described is None:
            return tuple(names)
        order = [c.name for c in self.described.cameras]
        return tuple(sorted(names, key=lambda n: order.index(n) if n in order else len(order)))

    def camera_key(self, camera: str) -> str:
        """The name of a camera's feature: the camera's own, or with LeRobot's prefix."""
        return camera if camera in self.features else f"{layout.IMAGE_PREFIX}{camera}"

    def picture_size(self, camera: str) -> tuple[int, int] | None:
        """(height, width) that the set states of a camera; None where it states none, or has no such camera."""
        return picture_size(self.features.get(self.camera_key(camera), {}))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.root.name

    @property
    def digest(self) -> str:
        """SHA-256 over every file of the folder."""
        self._digest = self._digest or dataset_digest(self.root)
        return self._digest

    @cached_property
    def described(self) -> EmbodimentSpec | None:
        """The body that recorded this set; None where the writer did not describe it."""
        document = self._ours.document.get("embodiment")
        return embodiment_from_json(document) if document else None

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The body that recorded this set. Raises `DatasetError` where the writer did not describe it."""
        if self.described is None:
            raise DatasetError(
                f"{self.name} does not describe the embodiment that recorded it ({layout.EXTENSION}). Fix: name an embodiment file "
                "in the recipe's source; or take the set in with `actwright ingest`"
            )
        return self.described

    @cached_property
    def stats(self) -> Mapping[str, Any]:
        """The statistics file as it is: validation checks whether it belongs to the data."""
        return read_json(self.root / layout.STATS)

    @cached_property
    def tasks(self) -> Mapping[int, str]:
        """task_index -> sentence."""
        return read_tasks(self.root, self.info)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The sentences of all tasks, by increasing task index."""
        return tuple(self.tasks.values())

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """Every episode, in order. Raises `DatasetError` where the parts of the set contradict each other."""
        return self._rows

    @cached_property
    def _rows(self) -> tuple[EpisodeIndexRow, ...]:
        check_counts(self.root, self._entries, self.info, self.table)
        check_rows(self.root, self._entries, self.table)
        _ = self._spans  # compared before any film is opened
        return tuple(self._row(i) for i in range(len(self)))

    @cached_property
    def table(self) -> FrameTable:
        """All per-frame columns of numbers (no images) of all data files, one after the other."""
        return read_frames(self.root, self.info, sorted({(e["data/chunk_index"], e["data/file_index"]) for e in self._entries}))

    def column(self, name: str) -> NDArray[Any]:
        """One per-frame column as (N,) or (N, D). Raises `DatasetError` when there is none."""
        if name not in self.table.columns:
            raise DatasetError(f"{self.root.name} has no column {name!r}; it has {', '.join(self.table.columns)}")
        return self.table.columns[name]

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index`, whole. Leaving out images or depth makes it cheap."""
        row = self.rows[index]
        if fault := self._task(index)[1]:
            raise TaskError(f"episode {row.episode_id}: {fault}")
        columns = self.table.episode_columns(f"episode {row.episode_id}", slice(row.start, row.start + row.length), self.fps)
        action = columns.get(layout.ACTION, np.zeros((row.length, 0), np.float32))
        ours = self._ours.of(row.number)
        return Episode(
            episode_id=row.episode_id,
            embodiment=ours.get("embodiment", str(self.info.get("robot_type") or "unknown")),
            task=row.task,
            instruction=row.instruction,
            success=row.success,
            provenance=row.provenance,
            images=fetch_images(self._kept, str(index), lambda: {one: self.images(index, one) for one in self.cameras}) if images else {},
            depth_m=self._ours.depth(row) if depth else {},
            geometry=self._ours.geometry(row.number),
            proprio_TP=columns.get(layout.STATE, np.zeros((row.length, 0), np.float32)),
            actions_TA=action,
            executed_TA=columns.get(layout.EXECUTED, action),
            timestamps_T=columns.get(layout.RECORDED, columns["timestamp"]).astype(np.float64),
            tcp_T3=columns.get(layout.TCP) if ours.get("has_tcp", False) else None,
            intervention_T=interventions.stated(f"episode {row.episode_id}", ours, columns, row.length),
        )

    def episodes(self, indices: Sequence[int] | None = None, *, images: bool = True, depth: bool = True) -> Iterator[Episode]:
        """Episodes one after the other; in increasing order no video is ever seeked back."""
        for index in range(len(self)) if indices is None else indices:
            yield self.episode(index, images=images, depth=depth)

    def images(self, index: int, camera: str, steps: range | None = None) -> NDArray[np.uint8]:
        """Frames (T, H, W, 3) of one camera of one episode: all, or `steps`. Raises `DatasetError` for a missing or truncated video."""
        key, entry, row = self.camera_key(camera), self._entries[index], self.rows[index]
        steps = range(row.length) if steps is None else steps
        film = film_key(entry, key) if key in self._film_keys else None
        if film is not None:
            frames_THW3 = self._video(film, camera).read(first_frame(entry, key, self.fps) + steps.start, len(steps))
        elif key in self._camera_keys and key not in self._film_keys:
            path = self.root / layout.file_path(self.info, "data_path", *self.table.file_of(row.start))
            frames_THW3 = read_images(self.root, key, path, self.table.place_in_file(row.start), ImageEpisode(row.number, steps))
        else:
            raise DatasetError(
                f"episode {row.episode_id} has no video of camera {camera!r}; the set has {', '.join(self.cameras) or 'none'}"
            )
        stated, got = self.picture_size(camera), frames_THW3.shape[1:3]
        if stated not in (None, got):
            raise DatasetError(
                f"camera {camera!r} of episode {row.episode_id}: pictures are {got[0]} high and {got[1]} wide as the film shows them, "
                f"{layout.INFO} states {stated}. Fix: correct the feature's shape, or the film's display matrix if it turns them wrongly"
            )
        return frames_THW3

    def _video(self, film: FilmKey, camera: str) -> VideoReader:
        key, chunk, file = film
        path = self.root / layout.file_path(self.info, "video_path", chunk, file, video_key=key)
        if not path.exists():
            raise DatasetError(f"the video {path.relative_to(self.root).as_posix()} of camera {camera!r} is missing")
        if path not in self._videos:
            for old in [p for p in self._videos if p.parents[1] == path.parents[1]]:
                self._videos.pop(old).close()
            self._videos[path] = VideoReader(path, self.fps, self._spans[film])
        return self._videos[path]

    def close(self) -> None:
        """Close open videos."""
        for video in self._videos.values():
            video.close()
        self._videos.clear()

    @cached_property
    def _spans(self) -> dict[FilmKey, FilmSpan]:
        return film_spans(self._entries, self._film_keys, self.fps)

    def _task(self, index: int) -> tuple[str, str]:
        entry = self._entries[index]
        task_index_N = self.table.columns.get("task_index")
        start = entry["dataset_from_index"]
        mine = None if task_index_N is None else task_index_N[start : start + entry["length"]]
        return task_of(mine, entry.get("tasks") or (), self.tasks)

    def _row(self, index: int) -> EpisodeIndexRow:
        entry = self._entries[index]
        number, instruction = entry["episode_index"], self._task(index)[0]
        ours = self._ours.of(number)
        unknown = {"producer": "unknown", "cell": "", "seed": 0}
        return EpisodeIndexRow(
            index=index,
            number=number,
            episode_id=ours.get("episode_id", f"{self.root.name}-{number:06d}"),
            task=ours.get("task", instruction),
            instruction=instruction,
            length=entry["length"],
            start=entry["dataset_from_index"],
            success=stated_success(f"{self.root.name}: episode {number}", statements(ours, entry, self.table.columns)),
            provenance=Provenance(**(json.loads(ours["provenance"]) if ours else unknown)),
        )
