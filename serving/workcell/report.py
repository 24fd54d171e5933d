"""What a cell did, in one JSON document that is always whole: rewritten after every episode."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from model_core.spec.files import atomic_write
from model_core.spec.types import StopReason
from serving.workcell.audit.live_feed import percentile
from serving.workcell.control.realtime_cell import RealtimeCell
from serving.workcell.control.results import EpisodeResult
from serving.workcell.link.interface import Link


def cell_report(
    cell: str,
    task: str,
    results: Sequence[EpisodeResult],
    link: Link,
    *,
    refused_to_move: str = "",
    cell_now: RealtimeCell | None = None,
) -> dict[str, object]:
    """Counts and latencies over all episodes so far. p50_ms, p99_ms: from asking to having a chunk. flags: so many chunks came with each.

    cell_now: adds what its envelope clipped and refused, and how its chunks were joined.
    """
    tally, ready = link.tally, link.ready
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
        "flags": dict(sorted(tally.flags.items())),
        "model_version": "" if ready is None else ready.model_version,
        "contract_id": "" if ready is None else ready.contract.contract_id,
        "refused_to_move": refused_to_move,
        "torch_loaded": "torch" in sys.modules,
        "stretches": sum(r.stretches for r in results),
        **_of_the_cell(cell_now),
        "rows": [asdict(r) for r in results],
    }


def _of_the_cell(cell: RealtimeCell | None) -> dict[str, object]:
    if cell is None:
        return {}
    scheduler, link = cell.scheduler, cell.link
    return {
        "envelope_refused": dict(cell.envelope.tally.refused),
        "envelope_clips": dict(cell.envelope.tally.clips),
        "strategy": scheduler.settings.strategy,
        "mode": cell.machine.mode.value,
        "schedule": {
            "installed": scheduler.tally.installed,
            "overtaken": scheduler.tally.overtaken,
            "outdated": scheduler.tally.outdated,
            "prefix_broken": scheduler.tally.prefix_broken,
            "bent": scheduler.tally.bent,
            "starved": scheduler.tally.starved,
            "delay_p50_rows": percentile(scheduler.tally.delays, 0.5),
            "delay_p99_rows": percentile(scheduler.tally.delays, 0.99),
        },
        "link": {"dropped": dict(link.tally.dropped), "cuts": dict(link.tally.cuts), "replaced": link.tally.replaced},
    }


def write_report(path: Path, report: dict[str, object]) -> None:
    """Write the report beside and move it into place: a reader never sees half of it."""
    atomic_write(path, json.dumps(report, indent=1, sort_keys=True) + "\n", durable=False)
