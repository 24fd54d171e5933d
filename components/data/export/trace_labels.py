"""Traces of a finished annotation as LeRobot's language column: a row of style `trace` for every frame and camera that was labelled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.data.labels import EpisodeLabels, read_labels
from components.data.lerobot.columns.language_traces import COLUMN, column_of, read_traces, trace_rows, with_rows
from components.data.lerobot.reader import DatasetReader
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class TraceLabels:
    """labels: camera -> episode id -> labels. unlabelled: ids of exported episodes that have none: their frames have no rows."""

    labels: Mapping[str, Mapping[str, EpisodeLabels]]
    unlabelled: list[str] = field(default_factory=list[str])

    def column(self, episode: Episode) -> pa.Array[Any]:
        """The column of one episode, whose images say how large its cameras are.

        Raises `DatasetError` where its labels are of another number of frames, or of a camera that it does not have.
        """
        rows: list[list[dict[str, Any]]] = [[] for _ in range(len(episode))]
        is_labelled = False
        for camera, by_episode in self.labels.items():
            if (found := by_episode.get(episode.episode_id)) is None:
                continue
            is_labelled = True
            if len(found) != len(episode):
                raise DatasetError(
                    f"episode {episode.episode_id} has {len(episode)} frames, its labels {len(found)}: they are of another version of it. "
                    "Fix: annotate this set, and name that result with --traces"
                )
            if camera not in episode.images:
                raise DatasetError(f"the labels are of camera {camera!r}, the set has {', '.join(episode.images)}. Fix: annotate this set")
            for own, more in zip(rows, trace_rows(found.trace_T52, camera, episode.images[camera].shape[1:3]), strict=True):
                own += more
        if not is_labelled:
            self.unlabelled.append(episode.episode_id)
        return with_rows(None, rows)

    def check(self, reader: DatasetReader, ids: list[str]) -> None:
        """Compare what was written with the labels. ids: of the exported episodes, in order. Raises `DatasetError` for a difference."""
        if len(self.unlabelled) == len(ids):
            raise DatasetError(
                f"none of {len(ids)} episodes is in the labels, for example {ids[0]!r}. Fix: name the result of annotating this set"
            )
        for row, episode_id in zip(reader.rows, ids, strict=True):
            column = column_of(reader, row.index)
            for camera, by_episode in self.labels.items():
                size = reader.picture_size(camera)
                if episode_id not in by_episode or size is None:
                    continue
                if not np.array_equal(read_traces(column, camera, size).trace_T52, by_episode[episode_id].trace_T52):
                    raise DatasetError(f"episode {episode_id}: traces of {camera!r} read back are not what was written. Fix: report it")

    def sentences(self) -> tuple[str, ...]:
        """What a person is told."""
        told = [f"traces of {', '.join(self.labels)} are in the column {COLUMN}, which readers before LeRobot's language columns refuse"]
        if self.unlabelled:
            told.append(f"{len(self.unlabelled)} episodes have no labels and so no traces, for example {self.unlabelled[0]}")
        return tuple(told)


def read_trace_labels(folder: Path) -> TraceLabels:
    """The traces of a finished annotation: data/annotate, or a step that made labels. Raises `DatasetError` for a folder that is none."""
    provenance = folder / "provenance.json"
    if not (folder / "labels").is_dir() or not provenance.is_file():
        raise DatasetError(
            f"{folder} is no finished annotation: expected labels/ and provenance.json in it. Fix: name data/annotate, or run "
            "`actwright data annotate` first"
        )
    cameras = {record["parameters"]["camera"] for record in json.loads(provenance.read_text(encoding="utf-8"))["records"]}
    if len(cameras) != 1:
        raise DatasetError(f"{provenance} names {len(cameras)} cameras for one set of labels, expected one. Fix: annotate again")
    labels = {cameras.pop(): read_labels(folder / "labels")}
    for further in sorted((folder / "cameras").glob("*/labels")):
        labels[further.parent.name] = read_labels(further)
    return TraceLabels(labels=labels)
