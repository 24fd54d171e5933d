"""Open a LeRobot folder of any version and writer, whatever is wrong with it: what is there, and facts about what should not be so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.inspection.folder.content import FolderView
from components.data.inspection.folder.documents import read_card, read_description, read_sentences, read_statistics
from components.data.inspection.folder.entries import EpisodeEntry, read_episode_entries
from components.data.inspection.folder.facts import FactList
from components.data.inspection.folder.film_notes import told_by_notes
from components.data.inspection.folder.films import FilmScan, scan_film
from components.data.inspection.folder.structure import check_structure
from components.data.inspection.folder.table import RawTable, read_raw_table
from components.data.lerobot import layout
from components.data.lerobot.meta.info import is_camera
from components.data.lerobot.tables import read_json
from model_core.spec.contract import EmbodimentSpec, embodiment_from_json
from model_core.spec.errors import DatasetError, SpecError


def open_folder(root: Path, *, embodiment: EmbodimentSpec | None = None, films: bool = True, digests: bool = True) -> FolderView:
    """Read everything of `root` but its pictures. Raises `DatasetError` for a folder that is no data set at all.

    films: read the times of all pictures. digests: of their bytes too, which name what is measured of them where it is kept.
    """
    if not (root / layout.INFO).is_file():
        raise DatasetError(f"{root} has no {layout.INFO}; expected the folder of a LeRobot data set. Fix: name the folder that holds meta/")
    facts = FactList()
    info = read_description(root, facts)
    features: Mapping[str, Any] = info.get("features", {})
    cameras = tuple(key for key, feature in features.items() if is_camera(feature))
    entries = read_episode_entries(root, info, cameras, facts)
    table = read_raw_table(root, list(dict.fromkeys(entry.data for entry in entries)), facts)
    scans = _scans(root, entries, facts, digests=digests) if films else {}
    own = _extension(root, facts)
    view = FolderView(
        root=root,
        info=info,
        fps=float(info.get("fps") or 0.0),
        features=features,
        cameras=cameras,
        image_columns=tuple(key for key, f in features.items() if f["dtype"] == "image" and pa.types.is_struct(_kind(table, key))),
        entries=entries,
        table=table,
        sentences=read_sentences(root, info, facts),
        statistics=read_statistics(root),
        card=read_card(root),
        facts=facts,
        films=scans,
        rows_of=_rows_of(entries, table),
        ours=own[1],
        embodiment=embodiment or own[0],
    )
    check_structure(view)
    return view


def _kind(table: RawTable, key: str) -> pa.DataType:
    return table.others[key].type if key in table.others else pa.null()


def _scans(root: Path, entries: tuple[EpisodeEntry, ...], facts: FactList, *, digests: bool) -> dict[str, FilmScan]:
    found: dict[str, FilmScan] = {}
    for path in dict.fromkeys(part.path for entry in entries for part in entry.films.values()):
        if facts.check("file_missing", (root / path).is_file(), path, "the video file is missing"):
            found[path] = scan_film(root / path, digests=digests)
            facts.check("video_unreadable", not found[path].error, path, f"the video {found[path].error}")
            told = told_by_notes(found[path].notes)
            facts.check("film_notes", not told, path, f"the video notes {', '.join(told)}")
    return found


def _rows_of(entries: tuple[EpisodeEntry, ...], table: RawTable) -> dict[int, NDArray[np.int64]]:
    """The rows that say they are an episode's; where no column says so, those that meta/ gives it."""
    whose_N = table.columns.get("episode_index")
    if whose_N is None:
        return {e.number: np.arange(e.start, min(e.start + e.length, table.rows)) for e in entries if e.start is not None}
    order_N = np.argsort(whose_N, kind="stable")
    sorted_N = whose_N[order_N]
    places = [(e.number, np.searchsorted(sorted_N, e.number, "left"), np.searchsorted(sorted_N, e.number, "right")) for e in entries]
    return {number: np.sort(order_N[low:high]) for number, low, high in places if high > low}


def _extension(root: Path, facts: FactList) -> tuple[EmbodimentSpec | None, dict[int, Mapping[str, Any]]]:
    if not (root / layout.EXTENSION).is_file():
        return None, {}
    from components.data.lerobot.tables import read_table

    facts.look("file_unreadable")
    try:
        document = read_json(root / layout.EXTENSION).get("embodiment")
        rows = read_table(root / layout.EXTENSION_EPISODES).to_pylist()
        return (embodiment_from_json(document) if document else None), {int(row["episode_index"]): row for row in rows}
    except (DatasetError, SpecError, KeyError) as error:
        facts.add("file_unreadable", layout.EXTENSION, str(error))
        return None, {}
