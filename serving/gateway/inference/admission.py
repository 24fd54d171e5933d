"""What an answer takes, measured; and from that: who is admitted, at which level, and who is told to come back later.

    needed = rest of the running block + wait for a free row + p95(level, rows in the round)
    admit when now + needed <= deadline; an idle engine always tries, so that one slow answer never refuses all others

No clock and no thread of its own.
"""

from __future__ import annotations

import bisect
import itertools
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_core.spec.types import LEVELS

BUCKETS = (1, 2, 4, 8, 16)
_KEPT = 64
FEW_JOINS = 4  # to one block of a round, while nobody knows what a join costs
_WITNESSES = 3  # so many answers of one size say something of the sizes beside it: a single slow one does not


def bucket_of(rows: int) -> int:
    """The smallest bucket that holds `rows`."""
    return next((b for b in BUCKETS if rows <= b), BUCKETS[-1])


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie, rounded down: with fewer than twenty values the single largest never counts."""
    return sorted(values)[int(share * (len(values) - 1))]


def read_off(curve: Mapping[int, float], rows: int) -> float:
    """Seconds at a size that is not on the curve (rows -> seconds, at least one).

    Between two sizes a straight line, on a curve that never falls. Beyond the largest it goes on as steeply as it ever rose, and at
    most as the same work in batches of the largest would; from a single size nothing is known but that. Below the smallest: no faster.
    """
    sizes = sorted(curve)
    rising = list(itertools.accumulate((curve[size] for size in sizes), max))
    place = bisect.bisect_left(sizes, rows)
    if place == 0:
        return rising[0]
    if place < len(sizes):
        share = (rows - sizes[place - 1]) / (sizes[place] - sizes[place - 1])
        return rising[place - 1] + share * (rising[place] - rising[place - 1])
    again = rising[-1] * rows / sizes[-1]
    slopes = [(t1 - t0) / (b1 - b0) for (b0, t0), (b1, t1) in itertools.pairwise(zip(sizes, rising, strict=True))]
    return min(rising[-1] + max(slopes) * (rows - sizes[-1]), again) if slopes else again


class ServiceTimes:
    """Seconds from joining the round to the answer, per level and number of rows, over a sliding window. Thread-safe.

    window_s: measurements older than this are forgotten; then what was measured before readiness (`add_baseline`) counts again,
    so that a bad hour is not remembered for ever, nor a level shunned that nobody tries any more.

    A size that nobody has measured is read off the curve of those that were (`read_off`), and off what really happened as soon
    as it has: what answers take now moves the whole curve, and the median of a size that had to be estimated is kept for later.
    """

    def __init__(self, window_s: float = 60.0) -> None:
        self._window_s = window_s
        self._seen: dict[tuple[str, int], deque[tuple[float, float]]] = {}
        self._baseline: dict[tuple[str, int], float] = {}
        self._learnt: set[tuple[str, int]] = set()
        self._blocks: deque[tuple[float, float, int | None]] = deque(maxlen=_KEPT)
        self._quantiles: dict[tuple[str, int, float], tuple[int, float]] = {}
        self._added: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()  # written by the engine's thread, read by the event loop

    def add_baseline(self, level: str, rows: int, seconds: float) -> None:
        """What was measured before anybody asked."""
        with self._lock:
            self._baseline[level, bucket_of(rows)] = seconds

    def baseline(self, level: str, rows: int) -> float | None:
        """What was measured before anybody asked, exactly for this many rows."""
        return self._baseline.get((level, bucket_of(rows)))

    def add(self, level: str, rows: int, seconds: float, now: float) -> None:
        """One answer took `seconds` in a round of at most `rows`."""
        key = level, bucket_of(rows)
        with self._lock:
            self._seen.setdefault(key, deque(maxlen=_KEPT)).append((now, seconds))
            self._added[key] = self._added.get(key, 0) + 1

    def add_block(self, seconds: float, now: float, joined: int | None = None) -> None:
        """One block of the round took `seconds`. joined: so many joined those who were in it (None: nobody was)."""
        with self._lock:
            self._blocks.append((now, seconds, joined))

    def forget(self, now: float) -> None:
        """Drop what is older than the window."""
        before = now - self._window_s
        with self._lock:
            for key in [key for key, seen in self._seen.items() if seen[0][0] < before]:
                seen = self._seen[key]
                self._keep_learnt(*key)
                self._added[key] += _KEPT  # the next question sorts again
                while seen and seen[0][0] < before:
                    seen.popleft()
                if not seen:
                    del self._seen[key]
            while self._blocks and self._blocks[0][0] < before:
                self._blocks.popleft()

    def p95(self, level: str, rows: int) -> float:
        """Seconds that 95 of 100 answers need; 0 where nothing has been measured."""
        with self._lock:
            return self._estimate(level, bucket_of(rows), 0.95)

    def p50(self, level: str, rows: int) -> float:
        """The median; 0 where nothing has been measured."""
        with self._lock:
            return self._estimate(level, bucket_of(rows), 0.5)

    @property
    def block_s(self) -> float:
        """95 of 100 blocks take at most this; 0 where nothing has been measured."""
        with self._lock:
            seconds = [s for _, s, _ in self._blocks]
        return quantile(seconds, 0.95) if seconds else 0.0

    @property
    def joins_a_block(self) -> int:
        """How many may join a running round in one block, so that those who are in it wait about one block more; at least one.

        Whoever joins has a prompt to be read, and everybody waits for that.
        """
        with self._lock:
            blocks = [(seconds, joined) for _, seconds, joined in self._blocks if joined is not None]
        plain = [seconds for seconds, joined in blocks if joined == 0]
        if not plain or len(plain) == len(blocks):
            return FEW_JOINS
        usual_s = quantile(plain, 0.5)
        join_s = quantile([max(seconds - usual_s, 0.0) / joined for seconds, joined in blocks if joined], 0.5)
        return max(1, int(usual_s / join_s)) if join_s * BUCKETS[-1] > usual_s else BUCKETS[-1]

    def profile(self) -> dict[str, dict[str, float]]:
        """Per measured level, for a request alone: p50_ms and p95_ms."""
        with self._lock:
            levels = sorted({level for level, _ in (*self._seen, *self._baseline)})
        return {
            level: {"p50_ms": round(1e3 * self.p50(level, 1), 3), "p95_ms": round(1e3 * self.p95(level, 1), 3)} for level in levels if level
        }

    def capacity_per_s(self, level: str) -> float:
        """Answers a second at the best measured batch; infinite where nothing has been measured."""
        with self._lock:
            measured = self._measured(level, 0.5)
        return max((bucket / max(seconds, 1e-6) for bucket, seconds in measured.items()), default=math.inf)

    def _measured(self, level: str, share: float) -> dict[int, float]:
        baseline = {bucket: seconds for (name, bucket), seconds in self._baseline.items() if name == level}
        window = {b: self._quantile(name, b, share) for (name, b), seen in self._seen.items() if name == level and seen}
        return baseline | window

    def _quantile(self, level: str, bucket: int, share: float) -> float:
        """Sorted again only after a sixteenth of the window has come: a sort per request would be the dearest thing in its path."""
        seen, added = self._seen[level, bucket], self._added.get((level, bucket), 0)
        at, value = self._quantiles.get((level, bucket, share), (-_KEPT, 0.0))
        if added - at > len(seen) // 16:
            value = quantile([s for _, s in seen], share)
            self._quantiles[level, bucket, share] = added, value
        return value

    def _estimate(self, level: str, bucket: int, share: float) -> float:
        if self._seen.get((level, bucket)):
            return self._quantile(level, bucket, share)  # what really happens at this size
        curve = self._curve(level, share)
        if not curve:
            return 0.0
        return curve[bucket] if bucket in curve else read_off(curve, bucket)

    def _curve(self, level: str, share: float) -> dict[int, float]:
        """What is known of every size. Whatever was measured before readiness gives way to what several answers take now: a larger
        batch is never faster than they are at a smaller one, nor a smaller one slower than they are at a larger.
        """
        known = {bucket: seconds for (name, bucket), seconds in self._baseline.items() if name == level}
        seen = {b: self._quantile(name, b, share) for (name, b), many in self._seen.items() if name == level and many}
        sure = {b: s for b, s in seen.items() if b not in known or len(self._seen[level, b]) >= _WITNESSES}
        for bucket in known.keys() - sure.keys():
            most = min((s for b, s in sure.items() if b > bucket), default=math.inf)
            least = max((s for b, s in sure.items() if b < bucket), default=0.0)
            known[bucket] = max(min(known[bucket], most), least)
        return known | sure

    def _keep_learnt(self, level: str, bucket: int) -> None:
        """A size that was not measured before readiness and is about to be forgotten: its median stays, bounded by the same work
        done in smaller batches, so that one bad minute does not shun it for ever.
        """
        others = {b: s for (name, b), s in self._baseline.items() if name == level and b < bucket}
        seen = self._seen[level, bucket]
        if (level, bucket) in self._baseline and (level, bucket) not in self._learnt:
            return
        if others and len(seen) >= _WITNESSES:
            nearest = max(others)
            self._baseline[level, bucket] = min(quantile([s for _, s in seen], 0.5), others[nearest] * bucket / nearest)
            self._learnt.add((level, bucket))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the engine does at one moment.

    running: (level, seconds since it joined) per row of the round. ahead: waiting requests with an earlier deadline.
    block_for_s: how long the running block has been running, None when none runs. joins: how many may join in one block.
    """

    capacity: int
    running: Sequence[tuple[str, float]] = ()
    ahead: int = 0
    block_for_s: float | None = None
    joins: int = FEW_JOINS

    @property
    def is_idle(self) -> bool:
        """Nobody in it, nobody before us."""
        return not self.running and self.ahead == 0 and self.block_for_s is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """level: the one to serve; None when nothing can be met, and then needed_s says what the cheapest would need."""

    level: str | None
    needed_s: float


def needed_s(times: ServiceTimes, load: Load, level: str) -> float:
    """About how long from now until an answer at `level`."""
    if load.is_idle:
        return times.p95(level, 1)
    rows = len(load.running)
    rest_of_block = 0.0 if load.block_for_s is None else max(times.block_s - load.block_for_s, 0.0)
    free = load.capacity - rows
    wait = rest_of_block + (load.ahead // load.joins * times.block_s if rows else 0.0)
    if load.ahead >= free:
        rests = sorted(max(times.p95(name, rows) - age, 0.0) for name, age in load.running) or [0.0]
        waves, place = divmod(load.ahead - max(free, 0), load.capacity)
        wait = max(wait, rests[min(place, len(rests) - 1)]) + waves * times.p95(level, load.capacity)
    return wait + times.p95(level, min(load.capacity, rows + load.ahead + 1))


def choose(times: ServiceTimes, load: Load, levels: Sequence[str], left_s: float) -> Verdict:
    """The first of `levels` (dearest first) that can be answered within `left_s`."""
    if left_s <= 0:
        return Verdict(level=None, needed_s=0.0)
    needs = [needed_s(times, load, level) for level in levels]
    for level, needed in zip(levels, needs, strict=True):
        if needed <= left_s:
            return Verdict(level=level, needed_s=needed)
    if load.is_idle:  # the cheapest is tried all the same: otherwise nothing would ever be measured again
        return Verdict(level=levels[-1], needed_s=needs[-1])
    return Verdict(level=None, needed_s=min(needs))


@dataclass(slots=True)
class Reservations:
    """Requests a second that sessions were promised, against a share of what the engine was measured to do."""

    share: float = 0.75
    held: dict[str, float] = field(default_factory=dict)

    @property
    def total_per_s(self) -> float:
        """The sum of all promises."""
        return sum(self.held.values())

    def refuses(self, cell: str, rate_per_s: float, capacity_per_s: float) -> str:
        """Why `cell` cannot be promised `rate_per_s` (in place of what it holds); "" when it can."""
        others = self.total_per_s - self.held.get(cell, 0.0)
        most = self.share * capacity_per_s
        if rate_per_s <= 0 or others + rate_per_s <= most:
            return ""
        return (
            f"{rate_per_s:g} requests a second cannot be reserved: {others:g} are promised already, and {100 * self.share:.0f} % of the "
            f"measured capacity are {most:.3g}"
        )

    def hold(self, cell: str, rate_per_s: float) -> None:
        """Promise."""
        if rate_per_s > 0:
            self.held[cell] = rate_per_s
        else:
            self.held.pop(cell, None)

    def free(self, cell: str) -> None:
        """Take the promise back."""
        self.held.pop(cell, None)


def cheaper_levels(asked: str, allowed: Sequence[str], works: Mapping[str, bool], own: str) -> tuple[str, ...]:
    """`asked` and then every cheaper level that may stand in for it, dearest first.

    A named level is a wish that is not changed; "" (the policy's own, `own`) leaves the choice to the service, among the levels
    that the contract has `allowed` and that were seen to work.
    """
    if asked or own not in LEVELS:
        return (asked,)
    below = LEVELS[LEVELS.index(own) + 1 :]
    return (asked, *(level for level in below if level in allowed and works.get(level, False)))
