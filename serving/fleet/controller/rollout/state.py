"""Where a rollout stands: a small document that is replaced as a whole, and what follows from it for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from model_core.spec.fleet.rollout_plan import RolloutPlan, Stage
from serving.fleet.controller.rollout.cohorts import CellView


class Status(StrEnum):
    """RUNNING and PAUSED go on; the others are final, except that a person may still roll back what PASSED or was ABORTED."""

    RUNNING = "running"
    PAUSED = "paused"
    PASSED = "passed"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"

    @property
    def is_open(self) -> bool:
        """Whether the rollout still decides something."""
        return self in (Status.RUNNING, Status.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """stage: index, -1 before the first. members: cells that run the new version, or answer in shadow in a stage of shadows.

    finished_before, decisions_before: episodes and decisions that were counted before the stage began. approved_by: persons who agreed to
    the next stage. reason: of the last change. stage_since_s, started_at_s: seconds since 1970.
    """

    started_at_s: float
    stage_since_s: float
    status: Status = Status.RUNNING
    stage: int = -1
    members: tuple[str, ...] = ()
    finished_before: int = 0
    decisions_before: int = 0
    approved_by: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What is proposed to one cell. shadow: digest of the release that answers beside, "" for none."""

    release: str
    shadow: str = ""
    stage: str = ""
    reason: str = ""


def stage_of(plan: RolloutPlan, state: RolloutState) -> Stage | None:
    """The stage that runs; None before the first."""
    return plan.stages[state.stage] if 0 <= state.stage < len(plan.stages) else None


def assignments(plan: RolloutPlan, baseline: str, state: RolloutState, cells: Sequence[CellView]) -> dict[str, Assignment]:
    """What the cells of the rollout are to run, by name. baseline: digest of the old release. Of an aborted one nothing: each cell keeps
    what it was told last."""
    if state.status is Status.ABORTED:
        return {}
    stage = stage_of(plan, state)
    name = stage.name if stage else ""
    if state.status is Status.PASSED:
        return {cell.name: Assignment(release=plan.release, reason=f"{plan.name} passed") for cell in cells}
    if state.status is Status.ROLLED_BACK:
        return {cell.name: Assignment(release=baseline, reason=f"{plan.name} was rolled back: {state.reason}"[:400]) for cell in cells}
    old = Assignment(release=baseline, stage=name, reason=f"{plan.name}: stays on the old version until the verdict")
    new = Assignment(release=plan.release, stage=name, reason=f"{plan.name}: stage {name}")
    if stage and stage.shadow:
        new = Assignment(release=baseline, shadow=plan.release, stage=name, reason=f"{plan.name}: stage {name}, in shadow")
    members = set(state.members)
    return {cell.name: new if cell.name in members else old for cell in cells}
