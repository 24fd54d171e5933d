"""The controller's Prometheus metrics. One registry per controller, so that two in one process never mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.fleet.controller.rollout.state import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGauges:
    """What the gauges tell of an open rollout."""

    id: int
    status: str
    reached: int
    proposed: int


class FleetMetrics:
    """Counters and gauges of one controller."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.reports = Counter("actwright_fleet_reports", "Reports of cells, by what became of them.", ["result"], registry=registry)
        self.report_seconds = Histogram("actwright_fleet_report_seconds", "Time to answer a report.", buckets=_SECONDS, registry=registry)
        self.episodes = Counter("actwright_fleet_episodes", "Finished episodes that were put on record.", registry=registry)
        self.cells = Gauge("actwright_fleet_cells", "Cells by what they last reported.", ["state"], registry=registry)
        self.look_seconds = Histogram(
            "actwright_fleet_look_seconds", "Time of one look at all rollouts.", buckets=_SECONDS, registry=registry
        )
        self.rollouts = Gauge("actwright_fleet_open_rollouts", "Rollouts that are running or paused.", ["status"], registry=registry)
        self.reached = Gauge("actwright_fleet_rollout_reached_cells", "Cells that report the new release.", ["rollout"], registry=registry)
        self.told = Gauge(
            "actwright_fleet_rollout_proposed_cells", "Cells that the new release is proposed to.", ["rollout"], registry=registry
        )
        self.ended = Counter("actwright_fleet_rollouts_ended", "Rollouts that ended, by how.", ["status"], registry=registry)
        self.kills = Gauge("actwright_fleet_kills_in_force", "Kills that are not released.", registry=registry)
        self.failures = Counter("actwright_fleet_failures", "Looks and reports that failed here.", ["where"], registry=registry)

    def set_gauges(self, cells: Mapping[str, int], kills: int, rollouts: Sequence[OpenGauges]) -> None:
        """Set what is read from the tables. cells: state -> how many. rollouts: the open ones; the gauges of others are taken out."""
        for state, count in cells.items():
            self.cells.labels(state).set(count)
        self.kills.set(kills)
        for status in Status:
            if status.is_open:
                self.rollouts.labels(status.value).set(sum(one.status == status.value for one in rollouts))
        self.reached.clear()
        self.told.clear()
        for one in rollouts:
            self.reached.labels(str(one.id)).set(one.reached)
            self.told.labels(str(one.id)).set(one.proposed)

    def text(self) -> str:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()
