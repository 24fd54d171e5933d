"""One inspection rule, and how it judges the episode that is in memory. Pure: no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_core.spec.episode import Episode

FRAMES, EPISODES = "frames", "episodes"

Measure = Callable[[Episode], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionRule:
    """One rule: `measure` of the episode (a number per frame, or one) is present, or is within low..high.

    check: name of the finding. column: names the measure; rules of one column share it. meaning: what is expected, for a person.
    table: `FRAMES` or `EPISODES`. kind: "present" or "between". is_basic: without it an episode is unusable for any recipe.
    """

    check: str
    column: str
    meaning: str
    measure: Measure
    table: str = FRAMES
    kind: str = "between"
    low: float | None = None
    high: float | None = None
    is_basic: bool = False


def fault_of(rule: InspectionRule, episode: Episode) -> str:
    """Why the episode breaks the rule, with what was expected and got; "" where it does not.

    What is not a number breaks the "present" rule of its column, and only that.
    """
    values = np.atleast_1d(np.asarray(rule.measure(episode), np.float64))
    finite = np.isfinite(values)
    bad = ~finite
    if rule.kind == "between":
        low, high = (-np.inf if rule.low is None else rule.low), (np.inf if rule.high is None else rule.high)
        bad = finite & ((values < low) | (values > high))
    if not bad.any():
        return ""
    step = int(np.argmax(bad))
    places = f"in {int(bad.sum())} of {len(values)} frames, first {values[step]:.4g} at step {step}"
    return f"expected: {rule.meaning}; got {places if rule.table == FRAMES else f'{values[0]:.4g}'}"
