"""A policy around a policy: what leaves it is finite, of the contract's shape and inside its limits, or is refused.

Nothing is repaired silently. A value at most `tolerance` (of the dimension's range) past a limit is a rounding of
the codec: it is clipped to the limit and reported in `Decision.guard`; anything further is a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec, PolicyContract
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.types import Decision, DecisionRequest, DecisionRound, Observation, Policy, Refusal, RefusalCode

TOLERANCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuardedRows:
    """What the guard made of a chunk: rows_KA (K, A) and what it clipped, or a refusal."""

    rows_KA: NDArray[np.float32]
    report: dict[str, float]
    refusal: Refusal | None = None


def guard_rows(actions_KA: NDArray[np.float32], body: EmbodimentSpec, chunk_length: int, *, tolerance: float = TOLERANCE) -> GuardedRows:
    """Check rows against a body's shape and limits. report: "clipped.<dim>" -> largest excess that was clipped."""
    spec = body.action

    def refused(code: RefusalCode, reason: str) -> GuardedRows:
        return GuardedRows(rows_KA=actions_KA, report={}, refusal=Refusal(code=code, reason=reason))

    if actions_KA.shape != (chunk_length, len(spec)):
        return refused(RefusalCode.UNSAFE, f"chunk is {actions_KA.shape}, the contract says {(chunk_length, len(spec))}")
    if not np.isfinite(actions_KA).all():
        return refused(RefusalCode.NONFINITE, "chunk holds NaN or inf")
    slack_A = tolerance * (spec.high - spec.low)
    outside_A = ((actions_KA < spec.low - slack_A) | (actions_KA > spec.high + slack_A)).any(axis=0)
    if outside_A.any():
        names = ", ".join(spec.dims[i].name for i in np.flatnonzero(outside_A))
        return refused(RefusalCode.UNSAFE, f"action outside its limits in {names}")
    clipped_KA = np.clip(actions_KA, spec.low, spec.high)
    excess_A = np.abs(actions_KA - clipped_KA).max(axis=0)
    report = {f"clipped.{dim.name}": float(excess) for dim, excess in zip(spec.dims, excess_A, strict=True) if excess > 0}
    return GuardedRows(rows_KA=clipped_KA, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """Checks every decision of `policy` against `contract`. Takes requests and rounds too, whatever `policy` can."""

    policy: Policy
    contract: PolicyContract
    tolerance: float = TOLERANCE

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation; a chunk that breaks the contract becomes a refusal."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations, each checked on its own."""
        return [self.checked(decision) for decision in self.policy.decide_many(observations)]

    def answer(self, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Answer several requests, each checked on its own."""
        return [self.checked(decision) for decision in as_request_policy(self.policy).answer(requests)]

    def open_round(self, capacity: int) -> DecisionRound:
        """A round of the policy whose decisions are checked."""
        return _GuardedRound(guard=self, inner=as_request_policy(self.policy).open_round(capacity))

    def checked(self, decision: Decision) -> Decision:
        """`decision`, or the refusal that its chunk deserves."""
        if decision.chunk is None:
            return decision
        rows = guard_rows(decision.chunk.actions_KA, self.contract.embodiment, self.contract.chunk_length, tolerance=self.tolerance)
        if rows.refusal is not None:
            return replace(decision, chunk=None, refusal=rows.refusal)
        return replace(decision, chunk=replace(decision.chunk, actions_KA=rows.rows_KA), guard={**decision.guard, **rows.report})


@dataclass(frozen=True, slots=True, kw_only=True)
class _GuardedRound:
    guard: Guarded
    inner: DecisionRound

    @property
    def active(self) -> int:
        return self.inner.active

    def join(self, request: DecisionRequest) -> int:
        return self.inner.join(request)

    def step(self) -> list[tuple[int, Decision]]:
        return [(key, self.guard.checked(decision)) for key, decision in self.inner.step()]

    def leave(self, key: int) -> None:
        self.inner.leave(key)
