"""What stands between the sockets and the model: loading, readiness, open sessions, leases, draining, counting.

`start` loads in a thread of its own, so that liveness is answered from the first moment; the state becomes READY only
after every golden probe was answered as it was when the model was packed, and what an answer takes was measured. An engine
that hangs or dies is replaced by a fresh one, which must pass the same probes.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from model_core.spec.errors import NotReady
from model_core.spec.protocol.wire import Chunk, End, Hello, Observe, Ready, Reject
from model_core.spec.types import DecisionRequest, RefusalCode
from serving.gateway.inference.admission import ServiceTimes
from serving.gateway.inference.model_host import EngineRoom, Identity, LoadedModel
from serving.gateway.inference.pending_request import Guidance, Ticket
from serving.gateway.operations.limits import Limits
from serving.gateway.operations.metrics import Metrics
from serving.gateway.operations.service_state import Standing, State
from serving.gateway.operations.tokens import ANYBODY, Caller, Tokens
from serving.gateway.sessions.access_policy import Reception
from serving.gateway.sessions.access_policy import refused as refusal_of
from serving.gateway.sessions.handshake import Fit
from serving.gateway.sessions.session import Prepared, Session
from serving.gateway.sessions.session_registry import Register

__all__ = ["Gateway", "Limits", "LoadedModel", "State"]
logger = logging.getLogger(__name__)


class Gateway:
    """One model, many sessions. `load` is called off the event loop. instance: what `status` repeats. clock: monotonic seconds.

    Everything but `start`, `stop` and the loading itself happens on one event loop.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        limits: Limits | None = None,
        *,
        instance: str = "",
        tokens: Tokens | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.tokens = tokens
        self.standing = Standing(self.limits.max_restarts)
        self.register = Register(self.limits.reserve_share)
        self.decoding = ThreadPoolExecutor(max_workers=4, thread_name_prefix="decode")
        self._room = EngineRoom(load, self.limits, self.standing, clock)
        self._instance, self._clock = instance, clock
        self._told_to_hold = False
        self.reception = Reception(self.limits, self.standing, tokens, self.register, self._room, clock)

    # --- life -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._room.start()

    def stop(self) -> None:
        """Refuse what waits, end the engine."""
        self.standing.to(State.STOPPED, "the service is stopping")
        self.metrics.ready.set(0)
        self._room.stop()
        self.decoding.shutdown(wait=False, cancel_futures=True)

    @property
    def state(self) -> State:
        """Where the gateway is in its life."""
        return self.standing.state

    @property
    def reason(self) -> str:
        """Why it is not ready; "" when it is."""
        return self.standing.reason

    @property
    def is_ready(self) -> bool:
        """The probes passed, the engine answers, and nobody has stopped it. While draining it is not ready for new work."""
        return self._room.answers and not self.standing.draining

    def status(self) -> dict[str, object]:
        """For people and probes: state, reason, model."""
        who = self._room.identity
        state, reason = self.reception.trouble()
        return {
            "state": state,
            "reason": reason,
            "model_version": "" if who is None else who.model_version,
            "contract_id": "" if who is None else who.contract_id,
            "bundle_digest": "" if who is None else who.bundle_digest,
            "sessions": len(self.sessions),
            "episodes": sum(1 for s in self.sessions.values() if s.episode_id is not None),
            "restarts": self.standing.restarts,
            "levels": self.times.profile(),
            "instance": self._instance,
        }

    @property
    def identity(self) -> Identity:
        """Who answers; raises NotReady before the model is loaded."""
        if self._room.identity is None:
            raise NotReady(f"no contract yet: {self.reason}")
        return self._room.identity

    def models(self) -> list[dict[str, object]]:
        """What is served here: one model, or none yet."""
        who = self._room.identity
        if who is None:
            return []
        keys = {"model_version": who.model_version, "contract_id": who.contract_id, "bundle_digest": who.bundle_digest}
        return [{**keys, "policy_id": who.contract.policy_id, "state": self.status()["state"], "levels": self.times.profile()}]

    @property
    def times(self) -> ServiceTimes:
        """What answers take."""
        return self._room.times

    def now(self) -> float:
        """An instant of this gateway's clock."""
        return self._clock()

    @property
    def sessions(self) -> dict[str, Session]:
        """Open sessions by id."""
        return self.register.sessions

    # --- sessions -----------------------------------------------------------------------------------------------------------

    def open_session(
        self, hello: Hello, caller: Caller = ANYBODY, *, lease_s: float | None = None
    ) -> tuple[Session | None, Ready | Reject]:
        """Answer a HELLO; a `Session` comes with READY only. A cell's new session replaces its old one."""
        seconds = self.limits.lease_s if lease_s is None else lease_s
        answer, fit = self.reception.greet(hello, caller, seconds)
        if isinstance(answer, Reject):
            self.metrics.rejects.labels(answer.code.value).inc()
            logger.warning("session.refused cell=%s code=%s reason=%s", hello.cell, answer.code, answer.reason)
            return None, answer
        if (other := self.register.of_cell(hello.cell)) is not None:
            self.close_session(other, RefusalCode.STALE_EPOCH, "this cell has opened a newer session")
        session = Session(
            answer,
            hello.cell,
            self.identity,
            self,
            caller=caller,
            lease_s=seconds,
            accepts_parts=hello.accepts_parts,
            clock=self._clock,
        )
        self.register.add(session, fit, hello.replan_hz)
        self._count_sessions()
        logger.info("session.opened cell=%s epoch=%d session=%s subject=%s", hello.cell, answer.epoch, answer.session_id, caller.subject)
        return session, answer

    def close_session(
        self, session: Session, code: RefusalCode = RefusalCode.STALE_EPOCH, why: str = "this session was closed; shake hands again"
    ) -> None:
        """Free everything that is held for it; safe to call twice."""
        if self.register.remove(session, code, why):
            self._count_sessions()

    def prepares_quickly(self, session: Session, observe: Observe) -> bool:
        """Whether `prepare` has nothing to decode or convert here, only to compare: then it may run on the event loop."""
        fit = self.register.fit_of(session)
        return not observe.encoded and (fit is None or not fit.conversions)

    def prepare(self, session: Session | None, observe: Observe, arrived_at: float) -> Prepared:
        """Decode and check the pictures of an OBSERVE. Thread-safe; on the event loop only where `prepares_quickly`."""
        fit = None if session is None else self.register.fit_of(session)
        return (fit or Fit.of(self.identity.contract)).prepare(observe, arrived_at, self._clock)

    def ask(self, session: Session, prepared: Prepared) -> asyncio.Future[Chunk | Reject] | Reject:
        """Queue one OBSERVE now. A refusal is counted; what comes with the future goes through `told` first, and the future lives on."""
        refused = self.reception.refusal(session, prepared.observe)
        if refused is None:
            self.renew(session)
            asked = session.ask(prepared)
            if not isinstance(asked, Reject):
                return asked
            refused = asked
        self.count(refused)
        return refused

    def told(self, session: Session, observe: Observe, reply: Chunk | Reject) -> Chunk | Reject:
        """The reply as the cell gets it, counted: nothing to do for a session that has ended meanwhile."""
        self.renew(session)
        if not self.register.is_open(session) and isinstance(reply, Chunk):
            reply = refusal_of(observe, *self.register.why_ended(session))
        self.count(reply)
        return reply

    async def answer_once(self, observe: Observe, caller: Caller = ANYBODY) -> Chunk | Reject:
        """Answer an OBSERVE outside any session: nothing is kept. For tools and for peers that know no sessions."""
        refused = self.reception.refusal_once(observe, caller)
        if refused is not None:
            reply: Chunk | Reject = refused
        else:
            who = self.identity
            ready = Ready(session_id=observe.session_id, epoch=observe.epoch, model_version=who.model_version, contract=who.contract)
            session = Session(ready, "", self.identity, self, caller=caller, clock=self._clock)
            prepared = await self._prepared(replace(observe, seq=max(observe.seq, 1)))
            try:
                asked = session.ask(prepared)
                reply = asked if isinstance(asked, Reject) else await asked
            finally:
                session.drop("the asker has gone")
        if isinstance(reply, Chunk):
            reply = replace(reply, chunk_id=f"once-{uuid.uuid4().hex[:16]}")
        self.count(reply)
        return reply

    def submit(self, request: DecisionRequest, deadline: float, asked: str, guidance: Guidance) -> Ticket:
        """Hand a request to the engine, with the levels that may stand in for the one that was asked."""
        return self._room.submit(request, deadline, asked, guidance)

    def end_episode(self, session: Session, end: End) -> None:
        """An episode is over. A draining service lets the session go."""
        if session.end_episode(end):
            logger.info("episode.ended cell=%s episode=%s reason=%s", session.cell, end.episode_id, end.stop_reason)

    def renew(self, session: Session) -> float:
        """Renew a lease, unless its caller could not come in again; seconds that are left."""
        now = self._clock()
        if self.reception.may_stay(session.caller):
            session.lease.renew(now)
        return session.lease.left_s(now)

    def is_throttled(self, session: Session) -> bool:
        """Whether this cell replaces its own requests faster than it may."""
        is_throttled = self.reception.is_throttled(session)
        self.metrics.throttled.inc(1 if is_throttled else 0)
        return is_throttled

    # --- stopping ---------------------------------------------------------------------------------------------------------------

    def drain(self, caller: Caller, why: str = "") -> None:
        """Begin no new episode and no new session; those that run are finished."""
        self.standing.draining = f"the service is being drained{': ' + why if why else ''}"
        self.metrics.draining.set(1)
        logger.warning("admin.drain subject=%s role=%s reason=%s sessions=%d", caller.subject, caller.role, why, len(self.sessions))
        for session in self.sessions.values():
            session.tell(session.control("DRAIN", text=self.standing.draining))

    def kill(self, caller: Caller, why: str = "", cell: str = "") -> None:
        """Stop one cell, or with "" all of them: nothing is answered any more, and they are told to stop for good."""
        text = f"stopped by an operator{': ' + why if why else ''}"
        self.standing.killed[cell] = text
        logger.warning("admin.kill subject=%s role=%s cell=%s reason=%s", caller.subject, caller.role, cell or "(all)", why)
        for session in self.sessions.values():
            if cell in {"", session.cell}:
                session.tell(session.control("KILL", text=text))
                session.drop(text, RefusalCode.KILLED)

    def resume(self, caller: Caller) -> None:
        """Undo drain and kill. Cells must shake hands again: nothing moves by itself."""
        logger.warning("admin.resume subject=%s role=%s", caller.subject, caller.role)
        was_killed, was_draining = dict(self.standing.killed), bool(self.standing.draining)
        self.standing.draining, self.standing.killed = "", {}
        self.metrics.draining.set(0)
        for session in [s for s in self.sessions.values() if "" in was_killed or s.cell in was_killed]:
            self.close_session(session, RefusalCode.STALE_EPOCH, "this session was stopped by an operator; shake hands again")
        if was_draining and not self._told_to_hold:  # else it is taken back together with the HOLD, when the engine answers again
            self._take_back("the service drains no longer")

    def tend(self) -> list[Session]:
        """Once in a while, on the event loop: end what has run out, replace an engine that hangs. Returns the ended sessions."""
        now = self._clock()
        over = [s for s in self.sessions.values() if s.lease.left_s(now) <= 0 and not s.is_waiting]
        for session in over:
            text = f"the lease ran out after {session.lease.seconds:g} s without a message; shake hands again"
            if not self.reception.may_stay(session.caller):
                text = "the lease ran out and the token is no longer valid; shake hands again with a new one"
            logger.info("session.expired cell=%s session=%s", session.cell, session.ready.session_id)
            self.close_session(session, RefusalCode.LEASE, text)
        for session in self.sessions.values():
            session.forget(now, self.limits.state_ttl_s, self.limits.max_session_bytes)
        self._watch()
        self._count_sessions()
        return over

    def count(self, reply: Chunk | Reject) -> None:
        """One answer has been given."""
        if isinstance(reply, Reject):
            self.metrics.rejects.labels(reply.code.value).inc()
        else:
            self.metrics.count_chunk(reply)
        engine = self._room.engine
        if engine is not None:
            self.metrics.queue.set(engine.depth)
            self.metrics.rows.set(engine.rows)
        self.metrics.missed.inc(self._room.newly_missed())

    # --- inside -----------------------------------------------------------------------------------------------------------------

    async def _prepared(self, observe: Observe) -> Prepared:
        arrived_at = self._clock()
        return await asyncio.get_running_loop().run_in_executor(self.decoding, self.prepare, None, observe, arrived_at)

    def _count_sessions(self) -> None:
        now = self._clock()
        self.metrics.sessions.set(len(self.sessions))
        self.metrics.session_bytes.set(self.register.held_bytes())
        self.metrics.lease.set(self.register.shortest_lease_s(now))
        self.metrics.reserved.set(self.register.reservations.total_per_s)
        self.metrics.ready.set(1 if self.is_ready else 0)
        if (who := self._room.identity) is not None:
            self.metrics.model.labels(who.model_version, who.contract_id, who.bundle_digest).set(1)

    def _take_back(self, why: str) -> None:
        """A cell that was told HOLD or DRAIN waits for the one who said so."""
        self._told_to_hold = False
        for session in self.sessions.values():
            session.tell(session.control("RESET", text=why))

    def _watch(self) -> None:
        """Replace an engine that hangs or has died. The cells are told at once; what they asked is refused."""
        why = self._room.trouble
        if not why:
            if self._told_to_hold and self._room.answers:
                self._take_back("the engine answers again")
            return
        self._told_to_hold = True
        if self._room.replace(why):
            self.metrics.restarts.inc()
        for session in self.sessions.values():
            session.tell(session.control("HOLD", text=why))
