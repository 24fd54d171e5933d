"""What a person orders of a rollout, as a pure function: pause, resume, abort, roll back, approve, skip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from model_core.spec.errors import SpecError
from model_core.spec.fleet.rollout_plan import RolloutPlan
from serving.fleet.controller.rollout.evidence import Evidence
from serving.fleet.controller.rollout.machine import Surroundings, approvals_missing, next_stage
from serving.fleet.controller.rollout.state import RolloutState, Status

Kind = Literal["pause", "resume", "abort", "rollback", "approve", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """kind: "abort" ends the rollout and leaves each cell as it is; "rollback" brings the old version back everywhere; "skip" goes to the
    next stage without what the present one asks for, by a named person and for a reason; the approvals of the next stage are needed all the
    same. by: the person."""

    kind: Kind
    by: str
    reason: str = ""

    @property
    def in_words(self) -> str:
        """For reasons and the log."""
        return f"{self.kind} by {self.by}" + (f": {self.reason}" if self.reason else "")


def carried_out(plan: RolloutPlan, state: RolloutState, evidence: Evidence, order: Order, around: Surroundings) -> RolloutState:
    """The state after an order. Raises `SpecError` for one that does not fit the state, or that this person may not give."""
    told = {"reason": order.in_words}
    if order.kind == "rollback" and state.status is not Status.ROLLED_BACK:
        return replace(state, status=Status.ROLLED_BACK, stage_since_s=around.now_s, **told)
    if not state.status.is_open:
        raise SpecError(f"{plan.name} is over ({state.status}), so there is nothing to {order.kind}. Fix: start another rollout")
    match order.kind:
        case "abort":
            return replace(state, status=Status.ABORTED, stage_since_s=around.now_s, **told)
        case "pause" if state.status is Status.RUNNING:
            return replace(state, status=Status.PAUSED, **told)
        case "resume" if state.status is Status.PAUSED:
            return replace(state, status=Status.RUNNING, stage_since_s=around.now_s, **told)
        case "approve":
            return _approved(plan, state, order.by)
        case "skip" if not order.reason:
            raise SpecError(f"{plan.name}: a stage is skipped only for a reason. Fix: give --reason TEXT")
        case "skip" if lacking := approvals_missing(plan, state):
            raise SpecError(f"{plan.name}: the next stage lacks {lacking}, which no one may skip. Fix: let other persons approve it first")
        case "skip" if not around.frozen:
            return replace(next_stage(plan, replace(state, status=Status.RUNNING), evidence, around), **told)
    frozen = ", and the fleet is frozen" if around.frozen else ""
    raise SpecError(f"{plan.name} is {state.status}{frozen}: {order.kind} does not fit. Fix: see `actwright fleet rollout status`")


def _approved(plan: RolloutPlan, state: RolloutState, by: str) -> RolloutState:
    number = state.stage + 1
    if number >= len(plan.stages):
        raise SpecError(f"{plan.name}: no stage follows that could be approved. Fix: see `actwright fleet rollout status`")
    stage = plan.stages[number]
    if stage.approvers and by not in stage.approvers:
        raise SpecError(f"{by!r} may not approve stage {stage.name} of {plan.name}. Fix: ask {' or '.join(stage.approvers)}")
    if by in state.approved_by:
        raise SpecError(f"{by!r} approved stage {stage.name} already, and one person counts once. Fix: ask another person")
    return replace(state, approved_by=(*state.approved_by, by), reason=f"stage {stage.name} approved by {by}")
