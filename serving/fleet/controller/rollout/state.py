"""Where a rollout stands: a small document that is replaced as a whole, and what follows from it for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from model_core.spec.fleet.documents import LONGEST_REASON
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
    """stage: index, -1 before the first. members: cells that run the new version. shadows: cells that let it answer in shadow, while a
    stage of shadows lasts.

    finished_before, decisions_before: episodes and decisions that were counted before the stage began. approved_by: persons who agreed to
    the next stage. reason: of the last change. stage_since_s, started_at_s: seconds since 1970.
    """

    started_at_s: float
    stage_since_s: float
    status: Status = Status.RUNNING
    stage: int = -1
    members: tuple[str, ...] = ()
    shadows: tuple[str, ...] = ()
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
    """What the cells of the rollout are to run, by name. baseline: digest of the old release. Of an aborted one nothing but the end of its
    shadows: each other cell keeps what it was told last. The new release is proposed to no cell whose site is not offered it, unless the
    cell runs it already."""
    told = _wanted(plan, baseline, state, cells)
    kept = Assignment(release=baseline, reason=f"{plan.name}: the update metadata of its site do not offer the new release")
    unable = {cell.name for cell in cells if not cell.is_offered and cell.running != plan.release}
    return {name: kept if name in unable and plan.release in (one.release, one.shadow) else one for name, one in told.items()}


def _wanted(plan: RolloutPlan, baseline: str, state: RolloutState, cells: Sequence[CellView]) -> dict[str, Assignment]:
    stage = stage_of(plan, state)
    name = stage.name if stage else ""
    if state.status is Status.ABORTED:
        ended = Assignment(release=baseline, reason=f"{plan.name} was aborted: the shadow ends")
        return {cell.name: ended for cell in cells if cell.name in set(state.shadows)}
    if state.status is Status.PASSED:
        return dict.fromkeys(_names(cells), Assignment(release=plan.release, reason=f"{plan.name} passed"))
    if state.status is Status.ROLLED_BACK:
        return dict.fromkeys(
            _names(cells), Assignment(release=baseline, reason=f"{plan.name} was rolled back: {state.reason}"[:LONGEST_REASON])
        )
    old = Assignment(release=baseline, stage=name, reason=f"{plan.name}: stays on the old version until the verdict")
    told = dict.fromkeys(_names(cells), old)
    new = Assignment(release=plan.release, stage=name, reason=f"{plan.name}: stage {name}")
    beside = Assignment(release=baseline, shadow=plan.release, stage=name, reason=f"{plan.name}: stage {name}, in shadow")
    told |= {cell: beside for cell in state.shadows if cell in told}
    return told | {cell: new for cell in state.members if cell in told}


def _names(cells: Sequence[CellView]) -> list[str]:
    return [cell.name for cell in cells]
