"""The controller's Prometheus metrics. One registry per controller, so that two in one process never mix."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


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

    def text(self) -> str:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()
