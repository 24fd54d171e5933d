"""What the engine answered, as the message that a cell gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Chunk, Observe, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.inference.pending_request import Answer


class Answerer(Protocol):
    """Who answers."""

    @property
    def contract(self) -> PolicyContract:
        """The promise."""
        ...

    @property
    def contract_id(self) -> str:
        """Its name."""
        ...

    @property
    def model_version(self) -> str:
        """The model."""
        ...

    @property
    def bundle_digest(self) -> str:
        """The packed files, by digest."""
        ...


def rejection(observe: Observe, code: RefusalCode, reason: str, *, retryable: bool = True) -> Reject:
    """A REJECT that echoes `observe`."""
    return Reject(session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq, code=code, reason=reason[:4000], retryable=retryable)


def chunk_of(
    observe: Observe,
    chunk_id: str,
    answer: Answer,
    who: Answerer,
    flags: tuple[str, ...],
    applied_revision: int,
    extra_ms: Mapping[str, float],
) -> Chunk:
    """The CHUNK for an answer that is no refusal."""
    decision = answer.decision
    assert decision.chunk is not None  # a Decision is a chunk or a refusal, and refusals are told as such
    chunk, reasoning = decision.chunk, decision.reasoning
    level = decision.level or answer.level
    timing = {f"model.{name}": float(ms) for name, ms in decision.timing_ms.items()}
    return Chunk(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        chunk_id=chunk_id,
        contract_id=who.contract_id,
        model_version=who.model_version,
        actions_KA=np.ascontiguousarray(chunk.actions_KA, np.float32),
        control_hz=chunk.control_hz,
        expires_ms=1e3 * len(chunk.actions_KA) / chunk.control_hz,
        depth_codes_G=None if reasoning is None or reasoning.depth is None else np.asarray(reasoning.depth.codes_G, np.int64),
        trace_N2=None if reasoning is None or reasoning.trace is None else np.asarray(reasoning.trace.points_N2, np.int64),
        timing_ms={**timing, "queue": answer.queue_ms, "model": answer.model_ms, **extra_ms},
        batch=answer.batch,
        level=level,
        bundle_digest=who.bundle_digest,
        committed=0 if observe.committed_DA is None else len(observe.committed_DA),
        flags=flags + ((f"level:{level}",) if answer.cheaper else ()),
        guard={name: float(value) for name, value in decision.guard.items()},
        counts={name: int(value) for name, value in decision.counts.items()},
        applied_revision=applied_revision,
    )
