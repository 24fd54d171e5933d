"""One thread that thinks, so that the event loop never has to wait for the model.

    submit(observation, deadline) --> [heap: earliest deadline first, bounded] --> policy.decide_many(batch) --> Ticket.future

A request whose deadline has passed, or can be seen to pass before its answer, is refused without being run. What the
policy raises is logged here and becomes a refusal; the thread itself does not die of it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from model_core.spec.types import Decision, Observation, Policy, Refusal, RefusalCode

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What came of one request. queue_ms: waited; model_ms: the batch's inference; batch: how many shared it."""

    decision: Decision
    queue_ms: float
    model_ms: float
    batch: int


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """One request in the queue. `future` gives an `Answer`; it never raises, except when cancelled."""

    observation: Observation
    deadline: float
    asked_at: float
    future: Future[Answer] = field(default_factory=Future)

    def cancel(self) -> None:
        """Nobody waits any more. What has not begun will not be run."""
        self.future.cancel()


class EngineThread:
    """Runs `policy` in a thread of its own. Thread-safe."""

    def __init__(self, policy: Policy, *, contract_id: str, model_version: str, max_batch: int = 8, max_queue: int = 64) -> None:
        self._policy = policy
        self._contract_id, self._model_version = contract_id, model_version
        self._max_batch, self._max_queue = max_batch, max_queue
        self._heap: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._stopping = False
        self._busy_since: float | None = None
        self._usual_s = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Refuse what waits and end the thread; a call that hangs inside the policy is left behind (daemon thread)."""
        with self._wake:
            self._stopping = True
            waiting = [ticket for _, _, ticket in self._heap]
            self._heap.clear()
            self._wake.notify_all()
        for ticket in waiting:
            self._refuse(ticket, RefusalCode.NOT_READY, "the service is stopping")
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._heap)

    @property
    def busy_s(self) -> float:
        """For how long the batch that runs now has been running; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, observation: Observation, deadline: float) -> Ticket:
        """Queue one request; `deadline` is a `time.monotonic` instant. The future may already hold a refusal."""
        ticket = Ticket(observation=observation, deadline=deadline, asked_at=time.monotonic())
        with self._wake:
            if self._stopping:
                self._refuse(ticket, RefusalCode.NOT_READY, "the service is stopping")
            elif len(self._heap) >= self._max_queue:
                self._refuse(ticket, RefusalCode.OVERLOAD, f"{self._max_queue} requests are waiting already")
            elif self._is_hopeless(deadline):
                reason = f"an answer takes about {1e3 * (self._wait_s(deadline) + self._usual_s):.0f} ms now, longer than the deadline"
                self._refuse(ticket, RefusalCode.DEADLINE, reason)
            else:
                heapq.heappush(self._heap, (deadline, next(self._order), ticket))
                self._wake.notify()
        return ticket

    def _is_hopeless(self, deadline: float) -> bool:
        # An idle engine always tries: otherwise one slow batch could make the estimate refuse everything for ever.
        is_idle = not self._heap and self._busy_since is None
        needed_s = 0.0 if is_idle else self._wait_s(deadline) + self._usual_s
        return time.monotonic() + needed_s > deadline

    def _wait_s(self, deadline: float) -> float:
        """About how long a request with this deadline waits before its batch begins."""
        ahead = sum(1 for other, _, _ in self._heap if other <= deadline)
        running = 0.0 if self._busy_since is None else max(self._usual_s - self.busy_s, 0.0)
        return running + (ahead // self._max_batch) * self._usual_s

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._heap and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                batch = self._take()
            if batch:
                self._answer(batch)

    def _take(self) -> list[Ticket]:
        """The most urgent requests that still have somebody waiting; refuses those whose time is over."""
        batch: list[Ticket] = []
        while self._heap and len(batch) < self._max_batch:
            deadline, _, ticket = heapq.heappop(self._heap)
            if time.monotonic() > deadline:
                self._refuse(ticket, RefusalCode.DEADLINE, "its deadline passed while it waited")
            elif ticket.future.set_running_or_notify_cancel():
                batch.append(ticket)
        return batch

    def _answer(self, batch: list[Ticket]) -> None:
        began = self._busy_since = time.monotonic()
        try:
            decisions = self._policy.decide_many([ticket.observation for ticket in batch])
            if len(decisions) != len(batch):
                raise ValueError(f"the policy gave {len(decisions)} decisions for {len(batch)} observations")  # noqa: TRY301
        except Exception:
            # The one place where everything is caught: whatever went wrong inside is ours, and the robot must hold.
            logger.exception("engine.failed batch=%d", len(batch))
            decisions = [self._refusal(RefusalCode.INTERNAL, "the model failed; its log has the details")] * len(batch)
        took_s = time.monotonic() - began
        self._busy_since = None
        # A slowly moving estimate; falls quickly and rises slowly, so that one slow batch does not refuse all others.
        self._usual_s = (
            took_s if self._usual_s == 0.0 else self._usual_s + (0.3 if took_s < self._usual_s else 0.1) * (took_s - self._usual_s)
        )
        for ticket, decision in zip(batch, decisions, strict=True):
            queue_ms = 1e3 * (began - ticket.asked_at)
            ticket.future.set_result(Answer(decision=decision, queue_ms=queue_ms, model_ms=1e3 * took_s, batch=len(batch)))

    def _refusal(self, code: RefusalCode, reason: str) -> Decision:
        refusal = Refusal(code=code, reason=reason, retryable=code is not RefusalCode.INTERNAL)
        return Decision(contract_id=self._contract_id, model_version=self._model_version, refusal=refusal)

    def _refuse(self, ticket: Ticket, code: RefusalCode, reason: str) -> None:
        if ticket.future.cancelled() or not (ticket.future.running() or ticket.future.set_running_or_notify_cancel()):
            return
        queue_ms = 1e3 * (time.monotonic() - ticket.asked_at)
        ticket.future.set_result(Answer(decision=self._refusal(code, reason), queue_ms=queue_ms, model_ms=0.0, batch=1))
