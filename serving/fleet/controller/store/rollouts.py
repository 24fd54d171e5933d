"""Rollouts on record: plan and baseline as they were started, the state as one document, replaced only in the version that was read."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError, TrackingError
from model_core.spec.fleet.documents import CellReport
from model_core.spec.fleet.rollout_plan import RolloutPlan
from serving.fleet.controller.rollout.evidence import Side, Tally
from serving.fleet.controller.rollout.state import RolloutState
from serving.fleet.controller.store.tables import ROLLOUTS

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A row. baseline: digest of the old release. history: stratum -> its episodes before; longest_s: the longest of them. version: grows
    with each change of the state."""

    id: int
    plan: RolloutPlan
    baseline: str
    history: Mapping[str, Tally]
    longest_s: float
    state: RolloutState
    version: int
    started_by: str

    @property
    def salt(self) -> str:
        """What its cohorts are drawn with."""
        return f"{self.id}/{self.plan.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRollout:
    """What a report has to know of a rollout."""

    id: int
    plan: RolloutPlan
    baseline: str
    started_at_s: float

    def side_of(self, report: CellReport, release: str, started_at_s: float) -> Side | None:
        """For which side an episode is evidence; None for an episode of another release, of a cell outside, or from before."""
        side: Side | None = "new" if release == self.plan.release else "old" if release == self.baseline else None
        if side is None or started_at_s < self.started_at_s or not self.plan.concerns(report.site, report.tasks, report.labels):
            return None
        return side


def open_rollouts(db: Connection) -> list[OpenRollout]:
    """Those that still decide something."""
    return [
        OpenRollout(id=number, plan=_plan(plan), baseline=baseline, started_at_s=_state(state).started_at_s)
        for number, plan, baseline, state in db.execute(_OPEN)
    ]


_OPEN = select(ROLLOUTS.c.id, ROLLOUTS.c.plan, ROLLOUTS.c.baseline, ROLLOUTS.c.state).where(ROLLOUTS.c.is_open).order_by(ROLLOUTS.c.id)


def rollouts(db: Connection) -> list[Rollout]:
    """Every rollout, oldest first."""
    return [_rollout(row) for row in db.execute(select(ROLLOUTS).order_by(ROLLOUTS.c.id)).mappings()]


def locked_rollout(db: Connection, number: int) -> Rollout:
    """One rollout, which no other transaction changes until this one ends. Raises `SpecError` where there is none."""
    row = db.execute(select(ROLLOUTS).where(ROLLOUTS.c.id == number).with_for_update()).mappings().first()
    if row is None:
        raise SpecError(f"there is no rollout {number}. Fix: `actwright fleet rollout status` lists them")
    return _rollout(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a rollout is compared with. history: its episodes before, by stratum. longest_s: the longest of them."""

    digest: str
    history: Mapping[str, Tally]
    longest_s: float


def add_rollout(db: Connection, plan: RolloutPlan, baseline: Baseline, started_by: str, now_s: float) -> Rollout:
    """Put a rollout on record, before its first stage."""
    number = int(db.execute(select(func.coalesce(func.max(ROLLOUTS.c.id), 0))).scalar_one()) + 1
    state = RolloutState(started_at_s=now_s, stage_since_s=now_s, reason=f"started by {started_by}")
    history = json.dumps({stratum: [tally.successes, tally.trials] for stratum, tally in baseline.history.items()})
    row = {"plan": _text(plan), "baseline": baseline.digest, "history": history, "longest_s": baseline.longest_s}
    row |= {"state": _text(state), "version": 1, "is_open": True, "started_by": started_by}
    db.execute(insert(ROLLOUTS).values(id=number, **row))
    return locked_rollout(db, number)


def save_state(db: Connection, rollout: Rollout, state: RolloutState) -> None:
    """Replace the state that was read. Raises `TrackingError` where another controller replaced it since."""
    here = (ROLLOUTS.c.id == rollout.id) & (ROLLOUTS.c.version == rollout.version)
    values = {"state": _text(state), "version": rollout.version + 1, "is_open": state.status.is_open}
    if db.execute(update(ROLLOUTS).where(here).values(**values)).rowcount != 1:
        raise TrackingError(
            f"rollout {rollout.id} was changed by another controller at the same time. Fix: look again, nothing was changed"
        )


def _rollout(row: RowMapping) -> Rollout:
    return Rollout(
        id=row["id"],
        plan=_plan(row["plan"]),
        baseline=row["baseline"],
        history={stratum: Tally(successes=won, trials=count) for stratum, (won, count) in json.loads(row["history"]).items()},
        longest_s=row["longest_s"],
        state=_state(row["state"]),
        version=row["version"],
        started_by=row["started_by"],
    )


@functools.lru_cache(maxsize=256)
def _plan(text: str) -> RolloutPlan:
    return from_document(RolloutPlan, json.loads(text), where="the plan")


@functools.lru_cache(maxsize=256)
def _state(text: str) -> RolloutState:
    return from_document(RolloutState, json.loads(text), where="the state of a rollout")


def _text(value: RolloutPlan | RolloutState) -> str:
    return json.dumps(to_document(value), sort_keys=True)


def plan_of(document: object) -> RolloutPlan:
    """A plan that somebody sends. Raises `SpecError` naming the field that is wrong."""
    if not isinstance(document, Mapping):
        raise SpecError("plan: expected a mapping with name, release and stages. Fix: see docs/fleet.md")
    return from_document(RolloutPlan, document, where="plan")
