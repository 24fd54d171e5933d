"""Any policy as a `RequestPolicy`: what cannot be asked of a plain one is refused, never ignored.

decide_many([o1, o2])      <-- one block --   round.join(request 1), round.join(request 2), round.step()
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

from model_core.spec.types import Decision, DecisionRequest, Observation, Policy, Refusal, RefusalCode, RequestPolicy


def as_request_policy(policy: Policy) -> RequestPolicy:
    """`policy` itself where it takes requests already, else a `LiftedPolicy` around it."""
    if callable(getattr(policy, "answer", None)) and callable(getattr(policy, "open_round", None)):
        return cast(RequestPolicy, policy)
    return LiftedPolicy(policy)


class LiftedPolicy:
    """A plain policy that is asked by requests. It has one level, its own ("" or "full"), and can neither edit nor be held to rows."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:  # contract, model_version and whatever else the policy states about itself
        if name == "policy":  # not yet set, while being copied or unpickled
            raise AttributeError(name)
        return getattr(self.policy, name)

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        return self.policy.decide(observation)

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations at once."""
        return self.policy.decide_many(observations)

    def answer(self, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Answer several requests in one call of the policy; those that ask for more than it can do are refused one by one."""
        refusals = [_unsupported(request) for request in requests]
        asked = [request.observation for request, refusal in zip(requests, refusals, strict=True) if refusal is None]
        decisions = self.policy.decide_many(asked) if asked else []
        if len(decisions) != len(asked):
            raise ValueError(f"the policy gave {len(decisions)} decisions for {len(asked)} observations")
        answers = iter(decisions)
        contract_id = decisions[0].contract_id if decisions else self._contract_id()
        return [
            _answered_in_parts(request, next(answers)) if refusal is None else Decision(contract_id=contract_id, refusal=refusal)
            for request, refusal in zip(requests, refusals, strict=True)
        ]

    def open_round(self, capacity: int) -> LiftedRound:
        """A round whose every step answers all that has joined since the last one."""
        return LiftedRound(self, capacity)

    def _contract_id(self) -> str:
        contract = getattr(self.policy, "contract", None)
        return str(getattr(contract, "contract_id", ""))


class LiftedRound:
    """`DecisionRound` over a plain policy: one block is one whole inference. Not thread-safe."""

    def __init__(self, policy: LiftedPolicy, capacity: int) -> None:
        self._policy, self._capacity = policy, capacity
        self._waiting: dict[int, DecisionRequest] = {}
        self._keys = itertools.count(1)

    @property
    def active(self) -> int:
        """Requests that the next step answers, or that wait for a later one."""
        return len(self._waiting)

    def join(self, request: DecisionRequest) -> int:
        """Take a request in; returns its key."""
        key = next(self._keys)
        self._waiting[key] = request
        return key

    def step(self) -> list[tuple[int, Decision]]:
        """Answer up to `capacity` requests, the oldest first. When the policy raises, no request has been answered and all are still in."""
        taken = list(self._waiting.items())[: self._capacity]
        if not taken:
            return []
        decisions = self._policy.answer([request for _, request in taken])
        for key, _ in taken:
            self._waiting.pop(key, None)
        return [(key, decision) for (key, _), decision in zip(taken, decisions, strict=True)]

    def leave(self, key: int) -> None:
        """Take a request out; nothing happens if it has left already."""
        self._waiting.pop(key, None)


def _unsupported(request: DecisionRequest) -> Refusal | None:
    if request.is_cancelled is not None and request.is_cancelled():
        return Refusal(code=RefusalCode.CANCELLED, reason="given up before it began")
    if request.level not in {"", "full"}:
        return _cannot(f"answer at level {request.level!r}; it has only its own")
    if request.depth is not None or request.trace is not None:
        return _cannot("continue from an edited depth or trace")
    if request.committed_DA is not None and len(request.committed_DA) > 0:
        return _cannot("begin its answer with committed rows")
    return None


def _cannot(what: str) -> Refusal:
    return Refusal(code=RefusalCode.CONTRACT, reason=f"this policy cannot {what}")


def _answered_in_parts(request: DecisionRequest, decision: Decision) -> Decision:
    # A plain policy answers everything at once; who asked for the parts still gets them, in their order.
    reasoning = decision.reasoning
    if request.on_part is not None and decision.refusal is None and reasoning is not None:
        if reasoning.depth is not None:
            request.on_part("depth", reasoning.depth)
        if reasoning.trace is not None:
            request.on_part("trace", reasoning.trace)
    return decision
