"""What a sequential test answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What a test found of its claim. OPEN: more trials can still decide; NOT_ENOUGH: the planned maximum did not, or cannot any more."""

    SHOWN = "shown"
    REFUTED = "refuted"
    OPEN = "open"
    NOT_ENOUGH = "not enough"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The state of a sequential test.

    pairs: after how many of them it was decided, else how many it has. p_value: valid however often it was looked at; against the claim's
    opposite. refuting: the same against the claim. detail: the boundary that was met or not, in words.
    """

    outcome: Outcome
    pairs: int
    p_value: float = 1.0
    refuting: float = 1.0
    detail: str = ""

    @property
    def is_final(self) -> bool:
        """Whether no further trial is to be run."""
        return self.outcome is not Outcome.OPEN
