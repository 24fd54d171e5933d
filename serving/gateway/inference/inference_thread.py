"""One thread that thinks, so that the event loop never has to wait for the model.

    submit(request, deadline) --> [heap: earliest deadline first, bounded] --> round: join, step, join, step, ... --> Ticket.future

Requests join the round between its blocks and leave it there when they are finished, given up or late. What cannot be met
is refused when it is asked (`serving.gateway.inference.admission`), and again before it would join. What the model raises is logged
here and becomes a refusal of everybody in the round; nobody gets half an answer.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from model_core.spec.types import Decision, DecisionRequest, DecisionRound, DepthTokens, RefusalCode, RequestPolicy, Trace
from serving.gateway.inference.admission import Load, ServiceTimes, choose
from serving.gateway.inference.pending_request import Answer, Ticket

logger = logging.getLogger(__name__)

_MAX_FAILURES = 5
_CALM_BLOCKS = 256


class EngineThread:
    """Runs a round of `policy` in a thread of its own. Thread-safe. clock: monotonic seconds.

    capacity: rows of a round now; halved when memory runs out, doubled again after a calm while. missed: admitted requests that
    were not answered in time.
    """

    def __init__(
        self,
        policy: RequestPolicy,
        *,
        contract_id: str,
        model_version: str,
        times: ServiceTimes | None = None,
        max_batch: int = 16,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.times = times or ServiceTimes()
        self._policy, self._clock = policy, clock
        self._contract_id, self._model_version = contract_id, model_version
        self.capacity, self._most, self._max_queue = max_batch, max_batch, max_queue
        self._calm_blocks = 0
        self._heap: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._active: dict[int, Ticket] = {}
        self._round: DecisionRound | None = None
        self._block_since: float | None = None
        self._ended = ""
        self._failures = 0
        self._broken = ""
        self.missed = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Refuse everything and end the thread; a call that hangs inside the policy is left behind (daemon thread)."""
        self.abandon("the service is stopping")
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def abandon(self, reason: str, code: RefusalCode = RefusalCode.NOT_READY) -> None:
        """Refuse everything that waits or runs, and never answer anything again, whatever the model still says."""
        with self._wake:
            self._ended = self._ended or reason
            held = [ticket for _, _, ticket in self._heap] + list(self._active.values())
            self._heap.clear()
            self._wake.notify_all()
        for ticket in held:
            self._refuse(ticket, code, reason)

    def refuse_all(self, code: RefusalCode, reason: str) -> None:
        """Refuse what waits and what runs; the engine goes on."""
        with self._wake:
            held = [ticket for _, _, ticket in self._heap] + list(self._active.values())
        for ticket in held:
            self._refuse(ticket, code, reason)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._heap)

    @property
    def rows(self) -> int:
        """Requests in the round."""
        return len(self._active)

    @property
    def busy_s(self) -> float:
        """For how long the block that runs now has been running; 0 when idle."""
        since = self._block_since
        return 0.0 if since is None else self._clock() - since

    @property
    def broken(self) -> str:
        """Why this engine will never answer again; "" while it may."""
        if self._broken:
            return self._broken
        has_died = self._thread.ident is not None and not self._thread.is_alive() and not self._ended
        return "the engine's thread has died" if has_died else ""

    def submit(self, request: DecisionRequest, deadline: float, levels: tuple[str, ...] = ("",)) -> Ticket:
        """Queue one request; `deadline` is an instant of the clock. The future may already hold a refusal."""
        now = self._clock()
        ticket = Ticket(request=request, deadline=deadline, asked_at=now, levels=levels)
        with self._wake:
            refused = self._admit(ticket, now)
            if refused is None:
                heapq.heappush(self._heap, (deadline, next(self._order), ticket))
                self._wake.notify()
                return ticket
        code, reason, retry_after_ms = refused
        self._refuse(ticket, code, reason, retry_after_ms)
        return ticket

    def _admit(self, ticket: Ticket, now: float) -> tuple[RefusalCode, str, float] | None:
        if self._ended or self.broken:
            return RefusalCode.NOT_READY, self._ended or self.broken, 1000.0
        self.times.forget(now)
        load = self._load(ticket.deadline, now)
        verdict = choose(self.times, load, ticket.levels, ticket.deadline - now)
        ticket.tries = load.is_idle
        is_full = len(self._heap) >= self._max_queue
        if verdict.level is not None and not is_full:
            return None
        # How long until somebody leaves: asking again earlier finds the same crowd.
        retry_after_ms = 1e3 * max(self.times.p50(ticket.levels[0], max(load.capacity // 2, 1)), self.times.block_s, 0.001)
        if is_full:
            return RefusalCode.OVERLOAD, f"{self._max_queue} requests are waiting already", retry_after_ms
        left_ms, needed_ms = 1e3 * (ticket.deadline - now), 1e3 * verdict.needed_s
        alone_ms = 1e3 * min(self.times.p95(level, 1) for level in ticket.levels)
        code = RefusalCode.DEADLINE if alone_ms > left_ms else RefusalCode.OVERLOAD
        return code, f"an answer takes about {needed_ms:.0f} ms now, the deadline leaves {max(left_ms, 0):.0f} ms", retry_after_ms

    def _load(self, deadline: float, now: float) -> Load:
        since = self._block_since
        ahead = sum(1 for other, _, waiting in self._heap if other <= deadline and not waiting.is_over)
        return Load(
            capacity=self.capacity,
            running=[(ticket.level, now - ticket.joined_at) for ticket in list(self._active.values()) if not ticket.is_over],
            ahead=ahead,
            block_for_s=None if since is None else now - since,
            joins=self.times.joins_a_block if ahead else 1,
        )

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._heap and not self._active and not self._ended:
                    self._wake.wait()
                if self._ended or self._broken:
                    return
                joining = self._joining(self._clock())
            try:
                self._work(joining)
            except Exception as error:
                # The one place where everything is caught: whatever went wrong inside is ours, and the robot must hold.
                self._fail(error, joining)
            del joining  # who has been answered: their pictures are not kept until somebody else asks

    def _joining(self, now: float) -> list[Ticket]:
        """Who joins now, in the order of their deadlines. Called with the lock held."""
        joining: list[Ticket] = []
        # Who is in the round waits while who joins is read: a crowd joins a few at a time. Nobody waits in an empty round.
        most = min(self.capacity - len(self._active), self.times.joins_a_block if self._active else self.capacity)
        while self._heap and len(joining) < most:
            ticket = self._heap[0][2]
            is_company = bool(self._active or joining)
            if ticket.alone and is_company and not ticket.is_over:
                break
            heapq.heappop(self._heap)
            if ticket.is_over or self._is_late(ticket, now, len(self._active) + len(joining)):
                continue
            joining.append(ticket)
            if ticket.alone:
                break
        return joining

    def _is_late(self, ticket: Ticket, now: float, others: int) -> bool:
        """Settle the level of a ticket that is about to join `others`; True when it has been refused instead."""
        rows = min(others + 1 + len(self._heap), self.capacity)
        left_s = ticket.deadline - now
        fits = [level for level in ticket.levels if self.times.p95(level, rows) <= left_s]
        if left_s <= 0 or (not fits and not ticket.tries):
            text = f"its deadline came too near while it waited: {1e3 * max(left_s, 0):.0f} ms are left"
            self._refuse(ticket, RefusalCode.DEADLINE, text, 1e3 * self.times.block_s)
            return True
        ticket.level, ticket.joined_at = fits[0] if fits else ticket.levels[-1], now
        return False

    def _work(self, joining: list[Ticket]) -> None:
        """One block: let go of who is not wanted, take in who has come, step, deliver."""
        if self.capacity < self._most and self._calm_blocks >= _CALM_BLOCKS and not self._active:
            self.capacity, self._calm_blocks, self._round = min(2 * self.capacity, self._most), 0, None
        if self._round is None:
            self._round = self._policy.open_round(self.capacity)
        for key in [key for key, ticket in self._active.items() if self._is_unwanted(ticket)]:
            self._round.leave(key)
            self._count_miss(self._active.pop(key))
        joined = len(joining) if self._active else None
        for ticket in joining:
            self._active[self._round.join(_as_joined(ticket))] = ticket
        if not self._active:
            return
        for ticket in self._active.values():
            ticket.batch = max(ticket.batch, len(self._active))
        began = self._block_since = self._clock()
        try:
            finished = self._round.step()
        finally:
            self._block_since = None
        now = self._clock()
        if self._ended:
            return
        self._failures = 0
        self._calm_blocks += 1
        self.times.add_block(now - began, now, joined)
        for key, decision in finished:
            self._deliver(self._active.pop(key), decision, now)

    def _is_unwanted(self, ticket: Ticket) -> bool:
        if not ticket.is_over and self._clock() > ticket.deadline:
            self._refuse(ticket, RefusalCode.DEADLINE, "its deadline passed while it was being answered")
        return ticket.is_over

    def _deliver(self, ticket: Ticket, decision: Decision, now: float) -> None:
        took_s = now - ticket.joined_at
        if decision.refusal is None or decision.refusal.code not in {RefusalCode.CONTRACT, RefusalCode.CANCELLED}:
            self.times.add(ticket.level, ticket.batch, took_s, now)
        if now > ticket.deadline:
            self._refuse(ticket, RefusalCode.DEADLINE, f"the answer came {1e3 * (now - ticket.deadline):.0f} ms after the deadline")
        self._count_miss(ticket)
        ticket.resolve(
            Answer(
                decision=decision,
                queue_ms=1e3 * (ticket.joined_at - ticket.asked_at),
                model_ms=1e3 * took_s,
                batch=ticket.batch,
                level=ticket.level,
                cheaper=ticket.level != ticket.levels[0],
            )
        )

    def _count_miss(self, ticket: Ticket) -> None:
        if ticket.refused_with is RefusalCode.DEADLINE:  # it was admitted, and the engine or its asker saw the time pass
            self.missed += 1

    def _fail(self, error: Exception, joining: list[Ticket]) -> None:
        known = set(map(id, self._active.values()))
        held = list(self._active.values()) + [ticket for ticket in joining if id(ticket) not in known]
        rows = len(held)
        logger.error("engine.failed rows=%d", rows, exc_info=error)
        self._active, self._round = {}, None
        self._failures += 1
        if is_out_of_memory(error):
            self.capacity, self._calm_blocks = max(self.capacity // 2, 1), 0
            logger.error("engine.out_of_memory capacity=%d", self.capacity)
            for ticket in held:
                self._refuse(ticket, RefusalCode.OVERLOAD, "the model ran out of memory; ask again", 1000.0)
        elif is_lasting(error) or self._failures >= _MAX_FAILURES:
            self._broken = f"the engine failed for good: {type(error).__name__}"
            for ticket in held:
                self._refuse(ticket, RefusalCode.NOT_READY, self._broken)
            self.abandon(self._broken)
        elif rows > 1:
            # One of them may be the cause. Each is asked again by itself, so that only that one is refused.
            with self._wake:
                for ticket in held:
                    ticket.alone = True
                    heapq.heappush(self._heap, (ticket.deadline, next(self._order), ticket))
        else:
            for ticket in held:
                self._refuse(ticket, RefusalCode.INTERNAL, "the model failed; the service's log has the details")

    def _refuse(self, ticket: Ticket, code: RefusalCode, reason: str, retry_after_ms: float = 0.0) -> None:
        ticket.refuse(
            code,
            reason,
            now=self._clock(),
            contract_id=self._contract_id,
            model_version=self._model_version,
            retry_after_ms=retry_after_ms,
        )


def _as_joined(ticket: Ticket) -> DecisionRequest:
    """The request at the level that was settled on; it tells parts, and runs on, only while somebody wants it."""
    asked, tell = ticket.request, ticket.request.on_part

    def tell_if_wanted(name: str, value: DepthTokens | Trace) -> None:
        if tell is not None and not ticket.is_over:
            tell(name, value)

    return replace(asked, level=ticket.level, is_cancelled=lambda: ticket.is_over, on_part=None if tell is None else tell_if_wanted)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that there was no memory for this batch: torch.OutOfMemoryError, MemoryError and their like."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()


def is_lasting(error: BaseException) -> bool:
    """Whether everything after `error` will fail as well: a CUDA context is lost after an illegal access or an assertion."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error) or "device-side assert" in str(error)
