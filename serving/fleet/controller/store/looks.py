"""One look at a rollout, in one transaction: close blocks, add them to the evidence, go on by the rules, propose to the cells.

Two controllers may look at once: the row of the rollout is locked, its state is replaced only in the version that was read, and a block
has one number, so of two that close the same block one is refused and looks again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from model_core.spec.errors import SpecError
from model_core.spec.fleet.rollout_plan import RolloutPlan
from serving.fleet.controller.rollout.evidence import Evidence, in_words
from serving.fleet.controller.rollout.first_release import FirstRelease, Left, first_release
from serving.fleet.controller.rollout.machine import Surroundings, advance
from serving.fleet.controller.rollout.orders import Order, carried_out
from serving.fleet.controller.rollout.state import Assignment, RolloutState, assignments
from serving.fleet.controller.store.evidence import close_blocks, evidence_of
from serving.fleet.controller.store.fleet import KnownCell, KnownCells, Offered, assign, is_frozen, name_first, named_first
from serving.fleet.controller.store.kills import kills
from serving.fleet.controller.store.operator_log import RULES, Actor, append
from serving.fleet.controller.store.releases import approved, keep_rollout
from serving.fleet.controller.store.rollouts import (
    Baseline,
    Rollout,
    add_rollout,
    locked_rollout,
    open_rollouts,
    plan_of,
    rollouts,
    save_state,
)
from serving.fleet.controller.store.tables import RELEASES
from serving.fleet.controller.store.tallies import history_of, longest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A rollout after a look. head: of the log, "" where nothing was added."""

    rollout: Rollout
    evidence: Evidence
    changed_cells: int = 0
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this process knows already, so that a look reads what is new. evidence: of an earlier look, to which later blocks are added.
    offered: by the sites' update metadata, None where it reads none."""

    cells: KnownCells
    evidence: Evidence | None = None
    offered: Offered | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    evidence: Evidence
    cells: Sequence[KnownCell]
    around: Surroundings
    actor: Actor


def start(db: Connection, plan: RolloutPlan, actor: Actor, now_s: float, *, baseline: str, known: Known) -> Looked:
    """Start a rollout. baseline: digest of the old release, "" for the one that all cells run.

    Raises `SpecError` for a release that was not offered, here or to a site of these cells, cells in another rollout, or a frozen fleet.
    """
    if is_frozen(db):
        raise SpecError("the fleet is frozen, so no rollout starts. Fix: `actwright fleet unfreeze` when it may go on")
    _version_of(db, plan.release)
    cells = known.cells.read(db)
    here = concerned(cells, plan)
    if not here:
        raise SpecError("no cell that has reported is concerned by this plan. Fix: correct sites, tasks and labels, or enrol cells")
    _check_offered(here, plan.release, known.offered)
    baseline = baseline or _running(here)
    if baseline == plan.release:
        raise SpecError(f"release {plan.release[:16]} is what the cells run already. Fix: name another release, or another baseline")
    names = {cell.name for cell in here}
    for other in open_rollouts(db):
        both = names & {cell.name for cell in concerned(cells, other.plan)}
        if both:
            raise SpecError(f"{len(both)} cells ({min(both)}, ...) are in rollout {other.id} ({other.plan.name}). Fix: end that one first")
    rollout = add_rollout(
        db, plan, Baseline(digest=baseline, history=history_of(db, baseline), longest_s=longest_of(db, baseline)), actor.subject, now_s
    )
    detail = {"rollout": rollout.id, "plan": plan.name, "release": plan.release, "baseline": baseline, "cells": len(names)}
    head = append(db, actor, "rollout start", detail, now_s)
    return replace(look(db, rollout.id, replace(known, evidence=None), now_s), head=head)


def _check_offered(cells: Sequence[KnownCell], release: str, offered: Offered | None) -> None:
    without = sorted({cell.site for cell in cells if not cell.view_of(release, offered).is_offered})
    if without:
        raise SpecError(
            f"the update metadata of {', '.join(without)} do not offer release {release[:16]}, so no robot there takes it. "
            "Fix: `actwright fleet release publish` it to these sites, or let the plan name other sites"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A version that was asked for, and how it is rolled out. plan: a document; its release is the one that was approved."""

    model: str
    version: str
    plan: Mapping[str, Any]
    baseline: str = ""


def start_requested(db: Connection, asked: Requested, actor: Actor, now_s: float, *, known: Known) -> Looked | int:
    """Start the rollout of a request that a person approved; the number of the one that was started for it before, where there is one, so
    that who was killed before the answer came may ask again. Raises `SpecError` as `start` does, and for what was not approved."""
    found = approved(db, asked.model, asked.version)
    if found.rollout is not None:
        return found.rollout
    plan = plan_of({**asked.plan, "release": found.release})
    looked = start(db, plan, actor, now_s, baseline=asked.baseline, known=known)
    keep_rollout(db, found, looked.rollout.id)
    told = {"model": asked.model, "version": asked.version, "approved_by": found.decided_by, "rollout": looked.rollout.id}
    return replace(looked, head=append(db, actor, "request started", told, now_s))


def _running(cells: Sequence[KnownCell]) -> str:
    """The release that all of these cells run. Raises `SpecError` where they differ."""
    running = Counter(cell.report.running for cell in cells if cell.report and cell.report.running)
    if len(running) != 1:
        found = ", ".join(f"{digest[:16]} ({count})" for digest, count in running.most_common(4)) or "none"
        raise SpecError(f"the cells run {found}, expected one release to come back to. Fix: name it with --baseline DIGEST")
    return next(iter(running))


def look(db: Connection, number: int, known: Known, now_s: float) -> Looked:
    """Look at a rollout once."""
    rollout = locked_rollout(db, number)
    cells = concerned(known.cells.read(db), rollout.plan)
    if rollout.state.status.is_open:
        close_blocks(db, rollout, now_s)
    evidence = evidence_of(db, rollout, known.evidence)
    around = _around(db, rollout, cells, now_s, known.offered)
    state = advance(rollout.plan, rollout.state, evidence, around)
    return _settled(db, rollout, state, _Seen(evidence=evidence, cells=cells, around=around, actor=RULES))


def carry_out(db: Connection, number: int, order: Order, actor: Actor, known: Known, now_s: float) -> Looked:
    """Carry out a person's order. Raises `SpecError` for one that does not fit."""
    rollout = locked_rollout(db, number)
    cells = concerned(known.cells.read(db), rollout.plan)
    later = max((int(of) for cell in cells if (of := cell.proposal["rollout"]) is not None), default=number)
    if order.kind == "rollback" and later > number:
        raise SpecError(f"rollout {later} came after rollout {number} on the same cells. Fix: roll back rollout {later}")
    if rollout.state.status.is_open:
        close_blocks(db, rollout, now_s)
    evidence = evidence_of(db, rollout, known.evidence)
    around = _around(db, rollout, cells, now_s, known.offered)
    state = carried_out(rollout.plan, rollout.state, evidence, order, around)
    return _settled(db, rollout, state, _Seen(evidence=evidence, cells=cells, around=around, actor=actor))


def install(db: Connection, order: FirstRelease, actor: Actor, known: Known, now_s: float) -> str:
    """Name the first release of cells that never ran one; returns the log's head.

    Raises `SpecError` for a release that was not offered, here or to one of these sites, or that a kill stops.
    """
    release, sites = order.release, order.sites
    version = _version_of(db, release)
    if any(kill.stops(release, version) for kill in kills(db, in_force=True)):
        raise SpecError(f"release {release[:16]} is killed, so no cell may run it. Fix: name another release")
    here = [cell for cell in known.cells.read(db) if not sites or cell.site in sites]
    if missing := set(sites) - {cell.site for cell in here}:
        raise SpecError(f"no cell is enrolled at {', '.join(sorted(missing))}. Fix: name sites of this fleet")
    _check_offered(here, release, known.offered)
    return name_first(db, order, actor, now_s)


def _version_of(db: Connection, release: str) -> str:
    """The model's version in an offered release. Raises `SpecError` for one that was not offered."""
    row = db.execute(select(RELEASES.c.model_version).where(RELEASES.c.digest == release)).first()
    if row is None:
        raise SpecError(f"release {release[:16]} was not offered to this controller. Fix: `actwright fleet offer` it first")
    return row.model_version


def propose_first(db: Connection, known: Known, now_s: float) -> int:
    """Propose a first release to the cells that never ran one and that no open rollout tells anything; returns to how many."""
    bare = [cell for cell in known.cells.read(db) if cell.runs_nothing]
    if not bare or is_frozen(db):
        return 0
    every, named = rollouts(db), named_first(db)
    versions = {row.digest: row.model_version for row in db.execute(select(RELEASES.c.digest, RELEASES.c.model_version))}
    in_force, changed = kills(db, in_force=True), 0
    for cell in bare:

        def may_run(release: str, cell: KnownCell = cell) -> bool:
            stopped = any(kill.stops(release, versions.get(release, "")) for kill in in_force)
            return release in versions and not stopped and cell.view_of(release, known.offered).is_offered

        left = [
            Left(id=one.id, plan=one.plan.name, release=one.plan.release, baseline=one.baseline, status=one.state.status)
            for one in every
            if concerned([cell], one.plan)
        ]
        first = first_release(cell.site, left, named, may_run)
        if first.release:
            wanted = {cell.name: Assignment(release=first.release, reason=first.reason)}
            changed += assign(db, [cell], wanted, rollout=first.rollout, plan=first.plan, back_to="")
            append(db, RULES, "first release", {"cell": cell.name, "release": first.release, "reason": first.reason}, now_s)
    return changed


def _settled(db: Connection, rollout: Rollout, state: RolloutState, seen: _Seen) -> Looked:
    """Keep the state, log what changed, and propose."""
    head = ""
    if state != rollout.state:
        save_state(db, rollout, state)
        if (state.status, state.stage, state.reason) != (rollout.state.status, rollout.state.stage, rollout.state.reason):
            detail = {"rollout": rollout.id, "status": state.status.value, "stage": state.stage, "reason": state.reason}
            head = append(db, seen.actor, "rollout", {**detail, "evidence": in_words(seen.evidence)}, seen.around.now_s)
        rollout = replace(rollout, state=state, version=rollout.version + 1)
    wanted = assignments(rollout.plan, rollout.baseline, state, seen.around.cells)
    changed = assign(db, seen.cells, wanted, rollout=rollout.id, plan=rollout.plan.name, back_to=rollout.baseline)
    return Looked(rollout=rollout, evidence=seen.evidence, changed_cells=changed, head=head)


def concerned(cells: Sequence[KnownCell], plan: RolloutPlan) -> list[KnownCell]:
    """The cells of a plan, of those that have reported."""
    return [cell for cell in cells if cell.report is not None and plan.concerns(cell.site, cell.report.tasks, cell.report.labels)]


def _around(db: Connection, rollout: Rollout, cells: Sequence[KnownCell], now_s: float, offered: Offered | None) -> Surroundings:
    views = [cell.view_of(rollout.plan.release, offered) for cell in cells]
    version = db.execute(select(RELEASES.c.model_version).where(RELEASES.c.digest == rollout.plan.release)).scalar() or ""
    matching = [kill for kill in kills(db, in_force=True) if kill.stops(rollout.plan.release, version)]
    killed = f"{matching[0].scope} {matching[0].target[:64]} by {matching[0].ordered_by}: {matching[0].reason}" if matching else ""
    return Surroundings(cells=views, now_s=now_s, salt=rollout.salt, killed=killed, frozen=is_frozen(db))
