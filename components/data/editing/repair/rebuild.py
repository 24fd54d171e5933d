"""Write a whole LeRobot v3.0 folder of what was kept of a broken one: rows renumbered, films as they were, meta/ made again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.artifacts.new_folder import new_folder
from components.config.records import Progress
from components.data.editing.parameters import Repair
from components.data.editing.repair.evidence import Evidence, Film, read_evidence
from components.data.editing.repair.plan import Kept, plan
from components.data.export.lerobot_v30 import write_json, write_task_table
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader, dataset_digest
from components.data.lerobot.statistics import picture_histogram, picture_statistics, vector_statistics
from components.data.lerobot.tables import is_number, to_numpy
from components.data.lerobot.video import LOSSLESS, VideoReader, VideoWriter
from model_core.spec.errors import DatasetError

Histograms = list[dict[str, NDArray[np.int64]]]  # of each kept episode: camera key -> how often its frames have each value
_INDICES = ("episode_index", "frame_index", "index", "task_index", "timestamp")


def repair_again(root: Path, target: Path, progress: Progress) -> Repair:
    """`repair`; a folder at `target` that holds what it makes of `root` stays. Raises `DatasetError` for any other folder there."""
    if not target.exists():
        return repair(root, target, progress)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as beside:
        made = repair(root, Path(beside) / target.name, progress)
    if made.result != dataset_digest(target):
        raise DatasetError(f"{target} is there already and holds something else; it is never written into. Fix: name a new folder")
    return made


def repair(root: Path, target: Path, progress: Progress) -> Repair:
    """Rebuild `root` into the new folder `target`. Every kept frame is decoded, and the result is read back before it appears.

    Raises `DatasetError` where nothing can be rebuilt.
    """
    evidence = read_evidence(root)
    kept, histograms = _readable(evidence, plan(evidence), progress)
    if not kept:
        reasons = "; ".join(evidence.account.given_up) or "no episode has rows and frames"
        raise DatasetError(f"{root.name}: nothing can be rebuilt ({reasons}). Fix: record it again")
    with new_folder(target) as folder:
        rows = _write_rows(folder, evidence, kept)
        for key in evidence.films:
            _write_films(folder, evidence, key, kept, rows)
        tasks = {task: number for number, task in enumerate(dict.fromkeys(one.task for one in kept))}
        _describe(folder, evidence, kept, histograms, rows, tasks)
        reader = DatasetReader(folder)
        try:
            frames = sum(row.length for row in reader.rows)
            for row in reader.rows:
                reader.episode(row.index)
                progress.update(len(kept) + row.index + 1, 2 * len(kept), f"reading back episode {row.index}")
        finally:
            reader.close()
        digest = dataset_digest(folder)
    account = evidence.account
    if layout.is_one_file_an_episode(evidence.info):
        account.restored.append("the result has the layout of LeRobot v3.0; its films are those of the old folder")
    told = {"restored": tuple(account.restored), "given_up": tuple(account.given_up)}
    return Repair(result=digest, path=str(target), episodes=len(kept), frames=frames, **told)


def _readable(evidence: Evidence, kept: list[Kept], progress: Progress) -> tuple[list[Kept], Histograms]:
    """Those of the episodes whose frames can all be decoded, and what their statistics are made of."""
    found: list[Kept] = []
    histograms: Histograms = []
    for place, one in enumerate(kept):
        try:
            films = one.films.items()
            counted = {key: _histogram(_frames(evidence, film, start, len(one.rows_T))) for key, (film, start) in films}
        except DatasetError as error:
            evidence.account.given_up.append(f"episode {one.number}: {len(one.rows_T)} rows, {error}")
        else:
            found.append(one)
            histograms.append(counted)
        progress.update(place + 1, 2 * len(kept), f"reading the frames of episode {one.number}")
    return found, histograms


def _histogram(frames_THW3: NDArray[np.uint8]) -> NDArray[np.int64]:
    return picture_histogram(frames_THW3, sample=len(frames_THW3))


def _frames(evidence: Evidence, film: Film, start: int, count: int) -> NDArray[np.uint8]:
    reader = VideoReader(film.path, evidence.fps)
    try:
        return reader.read(start, count)
    finally:
        reader.close()


def _write_rows(folder: Path, evidence: Evidence, kept: list[Kept]) -> list[dict[str, Any]]:
    """One data file; gives the rows of meta/episodes without films and statistics."""
    path = folder / layout.DATA_PATH.format(**layout.place(0))
    path.parent.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    sentences = list(dict.fromkeys(one.task for one in kept))
    writer, start = None, 0
    for number, one in enumerate(kept):
        table, length = evidence.table.take(one.rows_T), len(one.rows_T)
        steps = np.arange(length, dtype=np.int64)
        changed: Mapping[str, NDArray[Any]] = {
            "episode_index": np.full(length, number, np.int64),
            "frame_index": steps,
            "index": steps + start,
            "task_index": np.full(length, sentences.index(one.task), np.int64),
            "timestamp": (steps / evidence.fps).astype(np.float32),
        }
        for name, values in changed.items():
            array = pa.array(values)
            place = table.column_names.index(name) if name in table.column_names else -1
            table = table.append_column(name, array) if place < 0 else table.set_column(place, name, array)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table)
        row: dict[str, Any] = {"episode_index": number, "tasks": [one.task], "length": length}
        row |= {f"data/{name}": value for name, value in layout.place(0).items()}
        row |= {"dataset_from_index": start, "dataset_to_index": start + length}
        for name in table.column_names:
            if is_number(table.schema.field(name).type):
                found = vector_statistics(to_numpy(table[name], name))
                row |= {f"stats/{name}/{key}": value for key, value in found.items()}
        rows.append(row)
        start += length
    if writer is not None:
        writer.close()
    return rows


def _write_films(folder: Path, evidence: Evidence, key: str, kept: list[Kept], rows: list[dict[str, Any]]) -> None:
    """Copy each film whose frames are all used, in order; the others are written again without the frames that have no rows, lossless."""
    fps, number = evidence.fps, 0
    for film in evidence.films[key]:
        mine = [(place, one) for place, one in enumerate(kept) if one.films[key][0] is film]
        if not mine:
            continue
        path = folder / layout.VIDEO_PATH.format(video_key=key, **layout.place(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        starts = np.cumsum([0, *(len(one.rows_T) for _, one in mine)]).tolist()
        is_whole = starts[-1] == film.frames and [one.films[key][1] for _, one in mine] == starts[:-1]
        if is_whole:
            shutil.copyfile(film.path, path)
        else:
            _write_again(path, evidence, film, [(one.films[key][1], len(one.rows_T)) for _, one in mine])
            evidence.account.restored.append(
                f"{film.path.name} of {key}: written again, lossless, with the {starts[-1]} frames that have rows"
            )
        for (place, one), start in zip(mine, starts[:-1], strict=True):
            rows[place] |= {f"videos/{key}/{name}": value for name, value in layout.place(number).items()}
            end = start + len(one.rows_T)
            rows[place] |= {f"videos/{key}/from_timestamp": start / fps, f"videos/{key}/to_timestamp": end / fps}
        number += 1


def _write_again(path: Path, evidence: Evidence, film: Film, spans: list[tuple[int, int]]) -> None:
    writer: VideoWriter | None = None
    try:
        for start, count in spans:
            frames = _frames(evidence, film, start, count)
            height, width = frames.shape[1:3]
            writer = writer or VideoWriter(path, fps=round(evidence.fps), width=width, height=height, codec=LOSSLESS)
            writer.append(frames)
    finally:
        if writer is not None:
            writer.close()


def _describe(
    folder: Path, evidence: Evidence, kept: list[Kept], histograms: Histograms, rows: list[dict[str, Any]], tasks: Mapping[str, int]
) -> None:
    schema = evidence.table.schema
    columns = {name: to_numpy(evidence.table[name], name) for name in schema.names if is_number(schema.field(name).type)}
    order = np.concatenate([one.rows_T for one in kept])
    whole = pq.read_table(folder / layout.DATA_PATH.format(**layout.place(0)), columns=list(_INDICES))
    statistics = {name: vector_statistics(values[order]) for name, values in columns.items() if name not in _INDICES}
    statistics |= {name: vector_statistics(whole[name].to_numpy()) for name in _INDICES}
    for key in evidence.films:
        for row, counted in zip(rows, histograms, strict=True):
            row |= {f"stats/{key}/{name}": value for name, value in picture_statistics(counted[key], row["length"]).items()}
        statistics[key] = picture_statistics(np.sum([counted[key] for counted in histograms], axis=0), len(order))
    path = folder / layout.EPISODES_PATH.format(**layout.place(0))
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0} for row in rows]), path)
    write_task_table(folder / layout.TASKS, tasks)
    write_json(folder / layout.STATS, statistics)
    write_json(folder / layout.INFO, _info(evidence, kept, len(order), len(tasks)))


def _info(evidence: Evidence, kept: list[Kept], frames: int, tasks: int) -> dict[str, Any]:
    old = {name: value for name, value in evidence.info.items() if name not in ("total_videos", "total_chunks")}
    features = {
        name: feature
        for name, feature in evidence.info["features"].items()
        if name in evidence.table.column_names or name in evidence.films or name in _INDICES
    }
    return old | {
        "codebase_version": layout.CODEBASE_VERSION,
        "total_episodes": len(kept),
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": layout.CHUNKS_SIZE,
        "splits": {"train": f"0:{len(kept)}"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if evidence.films else None,
        "features": features,
    }
