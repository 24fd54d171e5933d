"""The requests that are answered together now: they join between blocks, leave between blocks, and run one block at a time."""

from __future__ import annotations

import logging

from model_core.spec.types import Decision, DecisionRound, RequestPolicy
from serving.gateway.inference.pending_request import PendingRequest

logger = logging.getLogger(__name__)

_BLOCKS_BEFORE_GROWTH = 256


class ActiveRound:
    """A `DecisionRound` of `policy` with the requests in it. Used by the inference thread; counts may be read by others.

    capacity: rows of a round now; halved when memory runs out, doubled again after a number of blocks without a failure.
    """

    def __init__(self, policy: RequestPolicy, capacity: int) -> None:
        self.capacity = self._most = capacity
        self.requests: dict[int, PendingRequest] = {}
        self._policy = policy
        self._round: DecisionRound | None = None
        self._blocks_since_failure = 0

    def __len__(self) -> int:
        return len(self.requests)

    def open(self) -> DecisionRound:
        """The policy's round, opened again with a larger capacity when it is empty and has run long enough without a failure."""
        if self.capacity < self._most and self._blocks_since_failure >= _BLOCKS_BEFORE_GROWTH and not self.requests:
            self.capacity, self._blocks_since_failure, self._round = min(2 * self.capacity, self._most), 0, None
        if self._round is None:
            self._round = self._policy.open_round(self.capacity)
        return self._round

    def leave(self, key: int) -> PendingRequest:
        """Take a request out before it is finished."""
        self.open().leave(key)
        return self.requests.pop(key)

    def join(self, pending: PendingRequest) -> None:
        """Take a request in, at its level."""
        self.requests[self.open().join(pending.as_joined())] = pending

    def step(self) -> list[tuple[int, Decision]]:
        """Run one block; returns the finished rows by key. What the model raises is raised."""
        for pending in self.requests.values():
            pending.batch = max(pending.batch, len(self.requests))
        return self.open().step()

    def count_block(self) -> None:
        """One block ended without a failure."""
        self._blocks_since_failure += 1

    def take_all(self) -> list[PendingRequest]:
        """Give the round up after a failure; returns the requests that were in it."""
        held = list(self.requests.values())
        self.requests, self._round = {}, None
        return held

    def shrink(self) -> None:
        """Half as many rows from now on: memory ran out."""
        self.capacity, self._blocks_since_failure = max(self.capacity // 2, 1), 0
        logger.error("engine.out_of_memory capacity=%d", self.capacity)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that there was no memory for this batch: torch.OutOfMemoryError, MemoryError and similar errors."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()


def is_lasting(error: BaseException) -> bool:
    """Whether everything after `error` will fail as well: a CUDA context is lost after an illegal access or an assertion."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error) or "device-side assert" in str(error)
