"""A policy around a policy: what leaves it is finite, of the contract's shape and inside its limits, or is refused.

Nothing is repaired silently. A value at most `tolerance` (of the dimension's range) past a limit is a rounding of
the codec and is clipped to the limit; anything further is a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model_core.spec.contract import PolicyContract
from model_core.spec.types import Decision, Observation, Policy, Refusal, RefusalCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """Checks every decision of `policy` against `contract`."""

    policy: Policy
    contract: PolicyContract
    tolerance: float = 0.02

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation; a chunk that breaks the contract becomes a refusal."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations, each checked on its own."""
        return [self._checked(decision) for decision in self.policy.decide_many(observations)]

    def _checked(self, decision: Decision) -> Decision:
        if decision.chunk is None:
            return decision
        spec = self.contract.embodiment.action
        actions_KA = decision.chunk.actions_KA
        if actions_KA.shape != (self.contract.chunk_length, len(spec)):
            return _refused(
                decision, RefusalCode.UNSAFE, f"chunk is {actions_KA.shape}, the contract says {(self.contract.chunk_length, len(spec))}"
            )
        if not np.isfinite(actions_KA).all():
            return _refused(decision, RefusalCode.NONFINITE, "chunk holds NaN or inf")
        slack_A = self.tolerance * (spec.high - spec.low)
        outside_A = ((actions_KA < spec.low - slack_A) | (actions_KA > spec.high + slack_A)).any(axis=0)
        if outside_A.any():
            names = ", ".join(spec.dims[i].name for i in np.flatnonzero(outside_A))
            return _refused(decision, RefusalCode.UNSAFE, f"action outside its limits in {names}")
        clipped_KA = np.clip(actions_KA, spec.low, spec.high)
        return replace(decision, chunk=replace(decision.chunk, actions_KA=clipped_KA))


def _refused(decision: Decision, code: RefusalCode, reason: str) -> Decision:
    return replace(decision, chunk=None, refusal=Refusal(code=code, reason=reason))
