"""What a cell did, in one JSON document that is always whole: rewritten after every episode."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from model_core.spec.types import StopReason
from serving.workcell.client import PolicyClient
from serving.workcell.results import EpisodeResult


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of `values` do not exceed (nearest rank); 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def cell_report(
    cell: str, task: str, results: Sequence[EpisodeResult], client: PolicyClient, *, refused_to_move: str = ""
) -> dict[str, object]:
    """Counts and latencies over all episodes so far. p50_ms, p99_ms: from asking to having a chunk."""
    tally, ready = client.tally, client.ready
    trials = [r for r in results if r.stop_reason is not StopReason.ENV_ERROR]  # a robot that broke tried nothing
    return {
        "cell": cell,
        "task": task,
        "episodes": len(trials),
        "successes": sum(r.success for r in trials),
        "robot_failures": len(results) - len(trials),
        "decisions": sum(r.decisions for r in results),
        "refusals": sum(r.refusals for r in results),
        "holds": sum(r.holds for r in results),
        "p50_ms": percentile(tally.latency_ms, 0.50),
        "p99_ms": percentile(tally.latency_ms, 0.99),
        "late_dropped": tally.late_dropped,
        "connections": tally.connections,
        "refusals_by_code": dict(sorted(tally.refusals.items())),
        "model_version": "" if ready is None else ready.model_version,
        "contract_id": "" if ready is None else ready.contract.contract_id,
        "refused_to_move": refused_to_move,
        "torch_loaded": "torch" in sys.modules,
        "rows": [asdict(r) for r in results],
    }


def write_report(path: Path, report: dict[str, object]) -> None:
    """Write the report beside and move it into place: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)
