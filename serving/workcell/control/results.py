"""How episodes went, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from model_core.spec.errors import require
from model_core.spec.execution.novelty import novelty_of_episode
from model_core.spec.types import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBegun:
    """A robot that moved was brought to a hold.

    t_s: monotonic. silence_s: since the service was last heard; down_s: since the link was known to be down (None: it was up).
    """

    t_s: float
    reason: str
    silence_s: float
    down_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode went. holds: control steps in which the robot was held for want of a chunk.

    stretches: control steps at reduced pace. mode: the state in which it ended. hold_begun: every time that motion ended in a
    hold before the episode did. interventions: how often a person took over. is_at_rest: the robot took its last hold. novelty: 0..1,
    the median of what the service measured (`spec.execution.novelty`); None where it measured nothing.
    """

    episode_id: str
    seed: int
    success: bool
    stop_reason: StopReason
    steps: int
    decisions: int
    refusals: int
    holds: int
    detail: str = ""
    stretches: int = 0
    mode: str = ""
    hold_begun: tuple[HoldBegun, ...] = ()
    interventions: int = 0
    is_at_rest: bool = True
    novelty: float | None = None


@dataclass(slots=True, kw_only=True)
class EpisodeNotes:
    """The running numbers of an episode in real time. code, detail: of the last thing that went wrong."""

    episode_id: str
    seed: int
    steps: int = 0
    holds: int = 0
    stretches: int = 0
    decisions: int = 0
    refusals: int = 0
    in_a_row: int = 0
    code: str = ""
    detail: str = ""
    stopped_at_s: float | None = None
    hold_begun: list[HoldBegun] = field(default_factory=list)
    interventions: int = 0
    is_at_rest: bool = True
    novelties: list[float | None] = field(default_factory=list)

    def result(self, reason: StopReason, mode: str) -> EpisodeResult:
        """How it went."""
        return EpisodeResult(
            episode_id=self.episode_id,
            seed=self.seed,
            success=reason is StopReason.SUCCESS,
            stop_reason=reason,
            steps=self.steps,
            decisions=self.decisions,
            refusals=self.refusals,
            holds=self.holds,
            detail="" if reason is StopReason.SUCCESS else self.detail[:400],
            stretches=self.stretches,
            mode=mode,
            hold_begun=tuple(self.hold_begun),
            interventions=self.interventions,
            is_at_rest=self.is_at_rest,
            novelty=novelty_of_episode(self.novelties),
        )


@dataclass(slots=True)
class EpisodeJournal:
    """The notes of the episode that runs, for everything that takes part in it; None between episodes."""

    notes: EpisodeNotes | None = None

    @property
    def running(self) -> EpisodeNotes:
        """The notes; SpecError between episodes."""
        require(self.notes is not None, "this belongs between the begin and the end of an episode")
        assert self.notes is not None
        return self.notes

    def detail(self, text: str) -> None:
        """What went wrong last, in words."""
        if self.notes is not None:
            self.notes.detail = text

    def refused(self, code: str, reason: str, *, counts: bool) -> None:
        """A request brought no chunk. counts: asking again will not help."""
        if self.notes is not None:
            self.notes.refusals += 1
            self.notes.in_a_row += counts
            self.notes.code, self.notes.detail = code, f"{code}: {reason}"

    def intervened(self, operator: str) -> None:
        """A person took over; "": gave back."""
        if self.notes is not None:
            self.notes.interventions += bool(operator)

    def measured(self, novelty: float | None) -> None:
        """A chunk came, with the novelty of what it was made for."""
        if self.notes is not None:
            self.notes.novelties.append(novelty)

    def answered(self) -> None:
        """A chunk may be executed: what went wrong before it counts no more."""
        if self.notes is not None:
            self.notes.in_a_row, self.notes.code = 0, ""
