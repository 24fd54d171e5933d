"""One audited episode as a row: how it came out, how often the cell held, was refused or had help, and what the model predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.audit_files import read_audit
from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile
from model_core.spec.files import atomic_target
from model_core.spec.types import TRACE_MAX_POINTS, StopReason

_CODE_BINS = 128
_STANDING = {"HOLD", "SAFE_STOP"}
_BAD = {"refused", "late", "dropped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeQuality:
    """held, refused, clipped: shares, of control steps, decisions and control steps. interventions: how often a person acted.

    is_trial: False where the robot failed or nothing was executed; such an episode says nothing of the policy. depth: share of each code
    over its decisions; trace: mean points (x, y) of 0..255; action: mean and spread of each dimension, as shares of its range. () where the
    model predicts none. wall_ns: when it began.
    """

    path: str
    cell: str
    task: str
    episode_id: str
    model_version: str
    bundle_digest: str
    wall_ns: int
    is_trial: bool
    success: bool
    stop_reason: str
    held: float
    refused: float
    clipped: float
    interventions: int
    depth: tuple[float, ...] = ()
    trace: tuple[float, ...] = ()
    action: tuple[float, ...] = ()


def quality_of(found: AuditFile) -> EpisodeQuality:
    """The row of one audit file, as far as its chain holds; an episode without an end is no trial."""
    begin = found.of(Kind.BEGIN)[0].body if found.of(Kind.BEGIN) else {}
    end = found.of(Kind.END)[0].body if found.of(Kind.END) else {}
    decisions, executed = [r.body for r in found.of(Kind.DECISION)], [r.body for r in found.of(Kind.EXECUTED)]
    helped = [r.body for r in found.of(Kind.EVENT) if r.body.get("event") == "intervention" and (r.body.get("detail") or {}).get("text")]
    chunks = [body["chunk"] for body in decisions if body.get("chunk")]
    reason = str(end.get("stop_reason", ""))
    return EpisodeQuality(
        path=str(found.path),
        cell=str(begin.get("cell", "")),
        task=str(begin.get("task", "")),
        episode_id=str(begin.get("episode_id", "")),
        model_version=str(begin.get("model_version", "")),
        bundle_digest=str(begin.get("bundle_digest", "")),
        wall_ns=int(begin.get("wall_ns") or 0),
        is_trial=bool(end) and bool(executed) and reason != StopReason.ENV_ERROR.value,
        success=bool(end.get("success", False)),
        stop_reason=reason,
        held=_share(body.get("mode") in _STANDING for body in executed),
        refused=_share(body.get("outcome") in _BAD for body in decisions),
        clipped=_share(bool(body.get("clipped")) for body in executed),
        interventions=len(helped),
        depth=_depth(chunks),
        trace=_trace(chunks),
        action=_action(chunks, found.contract),
    )


def read_folder(folder: Path) -> list[EpisodeQuality]:
    """Every audited episode below a folder, oldest first. A file that was read before is not read again: see `quality.parquet` in it."""
    table = folder / "quality.parquet"
    known = {row.path: row for row in _read_table(table)}
    files = sorted(folder.glob("**/[0-9]*-*.mcap"))
    rows = [known.get(str(path)) or quality_of(read_audit(path)) for path in files]
    ended = [row for row in rows if row.stop_reason]  # a file that is still being written is read again
    if {row.path for row in ended} != set(known):
        write_table(table, ended)
    return sorted(rows, key=lambda row: (row.wall_ns, row.path))


def write_table(path: Path, rows: Sequence[EpisodeQuality]) -> None:
    """Write rows as Parquet, a column for each field."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_target(path, durable=False) as part:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), part)


def _read_table(path: Path) -> list[EpisodeQuality]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, OSError):
        return []
    names = {one.name for one in fields(EpisodeQuality)}
    if any(set(row) != names for row in found):  # of another version: made again
        return []
    return [_of_table(row) for row in found]


def _of_table(row: dict[str, Any]) -> EpisodeQuality:
    vectors: dict[str, Any] = {name: tuple(row[name] or ()) for name in ("depth", "trace", "action")}
    return EpisodeQuality(**{**row, **vectors})


def _share(claims: Any) -> float:
    values = [bool(claim) for claim in claims]
    return sum(values) / len(values) if values else 0.0


def _depth(chunks: Sequence[Any]) -> tuple[float, ...]:
    codes = [np.asarray(chunk["depth_codes_G"], np.int64) for chunk in chunks if chunk.get("depth_codes_G")]
    if not codes:
        return ()
    counts = np.bincount(np.clip(np.concatenate(codes), 0, _CODE_BINS - 1), minlength=_CODE_BINS)
    return _rounded(counts / counts.sum())


def _trace(chunks: Sequence[Any]) -> tuple[float, ...]:
    lines = [np.asarray(chunk["trace_N2"], np.float64) for chunk in chunks if chunk.get("trace_N2")]
    if not lines:
        return ()
    # a short line stays at its last point
    whole = [np.concatenate([line, np.repeat(line[-1:], TRACE_MAX_POINTS - len(line), axis=0)]) for line in lines]
    return _rounded(np.mean(whole, axis=0).ravel())


def _action(chunks: Sequence[Any], contract: Any) -> tuple[float, ...]:
    dims = ((contract.get("embodiment") or {}).get("action") or {}).get("dims") or []
    rows = [np.asarray(chunk["actions_KA"], np.float64) for chunk in chunks if chunk.get("actions_KA")]
    rows = [row_KA for row_KA in rows if row_KA.ndim == 2 and row_KA.shape[1] == len(dims)]
    if not rows or not dims:
        return ()
    low, high = (np.array([float(dim[end]) for dim in dims]) for end in ("low", "high"))
    shares = (np.concatenate(rows) - low) / (high - low)
    return _rounded(np.concatenate([shares.mean(axis=0), shares.std(axis=0)]))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
