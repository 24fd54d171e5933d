"""The confidence interval of a success rate in reports: Wilson (1927), as scipy has it.

Exact bounds, and intervals of differences, are the judge's: `model_core.statistics.intervals`, which needs no scipy.
"""

from __future__ import annotations

from collections.abc import Iterable

from components.config.records import Interval, RolloutRow, TaskScore
from model_core.spec.errors import require
from model_core.spec.types import StopReason

CONFIDENCE = 0.95


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided score interval of a proportion; (0, 1) without trials. The project's default for success rates."""
    from scipy.stats import binomtest  # it takes half a second to import

    require(0 <= successes <= trials, "successes must be 0..trials", got=(successes, trials))
    require(0.0 < confidence < 1.0, "confidence must be between 0 and 1", got=confidence)
    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(confidence, "wilson")
    return float(interval.low), float(interval.high)


def task_score(rows: Iterable[RolloutRow]) -> TaskScore:
    """Successes with their interval; an episode that the simulator broke is no trial."""
    trials = [row for row in rows if row.stop_reason != StopReason.ENV_ERROR]
    successes = sum(row.success for row in trials)
    low, high = wilson(successes, len(trials), CONFIDENCE)
    return TaskScore(successes=successes, trials=len(trials), interval=Interval(low=low, high=high, confidence=CONFIDENCE))


def percent(share: float) -> str:
    """A share in percent, one decimal."""
    return f"{100 * share:.1f} %"
