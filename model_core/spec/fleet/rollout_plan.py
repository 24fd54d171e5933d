"""A plan of a rollout: how a release goes from one cell to all, what each stage has to show, and what takes it back.

A plan is data: a JSON or YAML file that a person writes and the controller keeps word for word with the rollout. Shares are 0..1, times
hours. The rules that carry it out are `serving.fleet.controller.rollout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from model_core.spec.errors import require
from model_core.spec.settings import digest, real, text, whole

REFUSED = "refused"  # share of the decisions that the candidate refused
MOST_REFUSED = 0.5  # that share, where a stage of shadows names no limit: above it the rollout pauses
MEASURED = ("action", "depth", "trace", REFUSED)  # what a shadow may be asked for; "action.NAME" of one dimension too
# what a guard may count of an episode: the names of the counters of `EpisodeRecord`, and novelty above `novelty_above`
GUARDED = ("interventions", "clips", "holds", "deadline_misses", "refusals", "novelty")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRequired:
    """What a stage has to show: not worse than the old version by `margin` (a difference of success rates), at `alpha`.

    maximum_episodes: of the new version; where they do not decide, the rollout pauses and a person decides.
    """

    margin: float = 0.1
    alpha: float = 0.05
    maximum_episodes: int = 1_000

    def __post_init__(self) -> None:
        real("margin", self.margin, above=0.0, high=0.9)
        real("alpha", self.alpha, above=0.0, high=0.5)
        whole("maximum_episodes", self.maximum_episodes, low=1, high=10**7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage. Exactly one of cells (a number of them), share (of the fleet) and labels (the cells that carry all of them) says who runs
    the new version; who ran it in an earlier stage goes on to.

    shadow: these cells do not run it but let it answer beside the running one; minimum_decisions and distances (measure -> largest mean)
    are then asked in place of episodes. minimum_episodes: of the new version, in this stage. proof: None where the minimum without a
    finding against it is enough. hold_out: share of the fleet that stays on the old version while the stage lasts. approvals: how many
    persons must agree before it begins; approvers: who may (empty: every operator).
    """

    name: str
    cells: int | None = None
    share: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    shadow: bool = False
    minimum_episodes: int = 0
    minimum_decisions: int = 0
    distances: Mapping[str, float] = field(default_factory=dict[str, float])
    proof: ProofRequired | None = None
    hold_out: float = 0.1
    maximum_hours: float = 168.0
    approvals: int = 0
    approvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        text("name", self.name, longest=64)
        given = [self.cells is not None, self.share is not None, bool(self.labels)]
        require(sum(given) == 1, f"stage {self.name!r}: expected exactly one of cells, share and labels, got {sum(given)} of them")
        whole("minimum_episodes", self.minimum_episodes, high=10**7)
        whole("minimum_decisions", self.minimum_decisions, high=10**9)
        whole("approvals", self.approvals, high=16)
        real("hold_out", self.hold_out, high=0.5)
        real("maximum_hours", self.maximum_hours, above=0.0, high=8_760.0)
        if self.cells is not None:
            whole("cells", self.cells, low=1, high=10**6)
        if self.share is not None:
            real("share", self.share, above=0.0, high=1.0)
        enough = not self.approvers or len(set(self.approvers)) >= self.approvals
        require(enough, f"stage {self.name!r}: {self.approvals} approvals are asked of {len(set(self.approvers))} approvers")
        asked = self.minimum_decisions if self.shadow else self.minimum_episodes
        kind = "minimum_decisions" if self.shadow else "minimum_episodes"
        require(asked >= 1, f"stage {self.name!r}: {kind} must be 1 or more, a stage that asks for nothing shows nothing")
        require(not (self.shadow and self.proof), f"stage {self.name!r}: a shadow ends no episodes, so it can carry no proof")
        require(self.shadow or not self.distances, f"stage {self.name!r}: distances are of a stage with shadow: true")
        for name, limit in self.distances.items():
            known = name in MEASURED or name.startswith("action.")
            require(known, f"stage {self.name!r}: there is no measure {name!r}; there are {', '.join(MEASURED)}, action.NAME")
            real(f"distances.{name}", limit)

    @property
    def in_words(self) -> str:
        """One line for a person."""
        labels = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        who = f"{self.cells} cells" if self.cells else f"{self.share:.0%} of the cells" if self.share else f"the cells with {labels}"
        asked = f"{self.minimum_decisions} decisions in shadow" if self.shadow else f"{self.minimum_episodes} episodes"
        parts = [f"{self.name}: {who}, at least {asked}"]
        if self.proof:
            shown = f"shown not to be worse by {self.proof.margin:g} (alpha {self.proof.alpha:g})"
            parts.append(f"{shown} within {self.proof.maximum_episodes} episodes")
        if self.approvals:
            parts.append(f"{self.approvals} approvals before it")
        return ", ".join([*parts, f"{self.hold_out:.0%} stay on the old version, at most {self.maximum_hours:g} hours"])


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The whole plan.

    release: digest (SHA-256, hex) of the new release. sites, tasks, labels: which cells it concerns, empty for all. rollback_alpha: the
    probability that a version as good as the old one is ever rolled back by the test. guards: counter of `GUARDED` -> largest share of
    episodes that may have such an event; a share that is shown to be above it, at guard_confidence over all looks together, rolls back,
    and 0 allows none.
    refusing_cells: how many cells may refuse the release (signature, probes, ...) before the rollout pauses.
    """

    name: str
    release: str
    stages: tuple[Stage, ...]
    sites: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    rollback_alpha: float = 0.05
    guards: Mapping[str, float] = field(default_factory=dict[str, float])
    guard_confidence: float = 0.95
    novelty_above: float = 0.9
    refusing_cells: int = 0
    form: Literal[1] = field(default=1)

    def __post_init__(self) -> None:
        text("name", self.name, longest=64)
        digest("release", self.release)
        require(bool(self.stages), "stages: expected one or more")
        names = [stage.name for stage in self.stages]
        require(len(set(names)) == len(names), "stages: each needs a name of its own", got=names)
        real("rollback_alpha", self.rollback_alpha, above=0.0, high=0.5)
        real("guard_confidence", self.guard_confidence, low=0.5, high=0.9999)
        real("novelty_above", self.novelty_above, high=1.0)
        whole("refusing_cells", self.refusing_cells, high=10**6)
        for name, limit in self.guards.items():
            require(name in GUARDED, f"guards: there is no counter {name!r}; there are {', '.join(GUARDED)}")
            real(f"guards.{name}", limit, high=1.0)

    def concerns(self, site: str, tasks: tuple[str, ...], labels: Mapping[str, str]) -> bool:
        """Whether a cell of this site, with these tasks and labels, is of the rollout."""
        if self.sites and site not in self.sites:
            return False
        if self.tasks and not set(self.tasks) & set(tasks):
            return False
        return not self.labels or carries(labels, self.labels)


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all `wanted` labels are among `labels`."""
    return all(labels.get(name) == value for name, value in wanted.items())
