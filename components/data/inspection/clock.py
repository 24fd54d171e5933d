"""Rules of an episode's clock: a chunk is rows that are one control period apart, so the frames it is learned from must be too.

Times are measured by the recorder, so every period may differ a little; the whole episode may not: a loop that runs 2 % too slow
passes every single period, and all its movements are 2 % too fast when they are executed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.rule import EPISODES, InspectionRule
from model_core.spec.episode import Episode


def clock_rules(cfg: ValidateConfig, control_hz: float) -> list[InspectionRule]:
    """Every frame has a time, one control period after the one before, and the whole episode lasts as long as its steps take."""
    period_s = 1.0 / control_hz
    tolerance_s = cfg.max_timestamp_jitter_s + cfg.max_period_error * period_s

    def periods(episode: Episode) -> NDArray[np.float64]:
        found = np.diff(episode.timestamps_T, prepend=episode.timestamps_T[0] - period_s)
        # without a time there is no period, before it or after it, not even where the difference of two infinities is taken
        return np.where(np.isfinite(episode.timestamps_T), found, np.nan)

    def rate_error(episode: Episode) -> float:
        expected_s = (len(episode) - 1) * period_s
        if expected_s <= 0 or not (np.abs(periods(episode) - period_s) <= tolerance_s).all():
            return 0.0  # the rules of the single times name that
        lasted_s = float(episode.timestamps_T[-1] - episode.timestamps_T[0])
        return max(abs(lasted_s - expected_s) - tolerance_s, 0.0) / expected_s

    every = f"one frame every {period_s:.4g} s ({control_hz:g} Hz), within {tolerance_s:.3g} s"
    whole = f"the episode lasts as long as its steps take at {control_hz:g} Hz, within {cfg.max_rate_error:.1%}"
    clock: dict[str, Any] = {"check": "timestamps", "column": "period_s", "measure": periods, "is_basic": True}
    rate: dict[str, Any] = {"check": "clock_rate", "column": "rate_error", "table": EPISODES, "measure": rate_error, "is_basic": True}
    return [
        InspectionRule(meaning="every frame has a time", kind="present", **clock),
        InspectionRule(meaning=every, low=period_s - tolerance_s, high=period_s + tolerance_s, **clock),
        InspectionRule(meaning=whole, low=0.0, high=cfg.max_rate_error, **rate),
    ]
