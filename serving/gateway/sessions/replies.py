"""The messages that answer an OBSERVE: a CHUNK for the engine's result, a PART for one of its fields, a REJECT for a refusal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model_core.spec.protocol.wire import Chunk, Observe, Part, Reject
from model_core.spec.types import DepthTokens, RefusalCode, Trace
from serving.gateway.inference.pending_request import Guidance, PendingResult
from serving.gateway.inference.served_model import ServedModel


def rejection(observe: Observe, code: RefusalCode, reason: str, *, retryable: bool = True) -> Reject:
    """A REJECT that echoes `observe`."""
    return Reject(session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq, code=code, reason=reason[:4000], retryable=retryable)


def chunk_id_of(observe: Observe) -> str:
    """Identifier of the chunk that answers `observe`."""
    return f"{observe.session_id[:8]}-{observe.epoch}-{observe.seq}"


def chunk_of(
    observe: Observe,
    result: PendingResult,
    model: ServedModel,
    guidance: Guidance,
    flags: tuple[str, ...],
    extra_ms: Mapping[str, float],
) -> Chunk:
    """The CHUNK for a result that is no refusal. flags: beside those of the guidance. extra_ms: beside the model's own times."""
    decision = result.decision
    assert decision.chunk is not None  # a Decision is a chunk or a refusal, and refusals become REJECT messages
    chunk, reasoning = decision.chunk, decision.reasoning
    level = decision.level or result.level
    timing = {f"model.{name}": float(ms) for name, ms in decision.timing_ms.items()}
    return Chunk(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        chunk_id=chunk_id_of(observe),
        contract_id=model.contract_id,
        model_version=model.model_version,
        actions_KA=np.ascontiguousarray(chunk.actions_KA, np.float32),
        control_hz=chunk.control_hz,
        expires_ms=1e3 * len(chunk.actions_KA) / chunk.control_hz,
        depth_codes_G=None if reasoning is None or reasoning.depth is None else np.asarray(reasoning.depth.codes_G, np.int64),
        trace_N2=None if reasoning is None or reasoning.trace is None else np.asarray(reasoning.trace.points_N2, np.int64),
        timing_ms={**timing, "queue": result.queue_ms, "model": result.model_ms, **extra_ms},
        batch=result.batch,
        level=level,
        bundle_digest=model.bundle_digest,
        committed=0 if observe.committed_DA is None else len(observe.committed_DA),
        flags=(*guidance.flags, *flags, *((f"level:{level}",) if result.cheaper else ())),
        guard={name: float(value) for name, value in decision.guard.items()},
        counts={name: int(value) for name, value in decision.counts.items()},
        applied_revision=guidance.applied_revision,
        novelty=None if result.novelty is None else result.novelty.taken(),
    )


def part_of(observe: Observe, name: str, value: DepthTokens | Trace) -> Part:
    """The PART for one predicted field."""
    return Part(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        field=name,
        depth_codes_G=np.asarray(value.codes_G, np.int64) if isinstance(value, DepthTokens) else None,
        trace_N2=np.asarray(value.points_N2, np.int64) if isinstance(value, Trace) else None,
    )
