"""The gateway's Prometheus metrics. One registry per gateway, so that two in one process never mix."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model_core.spec.protocol.wire import Chunk

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and histograms of one gateway."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.ready = Gauge("actwright_ready", "1 when the golden probes passed and the model answers.", registry=registry)
        names = ["model_version", "contract_id", "bundle_digest"]
        self.model = Gauge("actwright_model_info", "What is served, in labels; always 1.", names, registry=registry)
        self.draining = Gauge("actwright_draining", "1 while no new episode is begun.", registry=registry)
        self.sessions = Gauge("actwright_sessions", "Open sessions.", registry=registry)
        self.session_bytes = Gauge("actwright_session_bytes", "Bytes held for open sessions.", registry=registry)
        self.lease = Gauge("actwright_lease_remaining_seconds", "Shortest lease of all sessions.", registry=registry)
        self.reserved = Gauge("actwright_reserved_requests_per_second", "Requests a second promised to sessions.", registry=registry)
        self.queue = Gauge("actwright_queue_depth", "Requests that wait for the engine.", registry=registry)
        self.rows = Gauge("actwright_round_rows", "Requests that are being answered.", registry=registry)
        self.queue_age = Histogram("actwright_queue_age_seconds", "Wait before joining.", buckets=_SECONDS, registry=registry)
        self.chunks = Counter("actwright_chunks", "Chunks served.", ["model_version"], registry=registry)
        self.levels = Counter("actwright_levels", "Chunks served, by reasoning level.", ["level"], registry=registry)
        self.flags = Counter("actwright_flags", "Chunks with a flag (blank, frozen, level, ...), by its kind.", ["kind"], registry=registry)
        self.rejects = Counter("actwright_rejects", "Requests refused, by code.", ["code"], registry=registry)
        self.missed = Counter("actwright_deadline_misses", "Admitted requests that were not answered in time.", registry=registry)
        self.batch = Histogram("actwright_batch_size", "Requests that shared a block.", buckets=(1, 2, 4, 8, 16), registry=registry)
        self.stage = Histogram("actwright_stage_seconds", "Time of one stage.", ["stage"], buckets=_SECONDS, registry=registry)
        self.guard = Counter("actwright_guard_clips", "Values that the guard clipped to a limit.", ["dim"], registry=registry)
        buckets = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
        self.novelty = Histogram("actwright_novelty", "Novelty of the observations that were answered.", buckets=buckets, registry=registry)
        self.drafted = Counter("actwright_drafted_tokens", "Tokens proposed by drafts.", ["field"], registry=registry)
        self.accepted = Counter("actwright_accepted_tokens", "Drafted tokens that the model agreed with.", ["field"], registry=registry)
        self.restarts = Counter("actwright_engine_restarts", "Engines that were replaced.", registry=registry)
        self.throttled = Counter("actwright_throttled", "Requests refused because a cell asks too often.", registry=registry)
        self.kills = Gauge("actwright_kills", "Kills in force: of operators here and of the fleet's list.", registry=registry)
        help_text = "Until the fleet's offline rule is in force; -1 without a fleet."
        self.fleet_lease = Gauge("actwright_fleet_lease_remaining_seconds", help_text, registry=registry)
        help_text = "From a kill to the cell's word that it holds."
        self.kill_to_hold = Histogram("actwright_kill_to_hold_seconds", help_text, buckets=_SECONDS, registry=registry)
        self.shadow_compared = Counter("actwright_shadow_compared", "Decisions compared with the candidate's.", registry=registry)
        self.shadow_lost = Counter("actwright_shadow_lost", "Observations dropped, late or garbage.", ["why"], registry=registry)
        help_text = "Distance of the candidate's answer: action (share of the range), depth (its unit), trace (px)."
        buckets = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
        self.shadow_distance = Histogram("actwright_shadow_distance", help_text, ["measure"], buckets=buckets, registry=registry)
        # The library looks labels up by text and under a lock; these are looked up for every chunk.
        self._chunks_of, self._levels_of = functools.cache(self.chunks.labels), functools.cache(self.levels.labels)
        self._stage_of = functools.cache(self.stage.labels)

    def count_chunk(self, chunk: Chunk) -> None:
        """One chunk was served."""
        self._chunks_of(chunk.model_version).inc()
        self._levels_of(chunk.level).inc()
        self.batch.observe(chunk.batch)
        self.queue_age.observe(chunk.timing_ms.get("queue", 0.0) / 1e3)
        for stage, ms in chunk.timing_ms.items():
            self._stage_of(stage).observe(ms / 1e3)
        for flag in chunk.flags:
            self.flags.labels(flag.partition(":")[0]).inc()
        self._count_guard(chunk.guard)
        if chunk.novelty is not None:
            self.novelty.observe(chunk.novelty)
        for name, count in chunk.counts.items():
            kind, _, field = name.partition(".")
            counter = {"drafted": self.drafted, "accepted": self.accepted}.get(kind)
            if counter is not None and field:
                counter.labels(field).inc(count)

    def _count_guard(self, guard: Mapping[str, float]) -> None:
        for name, excess in guard.items():
            kind, _, dim = name.partition(".")
            if kind == "clipped" and dim and excess > 0:
                self.guard.labels(dim).inc()

    def text(self) -> str:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()
