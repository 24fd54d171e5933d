"""Audit files on disk, as commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile, prove_audit
from model_core.spec.errors import DatasetError, SpecError


def read_audit(path: Path) -> AuditFile:
    """Read and prove one file. Raises `SpecError` when there is no such file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}. Fix: give an audit file, such as episode.mcap") from error
    return prove_audit(data, path)


def list_audits(folder: Path) -> list[dict[str, Any]]:
    """The episodes under a folder, oldest first: from their index, or from the file where a killed recorder left none.

    Raises DatasetError where there is nothing.
    """
    rows = [row for index in sorted(folder.glob("**/index/*.parquet")) for row in _episodes_of(index)]
    known = {row["path"] for row in rows}
    rows += [_row_of(read_audit(path)) for path in sorted(folder.glob("**/[0-9]*-*.mcap")) if str(path) not in known]
    if not rows:
        raise DatasetError(f"no audit under {folder}: expected a folder with *.mcap files")
    return sorted(rows, key=lambda row: (row["wall_ns"] or 0, row["path"]))


def audit_row(path: Path) -> dict[str, Any]:
    """What is known of the episode in one audit file: from its index, or from the file where it has none. Raises `SpecError`."""
    index = path.parent / "index" / f"{path.stem}.parquet"
    found = _episodes_of(index) if index.is_file() else []
    return found[0] if found else _row_of(read_audit(path))


def _episodes_of(index: Path) -> list[dict[str, Any]]:
    """The episodes of one index file; none where it is damaged or another program's: the audit file itself is read then."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(index).read().to_pylist()
        return [{**row, "path": str(index.parents[1] / row["file"])} for row in rows if row["row"] == "episode"]
    except (pa.ArrowException, OSError, KeyError):
        return []


def _row_of(found: AuditFile) -> dict[str, Any]:
    """What the index would say of an episode."""
    begin = found.records[0].body if found.records else {}
    end = found.of(Kind.END)[0].body if found.of(Kind.END) else {}
    shared = {name: begin.get(name) for name in ("cell", "episode_id", "task", "model_version", "contract_id", "wall_ns")}
    counts = {"decisions": len(found.of(Kind.DECISION)), "executed": len(found.of(Kind.EXECUTED)), "lost_records": 0}
    how = {"outcome": end.get("stop_reason", ""), "success": end.get("success", False), "sealed": found.is_sealed, "tip": found.tip}
    return {**shared, **counts, **how, "path": str(found.path), "t": found.records[-1].t if found.records else 0.0}
