"""Counts what an exported set does not hold, for the person who asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class LeftOut:
    """place: what has no place for it, with its verb. late_s: the largest distance of a measured time from its step's."""

    place: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    late_s: float = 0.0

    def add(self, flags: Mapping[str, bool]) -> None:
        """Count what an episode has and the set has not."""
        for what, is_there in flags.items():
            if is_there:
                self.counts[what] = self.counts.get(what, 0) + 1

    def add_times(self, timestamps_T: NDArray[np.float64], rate_hz: float) -> None:
        """Compare an episode's measured times with those of its steps."""
        times_T = timestamps_T - timestamps_T[0]
        self.late_s = max(self.late_s, float(np.abs(times_T - np.arange(len(times_T)) / rate_hz).max()))

    def sentences(self, of_times: str) -> tuple[str, ...]:
        """What a person is told. of_times: what became of measured times that differ from those of the steps."""
        told = [f"left out, since {self.place} no place for it: {what} ({count} episodes)" for what, count in self.counts.items()]
        if self.late_s > 1e-4:
            told.append(f"{of_times}, which differs by up to {self.late_s:.4f} s")
        return tuple(told)
