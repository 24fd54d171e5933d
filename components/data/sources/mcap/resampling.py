"""Messages at their own times -> control steps at one rate: which message each step takes, how far away it is, and what is left over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picks:
    """For each of T steps: the messages `first_T` and `second_T` (places), the share of the second, the gap in seconds (inf: none).

    Without interpolation both are the same message. is_known_T: whether the gap is within the tolerance.
    """

    first_T: NDArray[np.int64]
    second_T: NDArray[np.int64]
    share_T: NDArray[np.float64]
    gap_s_T: NDArray[np.float64]
    is_known_T: NDArray[np.bool_]

    def until(self, length: int) -> Picks:
        """The first `length` steps."""
        parts = {name: getattr(self, name)[:length] for name in ("first_T", "second_T", "share_T", "gap_s_T", "is_known_T")}
        return Picks(**parts)

    def values(self, values_ND: NDArray[np.float64], *, angle: bool = False) -> NDArray[np.float64]:
        """The (T, D) values of the steps. angle: radians; the shorter way round is taken between two."""
        first_TD, second_TD = values_ND[self.first_T], values_ND[self.second_T]
        change_TD = second_TD - first_TD
        if angle:
            change_TD = (change_TD + math.pi) % (2 * math.pi) - math.pi
        return first_TD + self.share_T[:, None] * change_TD


def grid_ns(start_ns: int, end_ns: int, rate_hz: float) -> NDArray[np.int64]:
    """The times of the steps from `start_ns` to at most `end_ns`, one control period apart, each rounded to a nanosecond."""
    count = math.floor((end_ns - start_ns) * rate_hz / NS + 1e-6) + 1
    return start_ns + np.rint(np.arange(max(count, 0)) * (NS / rate_hz)).astype(np.int64)


def pick(times_ns_N: NDArray[np.int64], grid_ns_T: NDArray[np.int64], method: str, max_gap_s: float) -> Picks:
    """What each step takes of messages at increasing times. method: "nearest" (of two equally near ones the earlier), "previous", "linear".

    Linear takes one message where a step is exactly at its time; its gap is the distance between the two messages.
    """
    count, last = len(grid_ns_T), len(times_ns_N) - 1
    if last < 0:
        nothing = np.zeros(count, np.int64)
        return Picks(
            first_T=nothing, second_T=nothing, share_T=np.zeros(count), gap_s_T=np.full(count, np.inf), is_known_T=np.zeros(count, bool)
        )
    before_T = np.searchsorted(times_ns_N, grid_ns_T, side="right") - 1
    is_before_T = before_T >= 0
    low_T, high_T = np.clip(before_T, 0, last), np.clip(before_T + 1, 0, last)
    since_T, until_T = (grid_ns_T - times_ns_N[low_T]) / NS, (times_ns_N[high_T] - grid_ns_T) / NS
    share_T = np.zeros(count)
    if method == "previous":
        first_T = second_T = low_T
        gap_s_T = np.where(is_before_T, since_T, np.inf)
    elif method == "nearest":
        first_T = second_T = np.where(np.abs(until_T) < np.abs(since_T), high_T, low_T)
        gap_s_T = np.abs(times_ns_N[first_T] - grid_ns_T) / NS
    else:
        is_exact_T = is_before_T & (since_T == 0)
        first_T, second_T = low_T, np.where(is_exact_T, low_T, high_T)
        span_T = (times_ns_N[second_T] - times_ns_N[first_T]) / NS
        is_between_T = is_exact_T | (is_before_T & (before_T < last))
        gap_s_T = np.where(is_between_T, span_T, np.inf)
        np.divide(since_T, span_T, out=share_T, where=is_between_T & (span_T > 0))
    # a nanosecond of tolerance: max_gap_s is a decimal number, the gaps are whole nanoseconds
    return Picks(first_T=first_T, second_T=second_T, share_T=share_T, gap_s_T=gap_s_T, is_known_T=gap_s_T <= max_gap_s + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCount:
    """What became of one field's messages in one episode.

    messages: within the time of its steps. exact: steps that took a message of their very time. resampled: steps with a message of another
    time, or with a value between two. duplicated: steps that took only messages which the step before took too. dropped: messages that
    no step took. worst_gap_s: largest distance that was bridged.
    """

    messages: int
    exact: int
    resampled: int
    duplicated: int
    dropped: int
    worst_gap_s: float


def count_stream(times_ns_N: NDArray[np.int64], grid_ns_T: NDArray[np.int64], picks: Picks) -> StreamCount:
    """Count what was resampled, duplicated and dropped in the steps of `grid_ns_T`."""
    taken = np.unique(np.concatenate([picks.first_T, picks.second_T]))
    within = np.flatnonzero((times_ns_N >= grid_ns_T[0]) & (times_ns_N <= grid_ns_T[-1]))
    is_exact_T = (picks.first_T == picks.second_T) & (times_ns_N[picks.first_T] == grid_ns_T)
    same_T = (picks.first_T[1:] == picks.first_T[:-1]) & (picks.second_T[1:] == picks.second_T[:-1]) & (picks.share_T[1:] == 0)
    exact = int(is_exact_T.sum())
    return StreamCount(
        messages=len(within),
        exact=exact,
        resampled=len(grid_ns_T) - exact,
        duplicated=int(same_T.sum()),
        dropped=int(np.setdiff1d(within, taken).size),
        worst_gap_s=float(picks.gap_s_T.max()),
    )
