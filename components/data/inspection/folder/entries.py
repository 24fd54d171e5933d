"""The episodes that a LeRobot folder lists, of v3.0 (meta/episodes) and v2.x (meta/episodes.jsonl), with the files that each names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.data.inspection.folder.documents import EPISODE_LINES, STATISTICS_LINES, read_lines
from components.data.inspection.folder.facts import FactList
from components.data.lerobot import layout
from components.data.lerobot.tables import read_table
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmPart:
    """Which part of which film is an episode's. path: relative to the folder. begin_s, end_s: as stated; None where a film holds one."""

    path: str
    begin_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEntry:
    """An episode as the folder lists it. data: its data file. start: its first row of all files, where that is stated.

    extra: further fields of its row (whether it succeeded, for example). statistics: its own, `feature/statistic` -> values.
    """

    number: int
    length: int
    tasks: tuple[str, ...] = ()
    data: str = ""
    start: int | None = None
    films: Mapping[str, FilmPart] = field(default_factory=dict[str, FilmPart])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_episode_entries(root: Path, info: Mapping[str, Any], cameras: Sequence[str], facts: FactList) -> tuple[EpisodeEntry, ...]:
    """Every episode that is listed, by number. Facts: `file_unreadable`, `episode_list`."""
    is_v3 = (root / "meta" / "episodes").is_dir()
    rows = _rows_v3(root, facts) if is_v3 else read_lines(root, EPISODE_LINES, facts)
    statistics = {} if is_v3 else _statistics_v2(root, facts)
    entries: dict[int, EpisodeEntry] = {}
    for row in rows:
        facts.look("episode_list")
        number, length = _whole(row.get("episode_index")), _whole(row.get("length"))
        if number is None or length is None:
            facts.add("episode_list", "meta/episodes", f"a row names episode {row.get('episode_index')!r} of length {row.get('length')!r}")
            continue
        if number in entries:
            facts.add("episode_list", "meta/episodes", f"episode {number} is listed twice, expected once")
            continue
        try:
            entries[number] = _v3(row, number, length, info, cameras) if is_v3 else _v2(row, number, length, info, cameras)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            facts.add("episode_list", "meta/episodes", f"episode {number}: its files cannot be named ({type(error).__name__}: {error})")
    for number in statistics.keys() & entries.keys():
        entries[number] = replace(entries[number], statistics=statistics[number])
    return tuple(entries[number] for number in sorted(entries))


def _rows_v3(root: Path, facts: FactList) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    paths = sorted(path for path in (root / "meta" / "episodes").rglob("*.parquet") if not path.name.startswith("."))
    facts.check("file_unreadable", bool(paths), "meta/episodes", "no parquet file is there; the recorder ended without finalize()")
    for path in paths:
        facts.look("file_unreadable")
        try:
            rows += read_table(path).to_pylist()
        except DatasetError as error:
            facts.add("file_unreadable", path.relative_to(root).as_posix(), str(error))
    return rows


def _statistics_v2(root: Path, facts: FactList) -> dict[int, dict[str, Any]]:
    """Episode -> its own statistics, by `feature/statistic`; version 2.0 has no file of them."""
    if not (root / STATISTICS_LINES).is_file():
        return {}
    found: dict[int, dict[str, Any]] = {}
    for row in read_lines(root, STATISTICS_LINES, facts):
        number, features = _whole(row.get("episode_index")), row.get("stats")
        if number is not None and isinstance(features, Mapping):
            kept = {key: stated for key, stated in features.items() if isinstance(stated, Mapping)}
            found[number] = {f"{key}/{name}": value for key, stated in kept.items() for name, value in stated.items()}
    return found


def _v3(row: Mapping[str, Any], number: int, length: int, info: Mapping[str, Any], cameras: Sequence[str]) -> EpisodeEntry:
    template = str(info.get("data_path") or layout.DATA_PATH)
    films: dict[str, FilmPart] = {}
    for key in cameras:
        chunk, file = _whole(row.get(f"videos/{key}/chunk_index")), _whole(row.get(f"videos/{key}/file_index"))
        if chunk is None or file is None:
            continue
        path = str(info.get("video_path") or layout.VIDEO_PATH).format(video_key=key, chunk_index=chunk, file_index=file)
        begin, end = (row.get(f"videos/{key}/{name}_timestamp") for name in ("from", "to"))
        films[key] = FilmPart(path=path, begin_s=_number(begin), end_s=_number(end))
    further, stated = _names(tuple(row))
    return EpisodeEntry(
        number=number,
        length=length,
        tasks=tuple(str(task) for task in row.get("tasks") or ()),
        data=template.format(chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])),
        start=_whole(row.get("dataset_from_index")),
        films=films,
        extra={name: row[name] for name in further},
        statistics={name: row[column] for name, column in stated if row[column] is not None},
    )


@lru_cache(maxsize=8)  # every row of a table has the same columns, a hundred and more
def _names(columns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The columns that are fields of the writer's own, and those of statistics, each behind its short name."""
    known = ("data/", "videos/", "stats/", "meta/", "dataset_", "episode_index", "length", "tasks")
    further = tuple(name for name in columns if not name.startswith(known))
    return further, tuple((name.removeprefix("stats/"), name) for name in columns if name.startswith("stats/"))


def _v2(row: Mapping[str, Any], number: int, length: int, info: Mapping[str, Any], cameras: Sequence[str]) -> EpisodeEntry:
    place = {"episode_chunk": number // int(info.get("chunks_size") or layout.CHUNKS_SIZE), "episode_index": number}
    template = str(info.get("video_path") or "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4")
    tasks = row.get("tasks")
    return EpisodeEntry(
        number=number,
        length=length,
        tasks=tuple(str(task) for task in tasks) if isinstance(tasks, list) else (),
        data=str(info.get("data_path") or "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet").format(**place),
        films={key: FilmPart(path=template.format(video_key=key, **place)) for key in cameras},
        extra={name: value for name, value in row.items() if name not in ("episode_index", "length", "tasks")},
    )


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and number >= 0 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
