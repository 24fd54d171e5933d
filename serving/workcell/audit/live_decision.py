"""One decision, as people are shown it while the cell runs."""

from __future__ import annotations

from collections.abc import Mapping

from model_core.spec.live.view import LiveDecision, LiveSteering
from model_core.spec.protocol.wire import SteeringInput
from serving.workcell.audit.interface import DecisionMade


def live_decision(made: DecisionMade, number: int, taken_at: float) -> LiveDecision:
    """number: counts the decisions of this process. taken_at: when the pictures were taken, seconds since 1970."""
    chunk, installed = made.chunk, made.installed_KA
    actions_KA = installed if installed is not None else None if chunk is None else chunk.actions_KA
    counts = {} if chunk is None else chunk.counts
    return LiveDecision(
        number=number,
        seq=made.seq,
        step=made.step,
        outcome=made.outcome,
        taken_at=taken_at,
        latency_ms=1e3 * (made.answered_s - made.t_s),
        code=made.code,
        reason=made.reason[:300],
        level=made.level if chunk is None else chunk.level,
        flags=() if chunk is None else tuple(chunk.flags),
        stages={} if chunk is None else dict(chunk.timing_ms),
        drafted=_sum(counts, "drafted."),
        accepted=_sum(counts, "accepted."),
        trace=() if chunk is None or chunk.trace_N2 is None else tuple((int(x), int(y)) for x, y in chunk.trace_N2.tolist()),
        depth=() if chunk is None or chunk.depth_codes_G is None else tuple(chunk.depth_codes_G.tolist()),
        actions=() if actions_KA is None else tuple(map(tuple, actions_KA.tolist())),
        first_row=made.first_row,
        applied_revision=0 if chunk is None else chunk.applied_revision,
        steering=_steering(made, taken_at),
    )


def _sum(counts: Mapping[str, int], beginning: str) -> int:
    return sum(count for name, count in counts.items() if name.startswith(beginning))


def _steering(made: DecisionMade, taken_at: float) -> LiveSteering | None:
    drawn = made.steering
    if not isinstance(drawn, SteeringInput):
        return None
    return LiveSteering(
        revision=drawn.revision,
        author=drawn.author,
        camera=drawn.image,
        points=tuple((float(x), float(y)) for x, y in drawn.points_N2.tolist()),
        until=taken_at + drawn.ttl_ms / 1e3,
    )
