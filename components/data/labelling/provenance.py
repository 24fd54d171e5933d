"""Where each label came from: who or what labelled it, with which weights, prompt and parameters, and who reviewed it.

    out/provenance.json              records by number, and of each episode and kind the ranges of frames that a record labelled
    out/points/points-00000.parquet  per frame: the gripper point in pixels, its confidence, whether it abstained and why

An annotator that knows more than its version says so in an attribute `provenance`: a mapping of plain values, such as "weights", "prompt"
and "reviewer". The frames that a person corrected (`GripperTrack.by_T`) have a record of their own that names the reviewer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from components.data.labelling.traces import RefinedTrack
from components.data.labels import EPISODES_PER_FILE
from model_core.spec.files import atomic_write

KINDS = ("depth", "points")


def record_of(annotator: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an annotator's labels. parameters: what was done with its answers."""
    stated: Mapping[str, Any] = getattr(annotator, "provenance", {})
    known = {"annotator": annotator.version, "model": "", "weights": "", "prompt": "", "reviewer": ""}
    return {**known, **{str(name): value for name, value in stated.items()}, "parameters": dict(parameters)}


@dataclass(slots=True)
class ProvenanceTable:
    """Records, and which frames of which episode are whose."""

    records: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    episodes: dict[str, dict[str, list[list[int]]]] = field(default_factory=dict[str, dict[str, list[list[int]]]])

    def number(self, record: dict[str, Any]) -> int:
        """The number of a record, which it gets once."""
        if record not in self.records:
            self.records.append(record)
        return self.records.index(record)

    def add(self, episode_id: str, kind: str, numbers_T: Sequence[int]) -> None:
        """Say whose each frame's label of this kind is, by the number of a record."""
        ranges, first = list[list[int]](), 0
        for number, group in groupby(numbers_T):
            length = sum(1 for _ in group)
            ranges.append([first, first + length, number])
            first += length
        self.episodes.setdefault(episode_id, {})[kind] = ranges

    def write(self, path: Path) -> None:
        """Write the document."""
        document = {"format": 1, "records": self.records, "episodes": self.episodes}
        atomic_write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")


def provenance_of(document: Mapping[str, Any], episode_id: str, kind: str, frame: int) -> Mapping[str, Any]:
    """The record of one label, from the document. Raises `KeyError` where there is no such label."""
    for first, stop, number in document["episodes"][episode_id][kind]:
        if first <= frame < stop:
            return document["records"][number]
    raise KeyError(f"{episode_id} has no {kind} label of frame {frame}")


def write_points(folder: Path, tracks: Mapping[str, RefinedTrack]) -> None:
    """Write the gripper points of all labelled episodes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.rmtree(folder, ignore_errors=True)
    waiting, number = iter(tracks.items()), 0
    while part := dict(islice(waiting, EPISODES_PER_FILE)):
        columns: dict[str, Any] = {
            "episode_id": pa.array([name for name, track in part.items() for _ in track.unsure_T], pa.string()),
            "frame_index": pa.array(np.concatenate([np.arange(len(track.unsure_T)) for track in part.values()]), pa.int64()),
        }
        for name, values in (
            ("x", [track.track.points_T2[:, 0] for track in part.values()]),
            ("y", [track.track.points_T2[:, 1] for track in part.values()]),
            ("is_visible", [track.track.visible_T for track in part.values()]),
            ("confidence", [track.track.confidence_T for track in part.values()]),
            ("is_unsure", [track.unsure_T for track in part.values()]),
            ("is_outlier", [track.outlier_T for track in part.values()]),
        ):
            columns[name] = pa.array(np.concatenate(values))
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        atomic_write(folder / f"points-{number:05d}.parquet", sink.getvalue().to_pybytes(), durable=False)
        number += 1
