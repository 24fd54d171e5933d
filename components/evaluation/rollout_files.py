"""Files between the rollout processes and the evaluation: rows, recorded frames and the strips drawn from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from components.config.records import RolloutRow
from components.evaluation.rollout import Rollout, RolloutFrame
from model_core.spec.documents import from_document, to_document
from model_core.spec.files import atomic_write


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Seeds of one task that run side by side. strip_seeds: those of which a rollout strip is drawn."""

    task: str
    seeds: tuple[int, ...]
    strip_seeds: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """File name of the group's rows."""
        return f"{file_name(self.task)}-{self.seeds[0]}"


def file_name(task: str) -> str:
    """A task as one part of a path: a suite may call it "kitchen/open drawer". Two tasks never share a name."""
    return quote(task, safe=" ")


def rows_file(scratch: Path, group: Group) -> Path:
    """Where the rows of a group are kept until all groups are done."""
    return scratch / f"{group.name}.json"


def write_rows(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Keep the rows of a finished group, with the milliseconds of each decision."""
    rows = [{"row": to_document(rollout.row), "decide_ms": [round(ms, 3) for ms in rollout.decide_ms]} for rollout in rollouts]
    atomic_write(path, json.dumps(rows))


def write_frames(scratch: Path, rollout: Rollout) -> None:
    """Keep the frames of a recorded rollout, one file each."""
    folder = scratch / f"frames-{file_name(rollout.row.task)}-{rollout.row.seed}"
    for place, frame in enumerate(rollout.frames):
        folder.mkdir(exist_ok=True)
        frame.save(folder / f"{place:04d}.npz")


def read_frames(scratch: Path, row: RolloutRow) -> list[RolloutFrame]:
    """The frames of a recorded rollout, in order; none where none were recorded."""
    paths = sorted((scratch / f"frames-{file_name(row.task)}-{row.seed}").glob("*.npz"))
    return [RolloutFrame.load(path) for path in paths[: row.decisions]]


def collected(scratch: Path, groups: Sequence[Group]) -> tuple[list[RolloutRow], dict[str, Any]]:
    """All rows in the order of task and seed, and how long decisions took."""
    entries = [entry for group in groups for entry in json.loads(rows_file(scratch, group).read_text())]
    rows = sorted((from_document(RolloutRow, entry["row"]) for entry in entries), key=lambda row: (row.task, row.seed))
    times = np.array([ms for entry in entries for ms in entry["decide_ms"]] or [0.0])
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return rows, {"decide_ms": {"mean": float(times.mean()), "p50": float(p50), "p99": float(p99)}, "decisions": len(times)}
