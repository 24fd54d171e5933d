"""What is wrong with a data set itself, whatever its episodes hold, and what it asks for."""

from __future__ import annotations

import numpy as np

from components.config.records import Finding
from components.data.inspection.body import inconsistencies
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.stale_statistics import stale_statistics


def dataset_findings(reader: DatasetReader) -> list[Finding]:
    """What is wrong with the set itself, whatever its episodes hold."""

    def finding(check: str, reason: str) -> Finding:
        return Finding(check=check, where=reader.root.name, reason=reason)

    if reader.table.num_rows != reader.frames or len(reader) != int(reader.info["total_episodes"]):
        counted = f"{len(reader)} episodes and {reader.table.num_rows} frames"
        stated = f"{reader.info['total_episodes']} and {reader.frames}"
        return [
            finding("counts", f"the files hold {counted}, info.json states {stated}; the set is incomplete. Fix: write or fetch it again")
        ]
    found = [finding("stale_statistics", f"{reason}. Fix: write the data set again") for reason in stale_statistics(reader)[:1]]
    found += inconsistencies(reader) + _made_up_times(reader)
    index_N = reader.column("index")
    if not np.array_equal(index_N, np.arange(len(index_N))):
        found.append(finding("index", "the frame index does not count 0, 1, 2 ...; files are missing or in the wrong order"))
    return found + [finding("column_aliasing", reason) for reason in _aliased(reader)]


def _made_up_times(reader: DatasetReader) -> list[Finding]:
    """Where the times that were measured stand in a column of ours, `timestamp` is made from the rate, as LeRobot's readers expect."""
    if layout.RECORDED not in reader.features or "frame_index" not in reader.features:
        return []
    timestamp_N, expected_N = reader.column("timestamp").astype(np.float64), reader.column("frame_index") / reader.fps
    wrong = np.flatnonzero(~(np.abs(timestamp_N - expected_N) <= 1e-4 + np.finfo(np.float32).eps * expected_N))
    if not wrong.size:
        return []
    row = int(wrong[0])
    reason = (
        f"timestamp of row {row} is {timestamp_N[row]:g}, expected frame_index / fps = {expected_N[row]:g}. Fix: write the data set again"
    )
    return [Finding(check="timestamps", where=reader.root.name, reason=f"{reason} ({wrong.size} rows differ)")]


def _aliased(reader: DatasetReader) -> list[str]:
    columns = {k: reader.column(k) for k in (layout.STATE, layout.ACTION, layout.TCP) if k in reader.features}
    names = sorted(columns)
    same = [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if columns[a].shape == columns[b].shape and columns[a].any() and np.array_equal(columns[a], columns[b])
    ]
    return [f"{a} and {b} hold the same numbers in every frame; one was written in place of the other" for a, b in same]


def asked_for(reader: DatasetReader) -> list[tuple[str, str]]:
    """Every (task, sentence) of the set; a sentence that stands twice in the task table counts as two tasks, which no episode shows."""
    texts = reader.instructions
    twice = [(f"task_index {number}", text) for number, text in enumerate(texts) if texts.count(text) > 1]
    return [*((row.task, row.instruction) for row in reader.rows), *twice]
