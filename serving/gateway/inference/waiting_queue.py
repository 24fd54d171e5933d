"""Requests that wait to join a round: the earliest deadline first, bounded. Not thread-safe: its owner holds the lock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from serving.gateway.inference.pending_request import PendingRequest


class WaitingQueue:
    """Waiting requests in the order of their deadlines. limit: how many may wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._heap: list[tuple[float, int, PendingRequest]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def is_full(self) -> bool:
        """No further request may wait."""
        return len(self._heap) >= self.limit

    def push(self, pending: PendingRequest) -> None:
        """Add a request; the order of equal deadlines is the order of arrival."""
        heapq.heappush(self._heap, (pending.deadline, next(self._order), pending))

    def ahead_of(self, deadline: float) -> int:
        """Requests that are still wanted and whose deadline is not later."""
        return sum(1 for other, _, pending in self._heap if other <= deadline and not pending.is_over)

    def take_joining(self, in_round: int, most: int, is_late: Callable[[PendingRequest, int], bool]) -> list[PendingRequest]:
        """Remove and return up to `most` requests to join `in_round` running ones; one marked `alone` joins an empty round only.

        is_late: called with a request and the number of others that it would join; True drops the request.
        """
        joining: list[PendingRequest] = []
        while self._heap and len(joining) < most:
            pending, others = self._heap[0][2], in_round + len(joining)
            if pending.alone and others and not pending.is_over:
                break
            heapq.heappop(self._heap)
            if pending.is_over or is_late(pending, others):
                continue
            joining.append(pending)
            if pending.alone:
                break
        return joining

    def take_all(self) -> list[PendingRequest]:
        """Remove and return everything that waits."""
        held = [pending for _, _, pending in self._heap]
        self._heap.clear()
        return held
