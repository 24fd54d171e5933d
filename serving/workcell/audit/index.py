"""The index beside the audit files: one Parquet file an episode, a row for the episode and one for each decision.

    FOLDER/000012-button-950000.mcap
    FOLDER/index/000012-button-950000.parquet

Any Parquet reader opens the folder `index` as one table. The audit files are the source: an index can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model_core.spec.audit.format import SUFFIX, Kind
from model_core.spec.audit.reading import AuditFile
from model_core.spec.files import atomic_target

INDEX = "index"
_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
SCHEMA = pa.schema(
    [
        ("file", _TEXT),
        ("row", _TEXT),  # "episode" or "decision"
        ("n", _WHOLE),  # number of the record in the file; of an episode: how many records
        ("t", _REAL),  # seconds since the episode began; of an episode: its length
        ("cell", _TEXT),
        ("episode_id", _TEXT),
        ("task", _TEXT),
        ("instruction", _TEXT),
        ("strategy", _TEXT),
        ("seed", _WHOLE),
        ("model_version", _TEXT),
        ("bundle_digest", _TEXT),
        ("contract_id", _TEXT),
        ("session_id", _TEXT),
        ("epoch", _WHOLE),
        ("seq", _WHOLE),
        ("step", _WHOLE),
        ("chunk_id", _TEXT),
        ("level", _TEXT),
        ("outcome", _TEXT),  # of an episode: its stop reason
        ("code", _TEXT),
        ("answer_ms", _REAL),
        ("success", _FLAG),
        ("decisions", _WHOLE),
        ("executed", _WHOLE),
        ("frames", _WHOLE),
        ("lost_records", _WHOLE),
        ("sealed", _FLAG),
        ("tip", _TEXT),  # last link of the chain
        ("wall_ns", _WHOLE),
    ]
)
_SHARED = ("cell", "episode_id", "task", "instruction", "strategy", "seed", "model_version", "bundle_digest", "contract_id")


def index_path(audit_file: Path) -> Path:
    """Where the index of a file stands."""
    return audit_file.parent / INDEX / f"{audit_file.name.removesuffix(SUFFIX)}.parquet"


def write_index(audit_file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the index of one file, whole or not at all. Raises OSError."""
    with atomic_target(index_path(audit_file), durable=False) as part:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), part)


def decision_row(n: int, t: float, body: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a decision. n, t: number and time of its record; body: what the record holds."""
    return {
        "n": n,
        "t": t,
        **{name: body.get(name) for name in ("session_id", "epoch", "seq", "step", "level", "outcome", "code", "answer_ms")},
        "chunk_id": (body.get("chunk") or {}).get("chunk_id", ""),
    }


def rows_of(
    begin: Mapping[str, Any], end: Mapping[str, Any], decisions: Sequence[Mapping[str, Any]], whole: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of one file. begin, end: bodies of these records ({} where there is none); whole: file, n, t, counts, sealed, tip."""
    shared = {name: begin.get(name) for name in _SHARED} | {"file": whole["file"], "wall_ns": begin.get("wall_ns")}
    counts = whole.get("counts") or {}
    episode = {name: counts.get(name, 0) for name in ("decisions", "executed", "frames", "lost_records")}
    episode |= {"row": "episode", "n": whole["n"], "t": whole["t"], "sealed": whole["sealed"], "tip": whole["tip"]}
    episode |= {"outcome": end.get("stop_reason", ""), "success": end.get("success", False), "session_id": begin.get("session_id")}
    return [{**shared, **episode}, *({**shared, "row": "decision", **decision} for decision in decisions)]


def rows_from(found: AuditFile) -> list[dict[str, Any]]:
    """The rows of a file that was read back: of one whose recorder was killed."""
    begin, end, seal = found.of(Kind.BEGIN), found.of(Kind.END), found.of(Kind.SEAL)
    decisions = [decision_row(record.n, record.t, record.body) for record in found.of(Kind.DECISION)]
    known = {"decisions": len(decisions), "executed": len(found.of(Kind.EXECUTED)), "frames": len(found.frames)}
    counts = seal[0].body["counts"] if seal else known
    last = found.records[-1].t if found.records else 0.0
    whole = {"file": found.path.name, "n": len(found.records), "t": last, "counts": counts, "sealed": found.is_sealed, "tip": found.tip}
    return rows_of(begin[0].body if begin else {}, end[0].body if end else {}, decisions, whole)
