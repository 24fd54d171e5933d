"""What the gateway counts, in Prometheus' words. One registry per gateway, so that two never mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and histograms of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ready = Gauge("actwright_ready", "1 when the golden probes passed and the model answers.", registry=self.registry)
        self.sessions = Gauge("actwright_sessions", "Open sessions.", registry=self.registry)
        self.queue = Gauge("actwright_queue_depth", "Requests that wait for the engine.", registry=self.registry)
        self.chunks = Counter("actwright_chunks", "Chunks served.", ["model_version"], registry=self.registry)
        self.rejects = Counter("actwright_rejects", "Requests refused, by code.", ["code"], registry=self.registry)
        self.batch = Histogram("actwright_batch_size", "Requests that shared a batch.", buckets=(1, 2, 4, 8, 16), registry=self.registry)
        self.stage = Histogram("actwright_stage_seconds", "Time of one stage.", ["stage"], buckets=_SECONDS, registry=self.registry)

    def text(self) -> str:
        """The exposition text."""
        return generate_latest(self.registry).decode()
