"""The confidence interval of a success rate in reports: Wilson (1927), as scipy has it.

Exact bounds, and intervals of differences, are the judge's: `model_core.statistics.intervals`, which needs no scipy.
"""

from __future__ import annotations

from model_core.spec.errors import require

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
