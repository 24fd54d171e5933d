"""What is left in the folder of a recorder that crashed: rows, films, tasks and what meta/ still says; read file by file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.editing.repair.footer import read_without_footer
from components.data.lerobot import layout
from components.data.lerobot.meta.info import is_film, read_info
from components.data.lerobot.meta.tasks import read_tasks
from components.data.lerobot.video import VideoReader
from model_core.spec.errors import DatasetError


@dataclass(slots=True)
class Account:
    """Sentences for people. restored: what was made again, and from what. given_up: what could not be kept, and why."""

    restored: list[str] = field(default_factory=list[str])
    given_up: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film of a camera that can be opened. number: its place among the films of the camera; in v2.1 that of its episode."""

    path: Path
    number: tuple[int, int]
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """entries: episode_index -> its row of meta/episodes, where that is left. films: camera key -> films in order."""

    info: Mapping[str, Any]
    table: pa.Table
    entries: Mapping[int, Mapping[str, Any]]
    tasks: Mapping[int, str]
    films: Mapping[str, tuple[Film, ...]]
    account: Account

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.info["fps"])


def read_evidence(root: Path) -> Evidence:
    """Read what is left. Raises `DatasetError` where info.json cannot be read or not one row is left: then nothing can be rebuilt."""
    info, account = read_info(root), Account()
    if any(feature["dtype"] == "image" for feature in info["features"].values()):
        raise DatasetError(
            f"{root.name} holds its images in rows or files of their own, which repair does not rebuild. Fix: export it again"
        )
    table = _rows(root, account)
    entries = {int(entry["episode_index"]): entry for entry in _entries(root, account)}
    films = {key: tuple(_films(root, info, key, account)) for key, feature in info["features"].items() if is_film(feature)}
    for name in (layout.EXTENSION, layout.EXTENSION_EPISODES):
        if (root / name).exists():
            account.given_up.append(f"{name}: what only our own writer adds (depth, geometry, ids) is not rebuilt")
    if count := sum(1 for path in (root / "images").rglob("*") if path.is_file()):
        account.given_up.append(f"images/: {count} images of an episode that was being recorded have no rows")
    tasks = _tasks(root, info, _listed(entries, table), account)
    return Evidence(info=info, table=table, entries=entries, tasks=tasks, films=films, account=account)


def _rows(root: Path, account: Account) -> pa.Table:
    parts: list[pa.Table] = []
    torn: list[Path] = []
    for path in sorted((root / "data").rglob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                parts.append(file.read(use_threads=False))
        except (OSError, pa.ArrowException):
            torn.append(path)
    for path in torn:
        place = path.relative_to(root).as_posix()
        schema = parts[0].schema if parts else _schema(json.loads((root / layout.INFO).read_text(encoding="utf-8"))["features"])
        found = read_without_footer(path.read_bytes(), schema)
        if found is None:
            account.given_up.append(f"{place}: no whole group of rows can be read from it")
            continue
        account.restored.append(f"{place}: its footer was missing, {found.num_rows} rows were read from its pages")
        parts.append(found)
    if not parts:
        raise DatasetError(f"{root.name}: not one row is left in data/. Fix: record it again")
    names = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
    return pa.concat_tables([part.select(names) for part in parts], promote_options="permissive")


def _schema(features: Mapping[str, Any]) -> pa.Schema:
    """The columns as LeRobot writes them: every feature in order that is no film."""
    fields: list[pa.Field] = []
    for name, feature in features.items():
        if feature["dtype"] != "video":
            value = pa.from_numpy_dtype(feature["dtype"]) if feature["dtype"] != "string" else pa.string()
            width = int(feature["shape"][0]) if len(feature["shape"]) == 1 else 0
            if not width:
                raise DatasetError(f"feature {name!r} has more than one axis, and no whole data file shows how it is stored")
            fields.append(pa.field(name, value if width == 1 else pa.list_(value, width)))
    return pa.schema(fields)


def _entries(root: Path, account: Account) -> Iterator[Mapping[str, Any]]:
    for path in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
                yield from file.read(columns=names, use_threads=False).to_pylist()
        except (OSError, pa.ArrowException):
            account.restored.append(f"{path.relative_to(root).as_posix()}: cannot be read, its episodes are found from rows and films")
    lines = root / layout.EPISODE_LINES
    for line in lines.read_text(encoding="utf-8", errors="replace").splitlines() if lines.exists() else ():
        try:
            yield {"episode_index": int((document := json.loads(line))["episode_index"]), **document}
        except (ValueError, KeyError, TypeError):
            account.restored.append(f"{layout.EPISODE_LINES}: a damaged line, its episode is found from rows and films")


def _films(root: Path, info: Mapping[str, Any], key: str, account: Account) -> Iterator[Film]:
    for path in sorted((root / "videos").rglob("*.mp4")):
        inside = path.relative_to(root)
        if key not in inside.parts:
            continue
        digits = [int("".join(filter(str.isdigit, part)) or 0) for part in (path.parent.name, path.stem)]
        chunk = next((int(part.split("-")[1]) for part in inside.parts if part.startswith("chunk-")), digits[0])
        reader = VideoReader(path, float(info["fps"]))
        try:
            yield Film(path=path, number=(chunk, digits[1]), frames=reader.count())
        except DatasetError as error:
            account.given_up.append(f"{inside.as_posix()}: {error}")
        finally:
            reader.close()


def _tasks(root: Path, info: Mapping[str, Any], listed: Mapping[int, str], account: Account) -> dict[int, str]:
    """task_index -> sentence: of the table of tasks, else of the episodes that meta/ lists with one sentence each."""
    try:
        return read_tasks(root, info)
    except DatasetError as error:
        account.restored.append(f"the table of tasks cannot be read ({error}); {len(listed)} sentences are taken from the list of episodes")
        return dict(listed)


def _listed(entries: Mapping[int, Mapping[str, Any]], table: pa.Table) -> dict[int, str]:
    found: dict[int, str] = {}
    if {"episode_index", "task_index"} <= set(table.column_names):
        pairs = table.select(["episode_index", "task_index"]).group_by(["episode_index", "task_index"]).aggregate([]).to_pylist()
        for pair in pairs:
            listed = entries.get(int(pair["episode_index"]), {}).get("tasks") or []
            if len(listed) == 1:
                found.setdefault(int(pair["task_index"]), str(listed[0]))
    return found
