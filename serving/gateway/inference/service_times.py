"""How long answers take: measured per reasoning level and batch size, and estimated for a size that was not measured."""

from __future__ import annotations

import bisect
import itertools
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence

BATCH_SIZES = (1, 2, 4, 8, 16)
FEW_JOINS = 4  # per block of a round, while the cost of a join has not been measured
_WINDOW_COUNT = 64
_ENOUGH_ANSWERS = 3  # of one size, before they say something about the sizes beside it: a single slow answer does not


def batch_size_for(rows: int) -> int:
    """The smallest measured batch size that holds `rows`."""
    return next((size for size in BATCH_SIZES if rows <= size), BATCH_SIZES[-1])


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie, rounded down: with fewer than twenty values the single largest never counts."""
    return sorted(values)[int(share * (len(values) - 1))]


def interpolated(curve: Mapping[int, float], rows: int) -> float:
    """Seconds for `rows`, a size that is not on the curve (rows -> seconds, at least one point).

    Between two sizes: linear, on a curve that never falls. Beyond the largest size: extrapolated with the steepest measured slope, at most
    as long as the same work in batches of the largest size; from a single size only that bound is known. Below the smallest: no faster.
    """
    sizes = sorted(curve)
    rising = list(itertools.accumulate((curve[size] for size in sizes), max))
    place = bisect.bisect_left(sizes, rows)
    if place == 0:
        return rising[0]
    if place < len(sizes):
        share = (rows - sizes[place - 1]) / (sizes[place] - sizes[place - 1])
        return rising[place - 1] + share * (rising[place] - rising[place - 1])
    in_batches = rising[-1] * rows / sizes[-1]
    slopes = [(t1 - t0) / (b1 - b0) for (b0, t0), (b1, t1) in itertools.pairwise(zip(sizes, rising, strict=True))]
    return min(rising[-1] + max(slopes) * (rows - sizes[-1]), in_batches) if slopes else in_batches


class ServiceTimes:
    """Seconds from joining the round to the answer, per level and number of rows, over a sliding window. Thread-safe.

    window_s: measurements older than this are dropped; then what was measured before readiness (`add_baseline`) counts again, so that
    a bad hour does not count for ever, and a level that is no longer used is not avoided for ever.

    A size that was never measured is interpolated from the measured ones (`interpolated`) until real answers of that size exist. Recent
    answers move the whole curve, and the median of a size that had to be estimated is kept for later.
    """

    def __init__(self, window_s: float = 60.0) -> None:
        self._window_s = window_s
        self._recent: dict[tuple[str, int], deque[tuple[float, float]]] = {}
        self._baseline: dict[tuple[str, int], float] = {}
        self._learned: set[tuple[str, int]] = set()
        self._blocks: deque[tuple[float, float, int | None]] = deque(maxlen=_WINDOW_COUNT)
        self._quantiles: dict[tuple[str, int, float], tuple[int, float]] = {}
        self._added: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()  # written by the inference thread, read by the event loop

    def add_baseline(self, level: str, rows: int, seconds: float) -> None:
        """Record a measurement that was taken before readiness."""
        with self._lock:
            self._baseline[level, batch_size_for(rows)] = seconds

    def baseline(self, level: str, rows: int) -> float | None:
        """What was measured before readiness, exactly for this many rows."""
        return self._baseline.get((level, batch_size_for(rows)))

    def add(self, level: str, rows: int, seconds: float, now: float) -> None:
        """One answer took `seconds` in a round of at most `rows`."""
        key = level, batch_size_for(rows)
        with self._lock:
            self._recent.setdefault(key, deque(maxlen=_WINDOW_COUNT)).append((now, seconds))
            self._added[key] = self._added.get(key, 0) + 1

    def add_block(self, seconds: float, now: float, joined: int | None = None) -> None:
        """One block of the round took `seconds`. joined: how many requests joined those already in it (None: it was empty)."""
        with self._lock:
            self._blocks.append((now, seconds, joined))

    def forget(self, now: float) -> None:
        """Drop what is older than the window."""
        before = now - self._window_s
        with self._lock:
            for key in [key for key, recent in self._recent.items() if recent[0][0] < before]:
                recent = self._recent[key]
                self._keep_learned(*key)
                self._added[key] += _WINDOW_COUNT  # the next estimate sorts again
                while recent and recent[0][0] < before:
                    recent.popleft()
                if not recent:
                    del self._recent[key]
            while self._blocks and self._blocks[0][0] < before:
                self._blocks.popleft()

    def p95(self, level: str, rows: int) -> float:
        """Seconds within which 95 of 100 answers arrive; 0 where nothing has been measured."""
        with self._lock:
            return self._estimate(level, batch_size_for(rows), 0.95)

    def p50(self, level: str, rows: int) -> float:
        """The median; 0 where nothing has been measured."""
        with self._lock:
            return self._estimate(level, batch_size_for(rows), 0.5)

    @property
    def block_s(self) -> float:
        """95 of 100 blocks take at most this; 0 where nothing has been measured."""
        with self._lock:
            seconds = [s for _, s, _ in self._blocks]
        return quantile(seconds, 0.95) if seconds else 0.0

    @property
    def joins_per_block(self) -> int:
        """How many requests may join a running round in one block, so that its other requests wait about one block more; at least one.

        The prompt of a request that joins has to be read, and every request in the round waits for that.
        """
        with self._lock:
            blocks = [(seconds, joined) for _, seconds, joined in self._blocks if joined is not None]
        plain = [seconds for seconds, joined in blocks if joined == 0]
        if not plain or len(plain) == len(blocks):
            return FEW_JOINS
        usual_s = quantile(plain, 0.5)
        join_s = quantile([max(seconds - usual_s, 0.0) / joined for seconds, joined in blocks if joined], 0.5)
        return max(1, int(usual_s / join_s)) if join_s * BATCH_SIZES[-1] > usual_s else BATCH_SIZES[-1]

    def profile(self) -> dict[str, dict[str, float]]:
        """Per measured level, for a request alone: p50_ms and p95_ms."""
        with self._lock:
            levels = sorted({level for level, _ in (*self._recent, *self._baseline)})
        return {
            level: {"p50_ms": round(1e3 * self.p50(level, 1), 3), "p95_ms": round(1e3 * self.p95(level, 1), 3)} for level in levels if level
        }

    def capacity_per_s(self, level: str) -> float:
        """Answers per second at the best measured batch size; infinite where nothing has been measured."""
        with self._lock:
            measured = self._measured(level, 0.5)
        return max((size / max(seconds, 1e-6) for size, seconds in measured.items()), default=math.inf)

    def _measured(self, level: str, share: float) -> dict[int, float]:
        baseline = {size: seconds for (name, size), seconds in self._baseline.items() if name == level}
        window = {size: self._quantile(name, size, share) for (name, size), recent in self._recent.items() if name == level and recent}
        return baseline | window

    def _quantile(self, level: str, size: int, share: float) -> float:
        """Sorted again only after a sixteenth of the window is new: a sort per request would be the most expensive part of its path."""
        recent, added = self._recent[level, size], self._added.get((level, size), 0)
        at, value = self._quantiles.get((level, size, share), (-_WINDOW_COUNT, 0.0))
        if added - at > len(recent) // 16:
            value = quantile([s for _, s in recent], share)
            self._quantiles[level, size, share] = added, value
        return value

    def _estimate(self, level: str, size: int, share: float) -> float:
        if self._recent.get((level, size)):
            return self._quantile(level, size, share)  # measured at this size, recently
        curve = self._curve(level, share)
        if not curve:
            return 0.0
        return curve[size] if size in curve else interpolated(curve, size)

    def _curve(self, level: str, share: float) -> dict[int, float]:
        """Seconds of every known size. Measurements from before readiness give way to several recent answers: a larger batch is never
        faster than recent answers at a smaller size, nor a smaller batch slower than recent answers at a larger one.
        """
        known = {size: seconds for (name, size), seconds in self._baseline.items() if name == level}
        recent = {b: self._quantile(name, b, share) for (name, b), many in self._recent.items() if name == level and many}
        sure = {b: s for b, s in recent.items() if b not in known or len(self._recent[level, b]) >= _ENOUGH_ANSWERS}
        for size in known.keys() - sure.keys():
            most = min((s for b, s in sure.items() if b > size), default=math.inf)
            least = max((s for b, s in sure.items() if b < size), default=0.0)
            known[size] = max(min(known[size], most), least)
        return known | sure

    def _keep_learned(self, level: str, size: int) -> None:
        """Keep the median of a size that was not measured before readiness and is about to be dropped. It is bounded by the same work
        done in smaller batches, so that one bad minute does not exclude the size for ever.
        """
        others = {b: s for (name, b), s in self._baseline.items() if name == level and b < size}
        recent = self._recent[level, size]
        if (level, size) in self._baseline and (level, size) not in self._learned:
            return
        if others and len(recent) >= _ENOUGH_ANSWERS:
            nearest = max(others)
            self._baseline[level, size] = min(quantile([s for _, s in recent], 0.5), others[nearest] * size / nearest)
            self._learned.add((level, size))
