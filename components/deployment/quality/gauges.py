"""Quality in production as Prometheus gauges, in a file that the node exporter's textfile collector reads (Grafana's panels show them)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.deployment.quality.summary import CellTask
from components.deployment.quality.watch import Alarm, Stream
from model_core.spec.errors import SpecError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_OF_A_TASK = ("cell", "task", "model_version")


def quality_registry(summary: Sequence[CellTask], streams: Sequence[Stream], alarms: Sequence[Alarm]) -> CollectorRegistry:
    """The gauges: of each cell, task and model version, and of each watched measure of them."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def gauge(name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"actwright_quality_{name}", told, [*_OF_A_TASK, *labels], registry=registry)

    trials = gauge("trials", "Audited trials.")
    share = gauge(
        "share", "Share of trials, or its mean over them, by what: success, held, refused, clipped; interventions: a trial.", "what"
    )
    low = gauge("success_low", "Lower end of the exact 95 % interval of the success rate.")
    high = gauge("success_high", "Upper end of the exact 95 % interval of the success rate.")
    for one in summary:
        of = (one.cell, one.task, one.model_version)
        trials.labels(*of).set(one.trials)
        low.labels(*of).set(one.low)
        high.labels(*of).set(one.high)
        for what, value in one.rates.items():
            share.labels(*of, what).set(value)
    away = gauge("away_share", "Share of the trials after the quiet time in which a measure was not as in it.", "measure")
    quiet = gauge("quiet_share", "The largest such share that the quiet time allows.", "measure")
    alarm = gauge("alarm", "1 where a measure has raised an alarm, else 0.", "measure")
    raised = {(one.cell, one.task, one.model_version, one.measure) for one in alarms}
    for one in streams:
        of = (one.cell, one.task, one.model_version, one.measure)
        away.labels(*of).set(sum(one.values) / max(len(one.values), 1))
        quiet.labels(*of).set(one.quiet_rate)
        alarm.labels(*of).set(of in raised)
    return registry


def write_gauges(path: Path, summary: Sequence[CellTask], streams: Sequence[Stream], alarms: Sequence[Alarm]) -> None:
    """Replace the file whole. Raises `SpecError` for a name that the collector would not read, or a folder that is not there."""
    from prometheus_client import write_to_textfile

    if path.suffix != ".prom" or not path.parent.is_dir():
        raise SpecError(f"{path}: expected a file NAME.prom in the folder that the node exporter's textfile collector reads")
    write_to_textfile(str(path), quality_registry(summary, streams, alarms))
