"""Measure a whole folder: what is kept is taken from the store, and only what is not there is decoded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.inspection.folder.content import FolderView
from components.data.inspection.folder.entries import EpisodeEntry
from components.data.inspection.folder.films import FilmDecoder, FilmScan
from components.data.inspection.measurements.episode import measure_rows
from components.data.inspection.measurements.origin import measure_origin
from components.data.inspection.measurements.pixels import as_frames
from components.data.inspection.measurements.raw_episode import of_folder
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.statistics import measure_statistics
from components.data.inspection.measurements.store import MeasurementStore
from components.data.lerobot import layout
from components.data.lerobot.film_spans import FilmError, number_pictures
from components.data.lerobot.meta.info import names_of

if TYPE_CHECKING:
    from components.config.records import Progress

_Column = TypeVar("_Column")
_CLOCK = ("frame_index", "episode_index", "index", "task_index", "timestamp", layout.RECORDED)


def measure_folder(view: FolderView, store: MeasurementStore, progress: Progress | None, *, pixels: bool = True) -> SetMeasurements:
    """Measure every episode of a folder, and the folder itself. Without `pixels` no picture is decoded. progress: None shows nothing."""
    episodes = _rows_alone(view) if not pixels else _with_pictures(view, store, progress)
    if progress is not None:
        progress.update(len(view.entries), len(view.entries), "measuring the set")
    return SetMeasurements(
        name=view.root.name,
        fps=view.fps,
        episodes=episodes,
        facts=tuple(view.facts.facts),
        looked_at=dict(view.facts.looked_at),
        names={name: tuple(names_of(feature)) for name, feature in view.features.items()},
        sentences=view.sentences,
        copies=_copies(view),
        compared_columns=sum(name not in _CLOCK for name in (*view.table.columns, *view.table.others)),
        cameras=(*view.cameras, *view.image_columns),
        statistics=measure_statistics(view),
        origin=measure_origin(view),
        embodiment=view.embodiment,
    )


def _rows_alone(view: FolderView) -> tuple[EpisodeMeasurements, ...]:
    return tuple(measure_rows([of_folder(view, entry) for entry in _with_rows(view)]))


def _with_pictures(view: FolderView, store: MeasurementStore, progress: Progress | None) -> tuple[EpisodeMeasurements, ...]:
    episodes: list[EpisodeMeasurements] = []
    pictures = Pictures(view)
    for place, entry in enumerate(entries := _with_rows(view)):
        if progress is not None:
            progress.update(place, len(entries), "measuring episodes")
        episodes.append(store.measured(of_folder(view, entry), partial(pictures.digests, entry), partial(pictures.of, entry)))
    pictures.close()
    return tuple(episodes)


def _with_rows(view: FolderView) -> list[EpisodeEntry]:
    return [entry for entry in view.entries if len(view.rows_of.get(entry.number, ()))]


class Pictures:
    """The decoded pictures of a folder, episode by episode, each film opened once while episodes follow each other."""

    def __init__(self, view: FolderView) -> None:
        self._view = view
        self._open: dict[str, tuple[str, FilmDecoder]] = {}

    def digests(self, entry: EpisodeEntry) -> dict[str, str]:
        """camera -> digest of what its pictures of this episode are decoded from."""
        found: dict[str, str] = {}
        for key in self._films(entry):
            scan, begin, end = self._part(entry, key)
            found[key] = scan.digest(begin, end)
        for key in self._view.image_columns:
            found[key] = hashlib.sha256(b"".join(_stored(self._view, entry, key))).hexdigest()
        return found

    def of(self, entry: EpisodeEntry) -> dict[str, Iterator[Any]]:
        """camera -> its pictures of this episode; nothing is decoded before they are taken."""
        found: dict[str, Iterator[Any]] = {key: self._decoded(entry, key) for key in self._films(entry)}
        return found | {key: _unpacked(self._view, entry, key) for key in self._view.image_columns}

    def close(self) -> None:
        """Close open films."""
        for _, decoder in self._open.values():
            decoder.close()
        self._open.clear()

    def _films(self, entry: EpisodeEntry) -> list[str]:
        films = self._view.films
        return [key for key, part in entry.films.items() if part.path in films and len(films[part.path].times_s)]

    def _decoded(self, entry: EpisodeEntry, key: str) -> Iterator[Any]:
        path = entry.films[key].path
        scan, begin, end = self._part(entry, key)
        if self._open.get(key, ("", None))[0] != path:
            if key in self._open:
                self._open.pop(key)[1].close()
            self._open[key] = (path, FilmDecoder(self._view.root / path, scan))
        yield from self._open[key][1].part(begin, end)
        if end - begin < entry.length:
            raise ValueError(f"the film has {end - begin} pictures for {entry.length} rows")

    def _part(self, entry: EpisodeEntry, key: str) -> tuple[FilmScan, int, int]:
        """Which pictures, in the order of showing, are this episode's: by their times, or by counting where those cannot be used."""
        part, fps = entry.films[key], self._view.fps
        scan = self._view.films[part.path]
        first = max(round((part.begin_s or 0.0) * fps), 0)
        try:
            numbers = number_pictures(scan.times_s, len(scan.times_s), fps, None)
            first = int(np.searchsorted(numbers, first)) if part.begin_s is not None else 0
        except FilmError:
            pass
        first = min(first, len(scan.times_s))
        return scan, first, min(first + entry.length, len(scan.times_s))


def _stored(view: FolderView, entry: EpisodeEntry, key: str) -> Iterator[bytes]:
    """The bytes of each picture of an image column; those that stand in files of their own are read from there."""
    rows = view.rows_of[entry.number]
    for place in rows.tolist():
        value: Any = view.table.others[key][place].as_py() or {}
        path = value.get("path")
        yield value.get("bytes") or (_inside(view.root, str(path)).read_bytes() if path else b"")


def _inside(root: Path, path: str) -> Path:
    found = (root / path).resolve()
    if not found.is_relative_to(root.resolve()):
        raise ValueError(f"the picture {path!r} lies outside of the data set")
    return found


def _unpacked(view: FolderView, entry: EpisodeEntry, key: str) -> Iterator[Any]:
    from PIL import Image, UnidentifiedImageError

    for number, content in enumerate(_stored(view, entry, key)):
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels: NDArray[np.uint8] = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"picture {number} cannot be decoded ({error})") from error
        yield from as_frames(pixels[None])


def _copies(view: FolderView) -> tuple[tuple[str, str], ...]:
    """Pairs of columns that are equal in every row; columns that never change are compared with nothing."""
    numbers = {name: v for name, v in view.table.columns.items() if name not in _CLOCK and len(v) and (v != v[:1]).any()}
    texts = {name: column for name, column in view.table.others.items() if _is_text(column.type) and len(column.unique()) > 1}
    return (*_equal_pairs(numbers, _are_equal), *_equal_pairs(texts, lambda one, other: one.equals(other)))


def _equal_pairs(columns: Mapping[str, _Column], are_equal: Callable[[_Column, _Column], bool]) -> Iterator[tuple[str, str]]:
    """Each column that equals an earlier one, behind the first such."""
    groups: list[list[str]] = []
    for name, column in columns.items():
        same = next((group for group in groups if are_equal(columns[group[0]], column)), None)
        if same is None:
            groups.append([name])
        else:
            same.append(name)
    yield from ((names[0], other) for names in groups for other in names[1:])


def _are_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether all numbers are; what is none equals 0. The first rows tell most columns apart."""
    return one.shape == other.shape and all(np.array_equal(_filled(one[:rows]), _filled(other[:rows])) for rows in (64, len(one)))


def _filled(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))  # not a list of rows that hold text, as of languages


def cameras_of(measured: SetMeasurements) -> Mapping[str, int]:
    """camera -> episodes of which its pictures were looked at."""
    return {
        name: sum(name in episode.cameras and len(episode.cameras[name]) > 0 for episode in measured.episodes) for name in measured.cameras
    }
