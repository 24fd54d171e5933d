"""What a candidate must show to become champion: chosen in the recipe, before any of its trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from components.config.checks import fraction, positive
from model_core.spec.documents import LATER
from model_core.spec.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What a candidate must show to become champion.

    floor: with `confidence`, the success rate on every task is at least this: the exact one-sided bound (0.55 asks for 16 of 20, 80 %).
    claim: against the champion, "non-inferiority": on no task worse by `margin` (a difference of success rates); "superiority": besides,
    better over all tasks. test: of the latter, "anytime" or "group-sequential" (fewer trials where the difference is small); looks at whole
    blocks. max_pairs: of each task; pairs_per_block: run together until the comparison is decided, where the suite's scenes go on.
    min_trials: per task, else "not enough". max_refused_trials: a share of trials with a refused decision that is shown to be above it
    vetoes; max_clipped_trials, max_held_trials, max_dropped_trials: the same of trials with a command that the safety envelope clipped, a
    control step that was held for want of an action, an answer that was dropped. max_open_loop_error: where no suite exists,
    the error of the predicted actions on held-out episodes, as a share of that of always predicting the mean action, may be at most this;
    floor and min_trials do not apply then, and `margin` is the share by which that error may be above the champion's.
    """

    floor: float = 0.55
    confidence: float = 0.95
    margin: float = 0.15
    claim: Literal["non-inferiority", "superiority"] = "non-inferiority"
    test: Literal["anytime", "group-sequential"] = "anytime"
    max_pairs: int = 60
    pairs_per_block: int = 10
    min_trials: int = 20
    max_refusal_rate: float = 0.05
    max_refused_trials: float = 0.5
    min_image_swap_change: float = 0.5
    max_open_loop_error: float = 0.5
    max_clipped_trials: float = field(default=0.5, metadata=LATER)
    max_held_trials: float = field(default=0.5, metadata=LATER)
    max_dropped_trials: float = field(default=0.5, metadata=LATER)

    def __post_init__(self) -> None:
        fraction(self, "max_clipped_trials", "max_held_trials", "max_dropped_trials")
        fraction(self, "floor", "confidence", "margin", "max_refusal_rate", "max_refused_trials", "min_image_swap_change")
        positive(self, "max_pairs", "pairs_per_block")
        require(0.0 < self.confidence < 1.0, "gate.confidence must be between 0 and 1; 0.95 is usual", got=self.confidence)
        require(
            self.test == "anytime" or self.claim == "superiority",
            'gate.test "group-sequential" is of the claim "superiority". Fix: set gate.claim=superiority, or gate.test=anytime',
        )

    @property
    def alpha(self) -> float:
        """The probability of a wrong claim."""
        return 1.0 - self.confidence
