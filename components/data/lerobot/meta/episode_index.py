"""meta/episodes: which rows of the data files, and which part of which film, are an episode's. Every claim is compared with the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.data.lerobot import layout
from components.data.lerobot.frame_table import FrameTable
from components.data.lerobot.meta.info import is_film
from components.data.lerobot.meta.lines import episode_lines
from components.data.lerobot.tables import read_schema, read_table
from model_core.spec.episode import Provenance
from model_core.spec.errors import DatasetError

_INTEGERS = ("episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index")
_FIX = "Fix: repair meta/episodes, or record or export the data set again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeIndexRow:
    """What is known of an episode without reading its images.

    index: its place among the episodes that are there, which `DatasetReader.episode` takes. number: its `episode_index`, by which the
    frames, depth and our own table name it; the two differ after an episode was removed. start: its first row. success: None where
    the set does not say it.
    """

    index: int
    number: int
    episode_id: str
    task: str
    instruction: str
    length: int
    start: int
    success: bool | None
    provenance: Provenance


def read_entries(root: Path, info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What meta/ says of each episode, without statistics, by episode_index. Raises `DatasetError` naming file and row."""
    listed = _lines(root, info) if layout.is_one_file_an_episode(info) else _table_rows(root)
    entries: dict[int, dict[str, Any]] = {}
    for place, entry in listed:
        if entries.setdefault(entry["episode_index"], entry) is not entry:
            raise DatasetError(f"{place}: episode {entry['episode_index']} is listed twice, expected once. {_FIX}")
    return [entries[number] for number in sorted(entries)]


def _lines(root: Path, info: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return episode_lines(root, info, [key for key, feature in info["features"].items() if is_film(feature)])


def _table_rows(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    paths = sorted(path for path in (root / "meta" / "episodes").rglob("*.parquet") if not path.name.startswith("."))
    if not paths:
        raise DatasetError(
            f"{root.name}/meta/episodes holds no parquet file; the data set is incomplete, which happens when the recorder ended without "
            "finalize(). Fix: record it again, and close the recorder before it ends"
        )
    for path in paths:
        place = path.relative_to(root).as_posix()
        names = [name for name in read_schema(path).names if not name.startswith("stats/")]
        if missing := [name for name in _INTEGERS if name not in names]:
            raise DatasetError(f"{place} has no column {missing[0]!r}, expected {', '.join(_INTEGERS)}. Fix: export the data set again")
        for number, row in enumerate(read_table(path, names).to_pylist()):
            checked = {name: _integer(row[name], f"{place}: column {name!r}, row {number}") for name in _INTEGERS}
            yield f"{place}, row {number}", row | checked


def _integer(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer() or value < 0:
        raise DatasetError(f"{where} is {value!r}, expected a whole number from 0. {_FIX}")
    return int(value)


def check_counts(root: Path, entries: Sequence[Mapping[str, Any]], info: Mapping[str, Any], frames: FrameTable) -> None:
    """Raise `DatasetError` unless meta/episodes, the data files and info.json count the same episodes and frames."""
    listed, stated = sum(entry["length"] for entry in entries), (info["total_episodes"], info["total_frames"])
    if (len(entries), listed) == stated and frames.num_rows == listed:
        return
    cause = "the set is incomplete or was changed by hand"
    if len(entries) < info["total_episodes"]:
        cause = "the recorder ended without finalize(), or episodes were removed by hand"
    raise DatasetError(
        f"{root.name}: meta/episodes lists {len(entries)} episodes and {listed} frames, the data files hold {frames.num_rows} frames, "
        f"{layout.INFO} states {stated[0]} episodes and {stated[1]} frames; {cause}. "
        "Fix: record or export it again, or make the three agree if you know which one is right"
    )


def check_rows(root: Path, entries: Sequence[Mapping[str, Any]], frames: FrameTable) -> None:
    """Raise `DatasetError` naming the first row that is not the episode's to which meta/episodes gives it."""
    whose_N, step_N = frames.columns["episode_index"], frames.columns["frame_index"]
    for entry in entries:
        number, start, length = entry["episode_index"], entry["dataset_from_index"], entry["length"]
        named = f"{root.name}: episode {number} of meta/episodes"
        end = entry.get("dataset_to_index")
        if length < 1 or (end is not None and end - start != length):
            raise DatasetError(f"{named} has rows {start} to {end} and length {length}, expected a length of at least 1 that fits. {_FIX}")
        if start + length > frames.num_rows:
            raise DatasetError(f"{named} has rows {start} to {start + length}, the data files hold {frames.num_rows}. {_FIX}")
        rows = slice(start, start + length)
        wrong = np.flatnonzero((whose_N[rows] != number) | (step_N[rows] != np.arange(length)))
        if wrong.size:
            row = start + int(wrong[0])
            raise DatasetError(
                f"{named} begins at row {start}; row {row} must be its frame {row - start}, "
                f"but is frame {step_N[row]} of episode {whose_N[row]}. {_FIX}"
            )
        file, first, last = (entry["data/chunk_index"], entry["data/file_index"]), frames.file_of(start), frames.file_of(start + length - 1)
        if (first, last) != (file, file):
            raise DatasetError(
                f"{named} names data file {_path(file)}, but its rows are in {_path(first if first != file else last)}. {_FIX}"
            )


def _path(file: tuple[int, int]) -> str:
    return f"chunk-{file[0]:03d}/file-{file[1]:03d}"
