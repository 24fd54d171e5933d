"""Safety counters as one-sided exact bounds: how many trials had a refusal, a clipped command, a hold or a dropped object."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_core.spec.errors import require
from model_core.statistics.betting import log_evidence_of_rate
from model_core.statistics.binomial import lower_bound, upper_bound


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyFinding:
    """What a counter shows. low, high: one-sided exact bounds of its rate, each at the confidence that was asked.

    exceeds: the rate was shown to be above the limit, which vetoes whatever else was shown. holds: it was shown to be at or below.
    """

    counter: str
    events: int
    trials: int
    limit: float
    low: float
    high: float

    @property
    def exceeds(self) -> bool:
        """Shown to be above the limit."""
        return self.low > self.limit

    @property
    def holds(self) -> bool:
        """Shown to be at or below the limit."""
        return self.high <= self.limit


def safety_finding(counter: str, events: int, trials: int, limit: float, confidence: float = 0.95) -> SafetyFinding:
    """Compare the share of trials with an event with its limit. Trials, not control steps: steps of one trial are not independent.

    Without a trial nothing is known: the bounds are 0 and 1. Raises `SpecError` for impossible counts or a limit outside 0..1.
    """
    require(0.0 <= limit <= 1.0, f"limit of {counter}: expected 0..1", got=limit)
    low, high = (lower_bound(events, trials, confidence), upper_bound(events, trials, confidence)) if trials else (0.0, 1.0)
    return SafetyFinding(counter=counter, events=events, trials=trials, limit=limit, low=low, high=high)


def exceeds_at_any_look(events: int, trials: int, limit: float, confidence: float = 0.95) -> bool:
    """Whether a rate is shown to be above the limit, where one looks again and again as trials come in: over all looks together, a rate at
    or below the limit is said to be above it with a probability of at most 1 - confidence. `safety_finding` is for one look.

    Raises `SpecError` for impossible counts or a limit outside 0..1.
    """
    return log_evidence_of_rate(events, trials, limit) >= -math.log1p(-confidence)


def trials_without_event(limit: float, confidence: float = 0.95) -> int:
    """How many trials without any event show that the rate is at most `limit`: (1 - limit)^n <= 1 - confidence.

    Raises `SpecError` for a limit of 0.
    """
    require(0.0 < limit <= 1.0, "limit: expected above 0 and at most 1; no number of trials shows a rate of 0", got=limit)
    trials = 1
    while upper_bound(0, trials, confidence) > limit:
        trials *= 2
    low = trials // 2
    while trials - low > 1:
        middle = (low + trials) // 2
        low, trials = (low, middle) if upper_bound(0, middle, confidence) <= limit else (middle, trials)
    return trials
