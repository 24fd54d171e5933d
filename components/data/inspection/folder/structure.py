"""Facts about how the parts of a folder fit together: counts, rows, features, files, and the films against the rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from components.data.inspection.folder.content import FolderView
from components.data.inspection.folder.entries import EpisodeEntry, FilmPart
from components.data.lerobot import layout
from components.data.lerobot.film_spans import START_TOLERANCE
from components.data.lerobot.meta.info import picture_size, width_of

RATE_TOLERANCE = 0.01  # of a film's rate: a whole percent moves the last picture of 100 by one


def check_structure(view: FolderView) -> None:
    """Record every fact about the whole folder."""
    _counts(view)
    _rows(view)
    _features(view)
    _strangers(view)
    for key in view.cameras:
        _films(view, key)


def _counts(view: FolderView) -> None:
    facts, info = view.facts, view.info
    listed = sum(entry.length for entry in view.entries)
    said = {"total_episodes": (len(view.entries), "meta/episodes lists"), "total_frames": (listed, "meta/episodes lists")}
    for name, (found, where) in said.items():
        facts.check("counts", found == info.get(name), layout.INFO, f"{name} is {info.get(name)}, {where} {found}")
    facts.check("counts", view.table.rows == listed, "data", f"the data files hold {view.table.rows} frames, meta/episodes lists {listed}")
    if isinstance(tasks := info.get("total_tasks"), int):
        facts.check("counts", tasks == len(view.sentences), layout.INFO, f"total_tasks is {tasks}, the table has {len(view.sentences)}")
    numbers = [entry.number for entry in view.entries]
    facts.check(
        "episode_gap", numbers == list(range(len(numbers))), "meta/episodes", f"episode numbers are {_some(numbers)}, not 0, 1, 2 ..."
    )
    for entry in view.entries:
        where = view.episode_id(entry.number)
        facts.check("too_short", entry.length >= 2, where, f"{entry.length} frames, expected at least 2")


def _rows(view: FolderView) -> None:
    facts, columns = view.facts, view.table.columns
    whose_N, step_N, index_N = (columns.get(name) for name in ("episode_index", "frame_index", "index"))
    for name, values in (("episode_index", whose_N), ("frame_index", step_N), ("timestamp", columns.get("timestamp"))):
        facts.check("column_missing", values is not None or not view.table.rows, "data", f"there is no column {name!r}")
    if index_N is not None:
        wrong = np.flatnonzero(index_N != np.arange(len(index_N)))
        row = int(wrong[0]) if wrong.size else 0
        facts.check("index", not wrong.size, "data", f"row {row} has index {index_N[row] if len(index_N) else 0}, expected {row}")
    if whose_N is None or step_N is None:
        return
    for entry in view.entries:
        where, rows = view.episode_id(entry.number), view.rows_of.get(entry.number, np.zeros(0, np.int64))
        facts.look("row_order")
        steps = step_N[rows]
        if len(rows) != entry.length:
            facts.add("row_order", where, f"{len(rows)} rows say that they are its, meta/episodes states {entry.length}")
        elif (wrong := np.flatnonzero(steps != np.arange(len(steps)))).size:
            facts.add("row_order", where, f"its frame {int(wrong[0])} has frame_index {steps[wrong[0]]}")
        elif entry.start is not None and not np.array_equal(rows, np.arange(entry.start, entry.start + entry.length)):
            facts.add("row_order", where, f"meta/episodes says that it begins at row {entry.start}, its first row is {int(rows[0])}")
        elif (place := view.table.starts.get(entry.data)) and not place[0] <= rows[0] < place[0] + place[1]:
            facts.add("row_order", where, f"meta/episodes names {entry.data}, which does not hold its rows")
    is_listed_N = np.isin(whose_N, [entry.number for entry in view.entries])
    strangers = whose_N[~is_listed_N] if is_listed_N.all() else np.unique(whose_N[~is_listed_N])  # unique imports a tenth of a second
    facts.check("row_order", not strangers.size, "data", f"rows of episode {_some(strangers.tolist())}, which meta/episodes does not list")


def _features(view: FolderView) -> None:
    facts, table = view.facts, view.table
    kept = {*table.columns, *table.others}
    if not table.rows:
        return
    for name, feature in view.features.items():
        if feature["dtype"] != "video":
            facts.check("column_missing", name in kept, "data", f"the feature {name!r} of {layout.INFO} has no column")
        if name not in table.columns or feature["dtype"] == "image":
            continue
        values, stated = table.columns[name], width_of(feature)
        width = values[0].size if len(values) else stated
        is_wide = stated in (None, width)
        facts.check("column_width", is_wide, name, f"{layout.INFO} states {stated} numbers a frame, the data have {width}")
        names = feature.get("names")
        if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
            facts.check("column_width", len(names) == width, name, f"{layout.INFO} names {len(names)} dimensions, the data have {width}")
        facts.check(
            "column_dtype",
            _kind(feature["dtype"]) == _kind(table.dtypes.get(name, "")),
            name,
            f"{layout.INFO} states {feature['dtype']}, the data are {table.dtypes.get(name)}",
        )
    for name in table.columns:
        facts.check(
            "column_unknown", name in view.features, name, f"the data files have a column {name!r}, {layout.INFO} has no such feature"
        )


def _kind(dtype: str) -> str:
    """float, int or bool: the width of a number is the writer's choice, its kind is not."""
    name = {"double": "float", "halffloat": "float"}.get(dtype, dtype)
    return "int" if name.startswith(("int", "uint")) else "float" if name.startswith("float") else name


def _strangers(view: FolderView) -> None:
    named = {entry.data for entry in view.entries} | {part.path for entry in view.entries for part in entry.films.values()}
    kept = [path for folder, end in (("data", ".parquet"), ("videos", ".mp4")) for path in sorted((view.root / folder).rglob(f"*{end}"))]
    for path in kept:
        name = path.relative_to(view.root).as_posix()
        if not path.name.startswith("."):
            view.facts.check("file_unnamed", name in named, name, "no episode names this file; it is left over, or its episodes are lost")


def _films(view: FolderView, key: str) -> None:
    facts = view.facts
    taken: dict[str, list[tuple[float, float, str]]] = {}
    for entry in view.entries:
        where, part = view.episode_id(entry.number), entry.films.get(key)
        if not facts.check("camera_missing", part is not None, where, f"it names no video of camera {key!r}") or part is None:
            continue
        if view.fps and part.begin_s is not None:
            _part(view, entry, key, part)
            taken.setdefault(part.path, []).append((part.begin_s, part.begin_s + entry.length / view.fps, where))
    for path, parts in taken.items():
        ordered = sorted(parts)
        for (_, end_s, one), (begin_s, _, other) in pairwise(ordered):
            facts.check(
                "video_overlap", begin_s >= end_s - 0.5 / view.fps, path, f"{one} and {other} both take the picture at {begin_s:.4g} s"
            )
    stated = picture_size(view.features[key])
    for path in dict.fromkeys(e.films[key].path for e in view.entries if key in e.films):
        scan = view.films.get(path)
        if scan is None or scan.error or not view.fps:
            continue
        is_rate = len(scan.times_s) < 3 or abs(scan.rate_hz / view.fps - 1) <= RATE_TOLERANCE
        facts.check(
            "video_rate", is_rate, path, f"the film runs at {scan.rate_hz:.6g} pictures a second, {layout.INFO} states {view.fps:g}"
        )
        if stated is not None:
            size = (scan.height, scan.width)
            facts.check("camera_shape", stated in (size, size[::-1]), path, f"pictures are {size}, {layout.INFO} states {stated}")
        _lengths(view, key, path, len(scan.times_s))


def _part(view: FolderView, entry: EpisodeEntry, key: str, part: FilmPart) -> None:
    where, begin = view.episode_id(entry.number), (part.begin_s or 0.0) * view.fps
    is_whole = abs(begin - round(begin)) <= START_TOLERANCE
    view.facts.check("video_start", is_whole, where, f"it begins in the film of {key} at frame {begin:.3f}, expected a whole frame")
    if part.end_s is not None:
        length = part.end_s * view.fps - begin
        same = abs(length - entry.length) <= START_TOLERANCE
        view.facts.check("video_start", same, where, f"it takes {length:.3f} frames of the film of {key} and has {entry.length} rows")


def _lengths(view: FolderView, key: str, path: str, pictures: int) -> None:
    """Pictures of a film against the rows of its episodes."""
    mine = [entry for entry in view.entries if key in entry.films and entry.films[key].path == path]
    rows = sum(entry.length for entry in mine)
    where = view.episode_id(mine[0].number) if len(mine) == 1 else path
    last = max((round((e.films[key].begin_s or 0.0) * view.fps) + e.length for e in mine), default=0)
    is_equal = pictures == rows or (pictures >= last and _has_removed(view))
    view.facts.check("video_frames", is_equal, where, f"the film has {pictures} pictures, its episodes have {rows} rows")


def _has_removed(view: FolderView) -> bool:
    return [entry.number for entry in view.entries] != list(range(len(view.entries)))


def _some(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values[:5]) + (" ..." if len(values) > 5 else "")
