"""What the controller tells people and programs of cells and rollouts: read from the rows, counted by what cells report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from serving.fleet.controller.rollout.evidence import Evidence
from serving.fleet.controller.rollout.machine import still_missing
from serving.fleet.controller.rollout.state import Status, stage_of
from serving.fleet.controller.store.fleet import KnownCell
from serving.fleet.controller.store.ran.spans import STALE_AFTER
from serving.fleet.controller.store.rollouts import Rollout

STATES = ("new", "stale", "error", "offline", "moving", "settled")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStatus:
    """A cell. running: digest that it reports, "" before its first report. proposed: digest that it is told, "" for what it runs.
    shadow: digest that it is told to compare with what runs; shadowed: decisions of it that were compared, as the cell reports them.

    error: code and message of why an update does not go on. override: who let the running release reach robots, and why. seen_at_s: 0 for
    never.
    """

    name: str
    site: str
    running: str = ""
    proposed: str = ""
    shadow: str = ""
    shadowed: int = 0
    phase: str = ""
    error: str = ""
    in_episode: bool = False
    offline: bool = False
    override: str = ""
    stage: str = ""
    reason: str = ""
    agent_version: str = ""
    tasks: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    seen_at_s: float = 0.0
    is_stale: bool = True

    @property
    def state(self) -> str:
        """One word for metrics: "new" before the first report, else "stale", "error", "offline", "moving" or "settled"."""
        if not self.seen_at_s:
            return "new"
        if self.is_stale:
            return "stale"
        if self.error:
            return "error"
        if self.offline:
            return "offline"
        return "settled" if self.proposed in ("", self.running) else "moving"


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumStatus:
    """Episodes in blocks, of one task at one site."""

    stratum: str
    new_successes: int
    new_trials: int
    old_successes: int
    old_trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus:
    """A rollout. proposed: cells that the new release is proposed to; reached: those of them that report it; stale: of the rollout's cells,
    without a recent report. shadows: cells that let the new release answer in shadow; decisions, distances: compared there. worse: the most
    evidence so far that the new release is worse, as the factor 1/p; proofs: margin -> factor of "not worse" as it stands now. guards:
    name -> "events of episodes"; guard_limits: name -> share of episodes above which the rollout goes back. missing: what the stage waits
    for. told: all that in one sentence."""

    id: int
    name: str
    release: str
    baseline: str
    status: str
    stage: str
    stages: Sequence[str]
    reason: str
    members: Sequence[str]
    shadows: Sequence[str]
    decisions: int
    distances: Mapping[str, float]
    cells: int
    proposed: int
    reached: int
    stale: int
    stale_since_s: float | None
    finished: int
    worse: float
    proofs: Mapping[str, float]
    strata: Sequence[StratumStatus]
    guards: Mapping[str, str]
    guard_limits: Mapping[str, float]
    missing: Sequence[str]
    told: str
    override: str
    started_by: str
    started_at_s: float


def cell_status(cell: KnownCell, now_s: float, report_every_s: float) -> CellStatus:
    """A cell on record, as people see it."""
    report, proposal = cell.report, cell.proposal
    told = {"name": cell.name, "site": cell.site, "proposed": proposal["release"], "shadow": proposal["shadow"]}
    told |= {"stage": proposal["stage"], "reason": proposal["reason"], "seen_at_s": cell.seen_at_s}
    if report is None:
        return CellStatus(**told)
    return CellStatus(
        **told,
        running=report.running,
        shadowed=sum(one.count for one in report.shadow if one.release == proposal["shadow"]),
        phase=report.phase,
        error=f"{report.error.code}: {report.error.message}" if report.error else "",
        in_episode=report.in_episode,
        offline=report.offline,
        override=f"{report.override.name}: {report.override.reason}" if report.override else "",
        agent_version=report.agent_version,
        tasks=report.tasks,
        labels=report.labels,
        is_stale=now_s - cell.seen_at_s > STALE_AFTER * report_every_s,
    )


def rollout_status(rollout: Rollout, evidence: Evidence, cells: Sequence[CellStatus], override: str) -> RolloutStatus:
    """A rollout with its evidence and the cells that it concerns. override: who let the release pass, "" where the gate did."""
    plan, state = rollout.plan, rollout.state
    stage = stage_of(plan, state)
    wanted = _wanted(rollout, cells)
    reached = sum(cell.running == plan.release for cell in cells if cell.name in wanted)
    stale = [cell for cell in cells if cell.is_stale]
    since = min((cell.seen_at_s for cell in stale), default=None)
    name = stage.name if stage else "before the first stage"
    missing = still_missing(plan, state, evidence) if state.status.is_open else []
    return RolloutStatus(
        id=rollout.id,
        name=plan.name,
        release=plan.release,
        baseline=rollout.baseline,
        status=state.status.value,
        stage=stage.name if stage else "",
        stages=[one.name for one in plan.stages],
        reason=state.reason,
        members=state.members,
        shadows=state.shadows,
        decisions=evidence.decisions,
        distances=evidence.distances,
        cells=len(cells),
        proposed=len(wanted),
        reached=reached,
        stale=len(stale),
        stale_since_s=since,
        finished=evidence.finished,
        worse=_factor(evidence.worse.best),
        proofs={f"{margin:g}": _factor(one.log_e) for margin, one in evidence.proofs.items()},
        strata=[
            StratumStatus(
                stratum=key, new_successes=new.successes, new_trials=new.trials, old_successes=old.successes, old_trials=old.trials
            )
            for key, (new, old) in sorted(evidence.strata.items())
        ],
        guards={key: f"{count.events} of {count.episodes}" for key, count in evidence.guards.items()},
        guard_limits=plan.guards,
        missing=missing,
        told=_told(rollout, name, (reached, len(wanted)), (len(stale), since), missing),
        override=override,
        started_by=rollout.started_by,
        started_at_s=state.started_at_s,
    )


def _wanted(rollout: Rollout, cells: Sequence[CellStatus]) -> set[str]:
    """The cells that are to run the new release."""
    if rollout.state.status is Status.PASSED:
        return {cell.name for cell in cells}
    return {cell.name for cell in cells if cell.proposed == rollout.plan.release}


def _told(rollout: Rollout, stage: str, reached: tuple[int, int], stale: tuple[int, float | None], missing: Sequence[str]) -> str:
    parts = [f"{rollout.plan.name}: {rollout.state.status.value}, stage {stage}", f"reached {reached[0]} of {reached[1]}"]
    if rollout.state.status.is_open and rollout.state.shadows:
        parts.append(f"in shadow on {len(rollout.state.shadows)}")
    if stale[0] and stale[1] is not None:
        since = f" since {datetime.fromtimestamp(stale[1], UTC):%Y-%m-%d %H:%M} UTC" if stale[1] else ", never seen"
        parts.append(f"{stale[0]} stale{since}")
    if missing:
        parts.append(f"waits for {' and '.join(missing)}")
    return ", ".join(parts)


def _factor(log_e: float) -> float:
    return float(f"{math.exp(min(log_e, 700.0)):.4g}")
