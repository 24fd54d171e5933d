"""A dedicated inference thread, so that the event loop never waits for the model.

    submit(request, deadline) --> [heap: earliest deadline first, bounded] --> round: join, step, join, step, ... --> future

Requests join the round between its blocks and leave it there when they are finished, given up or late. A request whose deadline cannot
be met is refused on submission (`serving.gateway.inference.admission`), and again before it would join. An exception of the model is
logged here and becomes a refusal of every request in the round; no cell gets a partial answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from model_core.spec.types import Decision, DecisionRequest, RefusalCode, RequestPolicy
from serving.gateway.inference.active_round import ActiveRound, is_lasting, is_out_of_memory
from serving.gateway.inference.admission import AdmissionRefusal, Load, admission_refusal, level_at_join
from serving.gateway.inference.pending_request import PendingRequest
from serving.gateway.inference.served_model import ServedModel
from serving.gateway.inference.service_times import ServiceTimes
from serving.gateway.inference.waiting_queue import WaitingQueue
from serving.gateway.operations.novelty_meter import NoveltyMeter

logger = logging.getLogger(__name__)

_MAX_FAILURES = 5


class InferenceThread:
    """Runs a round of `policy` in a thread of its own. Thread-safe. clock: monotonic seconds.

    model: named in refusals. missed: admitted requests that were not answered in time.
    """

    def __init__(
        self,
        policy: RequestPolicy,
        model: ServedModel,
        *,
        times: ServiceTimes | None = None,
        max_batch: int = 16,
        max_queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.times = times or ServiceTimes()
        self.missed = 0
        self.meter: NoveltyMeter | None = None
        self._model, self._clock = model, clock
        self._waiting = WaitingQueue(max_queue)
        self._wake = threading.Condition()  # its lock guards the waiting queue
        self._round = ActiveRound(policy, max_batch)
        self._block_since: float | None = None
        self._ended = ""
        self._failures = 0
        self._broken = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to answer requests."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Refuse everything and end the thread; a call that hangs inside the policy is left behind (daemon thread)."""
        self.abandon("the service is stopping")
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def abandon(self, reason: str, code: RefusalCode = RefusalCode.NOT_READY) -> None:
        """Refuse everything that waits or runs, and never answer anything again, whatever the model still returns."""
        with self._wake:
            self._ended = self._ended or reason
            held = self._waiting.take_all() + list(self._round.requests.values())
            self._wake.notify_all()
        self._refuse(held, code, reason)

    @property
    def capacity(self) -> int:
        """Rows of a round now; fewer than at the start after memory ran out."""
        return self._round.capacity

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def rows(self) -> int:
        """Requests in the round."""
        return len(self._round)

    @property
    def busy_s(self) -> float:
        """For how long the running block has been running; 0 when idle."""
        since = self._block_since
        return 0.0 if since is None else self._clock() - since

    @property
    def broken(self) -> str:
        """Why this engine will never answer again; "" while it may."""
        if self._broken:
            return self._broken
        has_died = self._thread.ident is not None and not self._thread.is_alive() and not self._ended
        return "the engine's thread has died" if has_died else ""

    def submit(self, request: DecisionRequest, deadline: float, levels: tuple[str, ...] = ("",)) -> PendingRequest:
        """Queue one request; `deadline` is an instant of the clock. The future may already hold a refusal."""
        now = self._clock()
        pending = PendingRequest(request=request, deadline=deadline, asked_at=now, levels=levels)
        with self._wake:
            refused = self._refused(pending, now)
            if refused is None:
                pending.novelty = None if self.meter is None else self.meter.begin(request.observation)
                self._waiting.push(pending)
                self._wake.notify()
                return pending
        self._refuse((pending,), refused.code, refused.reason, refused.retry_after_ms)
        return pending

    def _refused(self, pending: PendingRequest, now: float) -> AdmissionRefusal | None:
        if self._ended or self.broken:
            return AdmissionRefusal(code=RefusalCode.NOT_READY, reason=self._ended or self.broken, retry_after_ms=1000.0)
        self.times.forget(now)
        load = self._load(pending.deadline, now)
        pending.tries = load.is_idle
        is_full, left_s = self._waiting.is_full, pending.deadline - now
        return admission_refusal(self.times, load, pending.levels, left_s, is_full=is_full, max_queue=self._waiting.limit)

    def _load(self, deadline: float, now: float) -> Load:
        since = self._block_since
        ahead = self._waiting.ahead_of(deadline)
        running = list(self._round.requests.values())
        return Load(
            capacity=self.capacity,
            running=[(pending.level, now - pending.joined_at) for pending in running if not pending.is_over],
            ahead=ahead,
            block_for_s=None if since is None else now - since,
            joins=self.times.joins_per_block if ahead else 1,
        )

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._round and not self._ended:
                    self._wake.wait()
                if self._ended or self._broken:
                    return
                joining = self._joining(self._clock())
            try:
                self._work(joining)
            except Exception as error:
                # The one place where everything is caught: the fault is the service's, and the robot must hold.
                self._fail(error, joining)
            del joining  # the images of answered requests are not kept until the next request arrives

    def _joining(self, now: float) -> list[PendingRequest]:
        """The requests that join now, in the order of their deadlines. Called with the lock held."""
        # The round waits while the prompts of joining requests are read, so a few join at a time. An empty round delays no request.
        most = min(self.capacity - len(self._round), self.times.joins_per_block if self._round else self.capacity)
        return self._waiting.take_joining(len(self._round), most, lambda pending, others: self._is_late(pending, now, others))

    def _is_late(self, pending: PendingRequest, now: float, others: int) -> bool:
        """Set the level of a request that is about to join `others`; True when it has been refused instead."""
        rows = min(others + 1 + len(self._waiting), self.capacity)
        left_s = pending.deadline - now
        level = level_at_join(self.times, pending.levels, rows, left_s, always=pending.tries)
        if level is None:
            text = f"its deadline came too near while it waited: {1e3 * max(left_s, 0):.0f} ms are left"
            self._refuse((pending,), RefusalCode.DEADLINE, text, 1e3 * self.times.block_s)
            return True
        pending.level, pending.joined_at = level, now
        return False

    def _work(self, joining: list[PendingRequest]) -> None:
        """One block: remove requests that are no longer wanted, add the joining ones, step, deliver."""
        self._round.open()
        for key in [key for key, pending in self._round.requests.items() if self._is_unwanted(pending)]:
            self._count_miss(self._round.leave(key))
        joined = len(joining) if self._round else None
        for pending in joining:
            self._round.join(pending)
        if not self._round:
            return
        began = self._block_since = self._clock()
        try:
            finished = self._round.step()
        finally:
            self._block_since = None
        now = self._clock()
        if self._ended:
            return
        self._failures = 0
        self._round.count_block()
        self.times.add_block(now - began, now, joined)
        for key, decision in finished:
            self._deliver(self._round.requests.pop(key), decision, now)

    def _is_unwanted(self, pending: PendingRequest) -> bool:
        if not pending.is_over and self._clock() > pending.deadline:
            self._refuse((pending,), RefusalCode.DEADLINE, "its deadline passed while it was being answered")
        return pending.is_over

    def _deliver(self, pending: PendingRequest, decision: Decision, now: float) -> None:
        took_s = now - pending.joined_at
        if decision.refusal is None or decision.refusal.code not in {RefusalCode.CONTRACT, RefusalCode.CANCELLED}:
            self.times.add(pending.level, pending.batch, took_s, now)
        if now > pending.deadline:
            self._refuse((pending,), RefusalCode.DEADLINE, f"the answer came {1e3 * (now - pending.deadline):.0f} ms after the deadline")
        self._count_miss(pending)
        pending.resolve(pending.result_of(decision, now))

    def _count_miss(self, pending: PendingRequest) -> None:
        if pending.refused_with is RefusalCode.DEADLINE:  # it was admitted, and its deadline passed in the engine or for its caller
            self.missed += 1

    def _fail(self, error: Exception, joining: list[PendingRequest]) -> None:
        held = self._round.take_all()
        known = set(map(id, held))
        held += [pending for pending in joining if id(pending) not in known]
        logger.error("engine.failed rows=%d", len(held), exc_info=error)
        self._failures += 1
        if is_out_of_memory(error):
            self._round.shrink()
            self._refuse(held, RefusalCode.OVERLOAD, "the model ran out of memory; ask again", 1000.0)
        elif is_lasting(error) or self._failures >= _MAX_FAILURES:
            self._broken = f"the engine failed for good: {type(error).__name__}"
            self._refuse(held, RefusalCode.NOT_READY, self._broken)
            self.abandon(self._broken)
        elif len(held) > 1:
            # One of them may be the cause. Each is asked again by itself, so that only that one is refused.
            with self._wake:
                for pending in held:
                    pending.alone = True
                    self._waiting.push(pending)
        else:
            self._refuse(held, RefusalCode.INTERNAL, "the model failed; the service's log has the details")

    def _refuse(self, held: Iterable[PendingRequest], code: RefusalCode, reason: str, retry_after_ms: float = 0.0) -> None:
        model = self._model
        for pending in held:
            pending.refuse(
                code,
                reason,
                now=self._clock(),
                contract_id=model.contract_id,
                model_version=model.model_version,
                retry_after_ms=retry_after_ms,
            )
