"""How episodes went, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.spec.types import StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBegun:
    """A body that moved was brought to a hold.

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
    hold before the episode did.
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
