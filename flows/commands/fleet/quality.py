"""`actwright fleet quality`: how each cell and task does in production, and alarms with a stated budget of false ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.config.ports import Tracker
    from components.deployment.quality.summary import CellTask
    from components.deployment.quality.watch import Alarm


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOptions:
    """Which audits are judged, and what becomes of an alarm."""

    audits: Annotated[Path, typer.Argument(help="folder of audits, of one cell or of many", metavar="FOLDER", exists=True, file_okay=False)]
    reference: Annotated[int, typer.Option(help="first trials of a cell and task that are its quiet time", min=10)] = 50
    month: Annotated[int, typer.Option(help="trials of a cell and task in a month, at most", min=1)] = 2000
    false_alarms: Annotated[
        float, typer.Option(help="probability of any false alarm in a month, over all cells, tasks and measures", min=1e-6, max=0.5)
    ] = 0.01
    propose: Annotated[str, typer.Option(help="recipe whose retraining is proposed where there is an alarm", metavar="RECIPE")] = ""
    record: Annotated[bool, typer.Option("--record", help="record it as a run of MLflow")] = False
    textfile: Annotated[
        Path | None, typer.Option(help="file for the textfile collector of Prometheus' node exporter, NAME.prom", metavar="FILE")
    ] = None


@from_options(QualityOptions)
def quality_command(options: QualityOptions) -> None:
    """Show how each cell and task does by its audits, and raise an alarm where that has changed since its quiet time.

    Watched are failures, interventions, holds, refusals, and whether depth, trace and actions are where they were. The probability of any
    false alarm in a month is at most --false-alarms, whatever the rates of the quiet time are. With --propose an alarm becomes a proposal
    to retrain that names the episodes that caused it; a person approves it (`actwright approve`). With --textfile the same numbers are
    written as gauges, which the panels of infra/monitoring/fleet.dashboard.json show.

    Example: actwright fleet quality audit
    Example: actwright fleet quality audit --propose loop --record
    """
    from components.deployment.quality.episodes import read_folder
    from components.deployment.quality.summary import summary_of
    from components.deployment.quality.watch import WatchSettings, alarms_of, streams_of

    settings = WatchSettings(reference=options.reference, month=options.month, false_alarms=options.false_alarms)
    episodes = read_folder(options.audits)
    summary = summary_of(episodes)
    streams = streams_of(episodes, settings)
    alarms = alarms_of(streams, settings)
    for line in _lines(summary, alarms, len(streams)):
        print_line(line)
    proposal = _proposed(options.propose, alarms) if options.propose and alarms else ""
    if options.record:
        _recorded(summary, alarms)
    if options.textfile:
        from components.deployment.quality.gauges import write_gauges

        write_gauges(options.textfile, summary, streams, alarms)
    print_result(
        episodes=len(episodes),
        streams=len(streams),
        alarms=[{"cell": one.cell, "task": one.task, "measure": one.measure, "episodes": list(one.episodes)} for one in alarms],
        proposal=proposal,
    )


def _lines(summary: Sequence[CellTask], alarms: Sequence[Alarm], streams: int) -> list[str]:
    lines = [one.sentence for one in summary]
    lines += [f"ALARM {one.sentence}; {len(one.episodes)} episodes, the first {one.paths[0]}" for one in alarms]
    return [*lines, f"{streams} streams are watched, {len(alarms)} alarms"]


def _proposed(name: str, alarms: Sequence[Alarm]) -> str:
    from components.deployment.quality.proposal import proposal_of
    from flows.pipeline.recipes import get_recipe
    from flows.pipeline.retrain import book_of
    from flows.platform.wiring import open_platform

    proposal = proposal_of(get_recipe(name), alarms)
    assert proposal is not None  # there are alarms
    written = book_of(open_platform()).propose(proposal)
    print_line(f"proposed: actwright approve {written.proposal_id}")
    return written.proposal_id


def _recorded(summary: Sequence[CellTask], alarms: Sequence[Alarm]) -> None:
    from components.config.ports import Metric
    from flows.platform.wiring import open_platform

    tracker: Tracker = open_platform().tracker()
    tracker.start_run("quality", {"cells": len({one.cell for one in summary}), "alarms": len(alarms)}, {"kind": "quality"})
    for one in summary:
        where = f"{one.cell}/{one.task}".replace(" ", "_")
        tracker.log_metrics([Metric(key=f"{where}/{name}", value=value, step=one.trials) for name, value in one.rates.items()])
    tracker.log_text("alarms.txt", "\n".join(alarm.sentence for alarm in alarms) + "\n")
    tracker.finish()
