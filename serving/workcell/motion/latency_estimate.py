"""How many rows will be executed while the next answer is made: a windowed high quantile of what was seen, which forgets."""

from __future__ import annotations

import math
from collections import deque


class DelayWindow:
    """The last `size` measured delays, in rows.

    A delay is what was really *consumed* between an observation and the install of its chunk, never a time: a robot that
    stands still consumes nothing, however long the first answer takes (the fault of lerobot#4223). The quantile leaves one
    outlier in ten out, and a window of ten forgets a slow spell after ten answers.
    """

    def __init__(self, size: int = 10, quantile: float = 0.8) -> None:
        self._seen: deque[float] = deque(maxlen=size)
        self._quantile = quantile

    def add(self, rows: float) -> None:
        """One more measured delay."""
        self._seen.append(max(rows, 0.0))

    def predict(self, cap: int) -> int:
        """Whole rows, 0..cap: the nearest-rank quantile of the window; 0 while nothing was measured."""
        if not self._seen:
            return 0
        ordered = sorted(self._seen)
        rank = max(math.ceil(self._quantile * len(ordered)) - 1, 0)
        return min(math.ceil(ordered[rank]), cap)

    def forget(self) -> None:
        """Nothing was measured."""
        self._seen.clear()
