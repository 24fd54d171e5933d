"""What the pages of the fleet show, as the controller's API tells it (docs/fleet_api.json); times in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from model_core.spec.errors import SpecError
from model_core.spec.settings import text


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCell:
    """A cell. running: digest that it reported, "" before its first report. proposed: digest that it is told, "" for what it runs.
    shadow: digest that answers in its shadow, "" for none; shadowed: decisions of it that were compared."""

    name: str
    site: str
    running: str
    proposed: str
    shadow: str
    shadowed: int
    phase: str
    error: str
    in_episode: bool
    offline: bool
    override: str
    stage: str
    reason: str
    agent_version: str
    seen_at_s: float
    is_stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStratum:
    """Episodes of one task at one site that count as evidence, of both versions."""

    stratum: str
    new_successes: int
    new_trials: int
    old_successes: int
    old_trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRollout:
    """A rollout. proposed: cells that the new release is proposed to; reached: those of them that report it. worse: evidence that it is
    worse, as a factor; proofs: margin -> factor of "not worse". guards: name -> episodes with such an event; guard_limits: name -> the
    share above which the rollout goes back. missing: what the stage waits for. told: all that in one sentence."""

    id: int
    name: str
    release: str
    baseline: str
    status: str
    stage: str
    stages: tuple[str, ...]
    reason: str
    members: tuple[str, ...]
    cells: int
    proposed: int
    reached: int
    stale: int
    stale_since_s: float | None
    finished: int
    worse: float
    proofs: Mapping[str, float]
    strata: tuple[FleetStratum, ...]
    guards: Mapping[str, str]
    guard_limits: Mapping[str, float]
    missing: tuple[str, ...]
    told: str
    override: str
    started_by: str
    started_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetKill:
    """A kill in force. release_asked_by: the first of the two persons who release it, "" for none yet."""

    id: int
    scope: str
    target: str
    reason: str
    ordered_by: str
    ordered_at_s: float
    release_asked_by: str
    released_by: str
    released_at_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRelease:
    """A release that rollouts may name. allowed_by: the verdict or the override that lets it reach robots."""

    digest: str
    model_version: str
    allowed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """The whole fleet. now_s: the controller's clock. head: last hash of its log. key_id: of the key that agents trust."""

    now_s: float
    cells: tuple[FleetCell, ...]
    rollouts: tuple[FleetRollout, ...]
    kills: tuple[FleetKill, ...]
    is_frozen: bool
    head: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPage:
    """The fleet of one controller. absent: why there is none to ask, and what to do; then state is None."""

    controller: str
    absent: str
    state: FleetState | None
    releases: tuple[FleetRelease, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDone:
    """What came of an order, in words. head: the last hash of the controller's log."""

    told: str
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReason:
    """Why; it stays in the controller's log."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOrder:
    """What a person orders of a rollout. reason: needed where the rollout ends by it."""

    kind: Literal["pause", "resume", "approve", "abort", "rollback"]
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind in ("abort", "rollback") and not self.reason.strip():
            raise SpecError(f"reason: {self.kind} ends the rollout, and people who read its log ask why. Fix: write a sentence")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetKillOrder:
    """Stop everything in this scope, at once. target: which one; "" for the whole fleet."""

    scope: Literal["digest", "model", "cell", "site", "fleet"]
    target: str = ""
    reason: str

    def __post_init__(self) -> None:
        text("reason", self.reason, longest=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLogLine:
    """An order of a person, or what a rule did ("controller"). detail: as JSON."""

    number: int
    at_s: float
    subject: str
    role: str
    action: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLog:
    """The newest lines first, of `count`. problem: where the chain is broken, "" where it holds. head: the last hash."""

    lines: tuple[FleetLogLine, ...]
    count: int
    head: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLogQuery:
    """until_s: leave out what came later; 0 for nothing."""

    until_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRanQuery:
    """at_s: which time; 0 for now."""

    at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCellAt:
    """What one cell ran at a time. proof: "reports" or "episode" where it is proven; else "both sides", "changed", "before" or "none".
    from_s, until_s: of the evidence. told: all that in a sentence."""

    cell: str
    site: str
    release: str
    model_version: str
    proof: str
    from_s: float
    until_s: float
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRan:
    """What every cell ran at `at_s`, by the controller's clock. head: last hash of its log."""

    at_s: float
    now_s: float
    cells: tuple[FleetCellAt, ...]
    head: str
