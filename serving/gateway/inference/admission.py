"""Which requests are admitted, at which level, and which are refused with a time to retry, from measured service times.

    needed = rest of the running block + wait for a free row + p95(level, rows in the round)
    admit when now + needed <= deadline; an idle engine always tries, so that one slow answer never refuses all others

Pure functions: no clock and no thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_core.spec.types import LEVELS, RefusalCode
from serving.gateway.inference.service_times import FEW_JOINS, ServiceTimes


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
        """No request runs, and none waits ahead."""
        return not self.running and self.ahead == 0 and self.block_for_s is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """level: the one to serve; None when no level can meet the deadline, and then needed_s is what the cheapest would need."""

    level: str | None
    needed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRefusal:
    """Why a request is not admitted. retry_after_ms: asking again earlier finds the same load."""

    code: RefusalCode
    reason: str
    retry_after_ms: float


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


def admit(times: ServiceTimes, load: Load, levels: Sequence[str], left_s: float) -> Admission:
    """The first of `levels` (most expensive first) that can be answered within `left_s`."""
    if left_s <= 0:
        return Admission(level=None, needed_s=0.0)
    needs = [needed_s(times, load, level) for level in levels]
    for level, needed in zip(levels, needs, strict=True):
        if needed <= left_s:
            return Admission(level=level, needed_s=needed)
    if load.is_idle:  # the cheapest is tried all the same: otherwise nothing would ever be measured again
        return Admission(level=levels[-1], needed_s=needs[-1])
    return Admission(level=None, needed_s=min(needs))


def admission_refusal(
    times: ServiceTimes, load: Load, levels: Sequence[str], left_s: float, *, is_full: bool, max_queue: int
) -> AdmissionRefusal | None:
    """Why a request with `left_s` to its deadline is refused now; None when it is admitted. is_full: no more requests may wait."""
    found = admit(times, load, levels, left_s)
    if found.level is not None and not is_full:
        return None
    # How long until a row becomes free: asking again earlier finds the same load.
    retry_after_ms = 1e3 * max(times.p50(levels[0], max(load.capacity // 2, 1)), times.block_s, 0.001)
    if is_full:
        reason = f"{max_queue} requests are waiting already"
        return AdmissionRefusal(code=RefusalCode.OVERLOAD, reason=reason, retry_after_ms=retry_after_ms)
    left_ms, alone_ms = 1e3 * left_s, 1e3 * min(times.p95(level, 1) for level in levels)
    return AdmissionRefusal(
        code=RefusalCode.DEADLINE if alone_ms > left_ms else RefusalCode.OVERLOAD,
        reason=f"an answer takes about {1e3 * found.needed_s:.0f} ms now, the deadline leaves {max(left_ms, 0):.0f} ms",
        retry_after_ms=retry_after_ms,
    )


def level_at_join(times: ServiceTimes, levels: Sequence[str], rows: int, left_s: float, *, always: bool) -> str | None:
    """The level at which a request joins a round of `rows`; None when its deadline can no longer be met.

    always: the request came to an idle engine, which tries the cheapest level also where the estimate says that it is too slow.
    """
    fitting = [level for level in levels if times.p95(level, rows) <= left_s]
    if left_s <= 0 or (not fitting and not always):
        return None
    return fitting[0] if fitting else levels[-1]


@dataclass(slots=True)
class Reservations:
    """Requests per second that sessions were promised, against a share of the measured capacity."""

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
        """Promise `rate_per_s` to `cell`; 0 promises nothing."""
        if rate_per_s > 0:
            self.held[cell] = rate_per_s
        else:
            self.held.pop(cell, None)

    def free(self, cell: str) -> None:
        """Take the promise back."""
        self.held.pop(cell, None)


def cheaper_levels(asked: str, allowed: Sequence[str], works: Mapping[str, bool], own: str) -> tuple[str, ...]:
    """`asked` and then every cheaper level that may replace it, most expensive first.

    A level that the cell names is never changed; "" (the policy's own level, `own`) leaves the choice to the service, among the levels
    that the contract has `allowed` and that answered during the warm-up.
    """
    if asked or own not in LEVELS:
        return (asked,)
    below = LEVELS[LEVELS.index(own) + 1 :]
    return (asked, *(level for level in below if level in allowed and works.get(level, False)))
