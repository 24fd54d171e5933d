"""What the paper reports of its own trainings (arXiv 2508.07917): GPU hours on H100, to stand beside a plan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRun:
    """GPU hours that a training is reported to have taken, from low to high; where both are equal only one is reported."""

    low: float
    high: float


# by the name of our recipe; of post-training the paper reports no hours
REPORTED = {"molmoact_pretrain": ReportedRun(low=9216, high=9728), "molmoact_midtrain": ReportedRun(low=2300, high=2300)}
PADDED_TOKENS = 2304  # every example is padded to this many tokens there
PADDED_CROPS = {1: 9, 2: 18}  # and to this many crops, by the number of its images
