"""Changes in place to a LeRobot v3.0 folder that keep it whole: numbers, pictures, depth and what meta/ says of episodes.

What a recorder would have counted from the changed data (statistics of episodes and of the set) is counted again, so a fault is only the
fault itself. Sets with and without our own files, with films and with images in rows, are edited alike.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.adapters.scheduling import scheduling_kept
from components.data.lerobot import layout
from components.data.lerobot.film_spans import first_frame
from components.data.lerobot.meta.info import is_film, names_of
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.statistics import picture_histogram, picture_statistics, vector_statistics
from tests.data_faults.interface import NotApplicable

Pictures = NDArray[np.uint8]
MOVED = (layout.STATE, layout.ACTION, layout.EXECUTED, layout.TCP)
OBSERVED = (layout.STATE, layout.TCP)
COMMANDED = (layout.ACTION, layout.EXECUTED)
GRIPPER_WORDS = ("grip", "finger", "jaw", "claw")
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9", "mpeg4": "mpeg4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An episode: its place among the episodes, its number (`episode_index`), its rows, and what the set says of it."""

    index: int
    number: int
    rows: slice
    length: int
    task: str
    success: bool | None


class SetFolder:
    """One folder, read once and changed in place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info: dict[str, Any] = json.loads((root / layout.INFO).read_text(encoding="utf-8"))
        self.fps = float(self.info["fps"])
        with closing(DatasetReader(root)) as reader:
            self.cameras = reader.cameras
            self.keys = {camera: reader.camera_key(camera) for camera in reader.cameras}
            self.columns: dict[str, NDArray[Any]] = dict(reader.table.columns)
            self._files = [(root / layout.file_path(self.info, "data_path", *file)) for file in reader.table.files]
            self.episodes = tuple(
                Span(
                    index=row.index,
                    number=row.number,
                    rows=slice(row.start, row.start + row.length),
                    length=row.length,
                    task=row.instruction,
                    success=row.success,
                )
                for row in reader.rows
            )

    # what there is

    def names(self, column: str) -> list[str]:
        """Names of a column's dimensions in small letters; numbers where the set gives none."""
        feature = self.info["features"].get(column, {})
        width = self.columns[column].shape[1]
        names = [name.lower() for name in names_of(feature)]
        return names if len(names) == width else [str(place) for place in range(width)]

    def gripper_dims(self, column: str) -> list[int]:
        """The dimensions of the gripper: by name, else the last one of a column without names."""
        names = self.names(column)
        named = [place for place, name in enumerate(names) if any(word in name for word in GRIPPER_WORDS)]
        return named or ([len(names) - 1] if all(name.isdigit() for name in names) and len(names) > 1 else [])

    def arm_dims(self, column: str) -> list[int]:
        """The dimensions that move and are not the gripper's; every moving one where only the gripper moves."""
        spans = np.ptp(self.columns[column], axis=0)
        moving = [place for place in range(len(spans)) if spans[place] > 1e-6]
        gripper = self.gripper_dims(column)
        return [place for place in moving if place not in gripper] or moving

    def command_of(self, dim: int) -> int | None:
        """The dimension of the action that commands dimension `dim` of the state: of the same name, or the same place in equal widths."""
        state, action = self.names(layout.STATE), self.names(layout.ACTION)
        if state == action:
            return dim
        return action.index(state[dim]) if not state[dim].isdigit() and state[dim] in action else None

    def is_target(self, dim: int, command: int) -> bool:
        """Whether the action is a place to go to, near the state that it commands, and no step from where the robot is."""
        state, action = self.columns[layout.STATE][:, dim], self.columns[layout.ACTION][:, command]
        return bool(np.median(np.abs(action - state)) < 0.25 * np.ptp(state))

    def second_session(self, rng: np.random.Generator) -> tuple[Span, ...]:
        """The episodes from some boundary on. Raises `NotApplicable` for a set of one episode."""
        count = len(self.episodes)
        if count < 2:
            raise NotApplicable("a set of one episode has no second session")
        first = int(rng.integers(max(1, count // 3), max(2, 2 * count // 3 + 1)))
        return self.episodes[min(first, count - 1) :]

    def film_keys(self) -> list[str]:
        """The features of the cameras that are films."""
        return [key for key in self.keys.values() if is_film(self.info["features"][key])]

    def pictures(self, camera: str, episodes: Sequence[Span]) -> dict[int, Pictures]:
        """Number of the episode -> its pictures (T, H, W, 3)."""
        with closing(DatasetReader(self.root)) as reader:
            return {episode.number: reader.images(episode.index, camera) for episode in episodes}

    def check_pictures(self) -> None:
        """Raise `NotApplicable`, before anything is changed, where the pictures of a camera cannot be written as they were."""
        for key in self.keys.values():
            if is_film(self.info["features"][key]):
                for path in sorted((self.root / "videos" / key).rglob("*.mp4")):
                    _decode(path, self.fps)
            elif not all(_holds_images(path, key) for path in self._files):
                raise NotApplicable(f"the pictures of {key} are files of their own")

    # changes

    def put_columns(self, changed: Mapping[str, NDArray[Any]]) -> None:
        """Write whole columns (N,) or (N, D), and count their statistics again."""
        offset = 0
        for path in self._files:
            with pq.ParquetFile(path) as file:
                rows = slice(offset, offset + file.metadata.num_rows)
                types = {name: file.schema_arrow.field(name).type for name in changed}
            part = {name: values[rows] for name, values in changed.items() if self._differs(name, values, rows)}
            if part:
                rewrite(path, {name: _arrow(values, types[name]) for name, values in part.items()})
            offset = rows.stop
        for name, values in changed.items():
            touched = [episode for episode in self.episodes if self._differs(name, values, episode.rows)]
            per_episode = {episode.number: vector_statistics(values[episode.rows]) for episode in touched}
            self._put_statistics(name, per_episode, vector_statistics(values))
        self.columns.update(changed)

    def _differs(self, name: str, values: NDArray[Any], rows: slice) -> bool:
        return not np.array_equal(self.columns[name][rows], values[rows])

    def put_pictures(self, changed: Mapping[str, Mapping[int, Pictures]]) -> None:
        """camera -> number of the episode -> its new pictures, as many as before. Counts their statistics again."""
        for camera, episodes in changed.items():
            key = self.keys[camera]
            if is_film(self.info["features"][key]):
                self._put_into_films(key, episodes)
            else:
                self._put_into_rows(key, episodes)
            histograms = {n: picture_histogram(p) for n, p in self.pictures(camera, self.episodes).items()}
            lengths = {episode.number: episode.length for episode in self.episodes}
            per_episode = {n: picture_statistics(h, lengths[n]) for n, h in histograms.items() if n in episodes}
            self._put_statistics(key, per_episode, picture_statistics(sum(histograms.values(), np.zeros((3, 256), np.int64)), 0))

    def depth(self, camera: str) -> dict[int, list[bytes]]:
        """Number of the episode -> one depth image a frame, where the camera has depth in our own form."""
        found: dict[int, list[bytes]] = {}
        for path in self._depth_files(camera):
            table = _read(path, ["episode_index", "depth_mm"])
            for number, image in zip(table["episode_index"].to_pylist(), table["depth_mm"].to_pylist(), strict=True):
                found.setdefault(number, []).append(image)
        return found

    def put_depth(self, camera: str, changed: Mapping[int, Sequence[bytes]]) -> None:
        """Number of the episode -> its new depth images, as many as before."""
        for path in self._depth_files(camera):
            table = _read(path, ["episode_index", "frame_index", "depth_mm"])
            numbers, steps = table["episode_index"].to_pylist(), table["frame_index"].to_pylist()
            images = [
                changed[number][step] if number in changed else image
                for number, step, image in zip(numbers, steps, table["depth_mm"].to_pylist(), strict=True)
            ]
            rewrite(path, {"depth_mm": pa.array(images, table["depth_mm"].type)})

    def show_again(self, taken: Mapping[int, tuple[int, NDArray[np.int64]]], *, columns: Sequence[str], noise: np.random.Generator) -> None:
        """Give episodes what was seen at other moments: number of the episode -> (number of the source, step of the source for each step).

        columns: the columns of numbers that follow; pictures and depth of all cameras always do. A picture that is shown at another moment
        gets the noise of a sensor, one level up or down, so that no two of them are equal to the byte.
        """
        spans = {episode.number: episode for episode in self.episodes}
        changed = {name: self.columns[name].copy() for name in columns if name in self.columns}
        for number, (source, steps) in taken.items():
            for name, values in changed.items():
                values[spans[number].rows] = self.columns[name][spans[source].rows][steps]
        self.put_columns(changed)
        for camera in self.cameras:
            needed = {spans[n].index: spans[n] for n in (*taken, *(source for source, _ in taken.values()))}
            seen = self.pictures(camera, list(needed.values()))
            shown = {n: seen[source][steps] for n, (source, steps) in taken.items()}
            for number, (source, steps) in taken.items():
                moved = np.ones(len(steps), bool) if source != number else steps != np.arange(len(steps))
                shown[number][moved] = noisy(shown[number][moved], noise)
            self.put_pictures({camera: shown})
            if depth := self.depth(camera):
                self.put_depth(
                    camera, {n: [depth[source][step] for step in steps] for n, (source, steps) in taken.items() if source in depth}
                )

    def put_meta(self, changed: Mapping[str, Mapping[int, Any]]) -> None:
        """Column of meta/episodes -> number of the episode -> its new value. Columns that are not there are passed over."""
        for path in sorted((self.root / "meta" / "episodes").rglob("*.parquet")):
            _put_by_number(path, changed)

    def put_ours(self, changed: Mapping[str, Mapping[int, Any]]) -> None:
        """The same for our own table of episodes, where there is one."""
        if (path := self.root / layout.EXTENSION_EPISODES).exists():
            _put_by_number(path, changed)

    def ours(self, number: int) -> dict[str, Any]:
        """The row of our own table of episodes for one of them; empty where there is none."""
        path = self.root / layout.EXTENSION_EPISODES
        rows = _read(path, pq.read_schema(path).names).to_pylist() if path.exists() else []
        return next((row for row in rows if row["episode_index"] == number), {})

    def entries(self) -> dict[int, dict[str, Any]]:
        """Number of the episode -> its row of meta/episodes, without statistics."""
        found: dict[int, dict[str, Any]] = {}
        for path in sorted((self.root / "meta" / "episodes").rglob("*.parquet")):
            names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
            found |= {row["episode_index"]: row for row in _read(path, names).to_pylist()}
        return found

    def statistics(self) -> dict[str, Any]:
        """meta/stats.json."""
        return json.loads((self.root / layout.STATS).read_text(encoding="utf-8"))

    def put_statistics(self, document: Mapping[str, Any]) -> None:
        """Write meta/stats.json."""
        (self.root / layout.STATS).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def _put_statistics(self, key: str, per_episode: Mapping[int, Mapping[str, Any]], whole: Mapping[str, Any]) -> None:
        """Only what is stated already, and never the counts: no frame is added or removed."""
        stated = self.statistics()
        if key in stated:
            stated[key] |= {name: value for name, value in whole.items() if name in stated[key] and name != "count"}
            self.put_statistics(stated)
        names = [name for name in whole if name != "count"]
        self.put_meta({f"stats/{key}/{name}": {n: stats[name] for n, stats in per_episode.items()} for name in names})

    def _depth_files(self, camera: str) -> list[Path]:
        return sorted((self.root / "depth" / f"{layout.DEPTH_PREFIX}{camera}").rglob("*.parquet"))

    def _put_into_films(self, key: str, episodes: Mapping[int, Pictures]) -> None:
        films: dict[Path, dict[int, Pictures]] = {}
        for number, entry in self.entries().items():
            if number in episodes:
                chunk, file = entry[f"videos/{key}/chunk_index"], entry[f"videos/{key}/file_index"]
                path = self.root / layout.file_path(self.info, "video_path", chunk, file, video_key=key)
                films.setdefault(path, {})[first_frame(entry, key, self.fps)] = episodes[number]
        for path, parts in films.items():
            new = {first + step: picture for first, pictures in parts.items() for step, picture in enumerate(pictures)}
            encode_again(path, self.fps, new)

    def _put_into_rows(self, key: str, episodes: Mapping[int, Pictures]) -> None:
        new = {e.rows.start + step: p for e in self.episodes if e.number in episodes for step, p in enumerate(episodes[e.number])}
        offset = 0
        for path in self._files:
            column = _read(path, [key])[key]
            cells = column.to_pylist()
            for place, cell in enumerate(cells):
                if (picture := new.get(offset + place)) is not None:
                    cells[place] = cell | {"bytes": _image_file(picture, cell["bytes"])}
            rewrite(path, {key: pa.array(cells, column.type)})
            offset += len(cells)


def noisy(pictures: Pictures, rng: np.random.Generator) -> Pictures:
    """Pictures of the same scene at another moment: every value at most one level higher or lower."""
    return np.clip(pictures.astype(np.int16) + rng.integers(-1, 2, pictures.shape), 0, 255).astype(np.uint8)


def rewrite(path: Path, changed: Mapping[str, pa.Array]) -> None:
    """Write a Parquet file again with some columns replaced: same columns, types, notes and row groups."""
    with pq.ParquetFile(path) as file:
        table = file.read()
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    for name, values in changed.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), values)
    partial = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(partial, table.schema, compression="zstd") as writer:
        start = 0
        for size in sizes:
            writer.write_table(table.slice(start, size), row_group_size=max(size, 1))
            start += size
    os.replace(partial, path)


def encode_again(path: Path, fps: float, new: Mapping[int, Pictures]) -> None:
    """Write a film again with some pictures replaced: same codec, pixel format, times and key frames. new: number -> picture."""
    import av
    from av.video.frame import PictureType

    frames, numbers, codec, notes = _decode(path, fps)
    pixels, partial = frames[0].format.name, path.with_name(f".{path.name}.partial")
    is_rgb = pixels.startswith("gbr")
    options = {"qp": "0", "preset": "veryfast", "bf": "0"} if is_rgb else {"crf": "10", "bf": "0"}
    options |= {"sc_threshold": "0"} if codec == "h264" else {}
    options = {"crf": "18", "preset": "10", "g": "2"} if codec == "av1" else options
    film = {"movflags": "faststart", "fflags": "bitexact"}
    with scheduling_kept(), av.open(str(partial), "w", format="mp4", options=film) as target:
        encoder = "libx264rgb" if is_rgb else _ENCODERS[codec]
        stream: Any = target.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "rgb24" if is_rgb else pixels
        stream.thread_count = 1
        stream.codec_context.gop_size = max([8, *np.diff([n for n, f in enumerate(frames) if f.key_frame]).tolist()])
        stream.options = options
        target.metadata.update({name: value for name, value in notes.items() if name not in ("encoder", "compatible_brands")})
        for number, frame in zip(numbers, frames, strict=True):
            picture = new.get(number)
            kept = frame if picture is None else av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            shown = kept.reformat(format="rgb24" if is_rgb else pixels)
            shown.pts, shown.time_base = number, 1 / Fraction(fps).limit_denominator(1001)
            shown.pict_type = PictureType.I if frame.key_frame else PictureType.NONE
            for packet in stream.encode(shown):
                target.mux(packet)
        for packet in stream.encode():
            target.mux(packet)
    os.replace(partial, path)


def _decode(path: Path, fps: float) -> tuple[list[Any], list[int], str, dict[str, str]]:
    """(pictures, their numbers, codec, notes). Raises `NotApplicable` for a film that could not be written again as it is."""
    import av
    from av.sidedata.sidedata import Type

    with av.open(str(path)) as source:
        film = source.streams.video[0]
        codec = {"libdav1d": "av1", "libaom-av1": "av1"}.get(film.codec_context.name, film.codec_context.name)
        if len(source.streams) != 1 or _ENCODERS.get(codec) not in av.codecs_available:
            raise NotApplicable(f"{path.name} has {len(source.streams)} streams, the first of codec {codec}")
        frames: list[Any] = list(source.decode(film))
        notes = dict(source.metadata)
    numbers = [round(frame.time * fps) for frame in frames]
    beside = max(abs(frame.time * fps - number) for frame, number in zip(frames, numbers, strict=True))
    if beside > 0.3 or numbers != list(range(len(numbers))) or frames[0].side_data.get(Type.DISPLAYMATRIX) is not None:
        raise NotApplicable(f"{path.name} has pictures between the frames of the set, or its container turns them")
    return frames, numbers, codec, notes


def copy_film(path: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Write a film again without decoding it, with other notes in its container."""
    import av

    partial = path.with_name(f".{path.name}.partial")
    with (
        av.open(str(path)) as source,
        av.open(str(partial), "w", format="mp4", options={"movflags": "faststart+use_metadata_tags", "fflags": "bitexact"}) as target,
    ):
        target.metadata.update(change(dict(source.metadata)))
        streams = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in _packets(source):
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    os.replace(partial, path)


def _packets(source: Any) -> Iterator[Any]:
    return (packet for packet in source.demux() if packet.dts is not None)


def _holds_images(path: Path, key: str) -> bool:
    if key not in pq.read_schema(path).names:
        return False
    return all(isinstance(cell, dict) and cell.get("bytes") for cell in _read(path, [key])[key].to_pylist())


def _read(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of one file; as a file, so that the name of its folder adds no column."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def _arrow(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    flat = values.tolist() if values.ndim == 1 or values.shape[1] != 1 or _is_list(kind) else values[:, 0].tolist()
    return pa.array([[value] for value in flat] if _is_list(kind) and values.ndim == 1 else flat, kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _put_by_number(path: Path, changed: Mapping[str, Mapping[int, Any]]) -> None:
    names = pq.read_schema(path).names
    table = _read(path, ["episode_index", *(name for name in changed if name in names)])
    numbers = table["episode_index"].to_pylist()
    columns: dict[str, pa.Array] = {}
    for name in changed:
        if name in names:
            pairs = zip(numbers, table[name].to_pylist(), strict=True)
            columns[name] = pa.array([changed[name].get(number, value) for number, value in pairs], table[name].type)
    if columns:
        rewrite(path, columns)


def _image_file(picture: Pictures, old: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(old)) as before:
        kind = before.format or "PNG"
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format=kind)
    return out.getvalue()
