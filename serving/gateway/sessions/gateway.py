"""The gateway between the sockets and the model: readiness, open sessions, requests and their replies.

`start` loads the model in a thread of its own, so that liveness is answered from the first moment; the state becomes READY only
after every golden probe was answered as it was when the model was packed, and the service times were measured. An engine
that hangs or dies is replaced by a new one, which must pass the same probes.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from model_core.access import ANYBODY, Caller, Tokens
from model_core.spec.errors import NotReady
from model_core.spec.protocol.wire import Chunk, End, Hello, Observe, Ready, Reject
from model_core.spec.types import DecisionRequest, RefusalCode
from serving.gateway.inference.model_host import ModelHost
from serving.gateway.inference.pending_request import Guidance, PendingRequest
from serving.gateway.inference.served_model import LoadedModel, ServedModel
from serving.gateway.operations.kill_switch import FleetTies, KillSwitch
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.operations.metrics import Metrics
from serving.gateway.operations.service_state import ServiceState, State
from serving.gateway.sessions.access_policy import AccessPolicy, GatewayParts
from serving.gateway.sessions.access_policy import refused as refusal_of
from serving.gateway.sessions.observation_adapter import ObservationAdapter, PreparedObservation
from serving.gateway.sessions.session import Session
from serving.gateway.sessions.session_registry import SessionRegistry
from serving.gateway.sessions.session_state import SessionPeer
from serving.gateway.sessions.supervision import Supervisor

__all__ = ["Gateway", "GatewayLimits", "LoadedModel", "State"]
logger = logging.getLogger(__name__)


class Gateway:
    """One model, many sessions. `load` is called off the event loop. instance: `status` repeats it. ties: to a fleet. clock: monotonic s.

    Everything but `start`, `stop` and the loading itself happens on one event loop.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        limits: GatewayLimits | None = None,
        *,
        instance: str = "",
        tokens: Tokens | None = None,
        ties: FleetTies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or GatewayLimits()
        self.metrics = Metrics()
        self.tokens = tokens
        self.service_state = ServiceState(self.limits.max_restarts, kills=KillSwitch(ties or FleetTies(), clock))
        self.registry = SessionRegistry(self.limits.reserve_share)
        self.decoding = ThreadPoolExecutor(max_workers=4, thread_name_prefix="decode")
        self._host = ModelHost(load, self.limits, self.service_state, clock)
        self._instance, self._clock = instance, clock
        parts = GatewayParts(
            limits=self.limits, state=self.service_state, registry=self.registry, host=self._host, tokens=tokens, clock=clock
        )
        self.access = AccessPolicy(parts)
        self.supervisor = Supervisor(parts, self.access, self.metrics)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._host.start()

    def stop(self) -> None:
        """Refuse waiting requests and end the engine."""
        self.service_state.to(State.STOPPED, "the service is stopping")
        self.metrics.ready.set(0)
        self._host.stop()
        self.decoding.shutdown(wait=False, cancel_futures=True)

    @property
    def state(self) -> State:
        """The phase of the gateway's life."""
        return self.service_state.state

    @property
    def is_ready(self) -> bool:
        """The probes passed, the engine answers, and no operator has stopped it. While draining it is not ready for new work."""
        return self._host.answers and not self.service_state.draining

    @property
    def model(self) -> ServedModel:
        """The model that answers; raises NotReady before it is loaded."""
        if self._host.model is None:
            raise NotReady(f"no contract yet: {self.service_state.reason}")
        return self._host.model

    @property
    def sessions(self) -> dict[str, Session]:
        """Open sessions by id."""
        return self.registry.sessions

    def status(self) -> dict[str, object]:
        """For people and probes: state, reason, model."""
        model = self._host.model
        state, reason = self.access.state_and_reason()
        return {
            "state": state,
            "reason": reason,
            "model_version": "" if model is None else model.model_version,
            "contract_id": "" if model is None else model.contract_id,
            "bundle_digest": "" if model is None else model.bundle_digest,
            "sessions": len(self.sessions),
            "episodes": sum(1 for s in self.sessions.values() if s.episode_id is not None),
            "restarts": self.service_state.restarts,
            "levels": self._host.times.profile(),
            "instance": self._instance,
        }

    def models(self) -> list[dict[str, object]]:
        """The served models: one, or none yet."""
        model = self._host.model
        if model is None:
            return []
        keys = {"model_version": model.model_version, "contract_id": model.contract_id, "bundle_digest": model.bundle_digest}
        state, _ = self.access.state_and_reason()
        return [{**keys, "policy_id": model.contract.policy_id, "state": state, "levels": self._host.times.profile()}]

    def now(self) -> float:
        """An instant of this gateway's clock."""
        return self._clock()

    def open_session(
        self, hello: Hello, caller: Caller = ANYBODY, *, lease_s: float | None = None
    ) -> tuple[Session | None, Ready | Reject]:
        """Answer a HELLO; a `Session` comes with READY only. A cell's new session replaces its old one."""
        seconds = self.limits.lease_s if lease_s is None else lease_s
        answer = self.access.greet(hello, caller, seconds)
        if isinstance(answer, Reject):
            self.metrics.rejects.labels(answer.code.value).inc()
            logger.warning("session.refused cell=%s code=%s reason=%s", hello.cell, answer.code, answer.reason)
            return None, answer
        if (other := self.registry.of_cell(hello.cell)) is not None:
            self.close_session(other, RefusalCode.STALE_EPOCH, "this cell has opened a newer session")
        ready, peer = answer.ready, SessionPeer(cell=hello.cell, caller=caller, accepts_parts=hello.accepts_parts)
        session = Session(ready, peer, self.model, self, lease_s=seconds, clock=self._clock)
        self.registry.add(session, answer.adapter, hello.replan_hz)
        self.supervisor.count_sessions()
        logger.info("session.opened cell=%s epoch=%d session=%s subject=%s", hello.cell, ready.epoch, ready.session_id, caller.subject)
        return session, ready

    def close_session(
        self,
        session: Session,
        code: RefusalCode = RefusalCode.STALE_EPOCH,
        why: str = "this session was closed; reconnect with a new HELLO",
    ) -> None:
        """Free everything that is held for a session; safe to call twice."""
        self.supervisor.close_session(session, code, why)

    def prepares_quickly(self, session: Session, observe: Observe) -> bool:
        """Whether `prepare` has nothing to decode or convert here, only to compare: then it may run on the event loop."""
        adapter = self.registry.adapter_of(session)
        return not observe.encoded and (adapter is None or not adapter.converts)

    def prepare(self, session: Session | None, observe: Observe, arrived_at: float) -> PreparedObservation:
        """Decode and check the images of an OBSERVE. Thread-safe; on the event loop only where `prepares_quickly`."""
        adapter = None if session is None else self.registry.adapter_of(session)
        return (adapter or ObservationAdapter(self.model.contract)).prepare(observe, arrived_at, self._clock)

    def ask(self, session: Session, prepared: PreparedObservation) -> asyncio.Future[Chunk | Reject] | Reject:
        """Queue one OBSERVE now. A refusal is counted; the result of the future goes through `final_reply`, and the future lives on."""
        refused = self.access.refusal(session, prepared.observe)
        if refused is None:
            self.renew(session)
            asked = session.ask(prepared)
            if not isinstance(asked, Reject):
                return asked
            refused = asked
        self.count(refused)
        return refused

    def final_reply(self, session: Session, observe: Observe, reply: Chunk | Reject) -> Chunk | Reject:
        """The reply as the cell gets it, counted: a refusal for a session that has ended meanwhile."""
        self.renew(session)
        if not self.registry.is_open(session) and isinstance(reply, Chunk):
            reply = refusal_of(observe, *self.registry.why_ended(session))
        self.count(reply)
        return reply

    async def answer_once(self, observe: Observe, caller: Caller = ANYBODY, adapter: ObservationAdapter | None = None) -> Chunk | Reject:
        """Answer an OBSERVE outside any session: nothing is kept. For tools and for peers whose protocol has no sessions.

        adapter: remembers the images that the same peer sent last; None: there is nothing to compare them with.
        """
        refused = self.access.refusal_without_session(observe, caller)
        if refused is not None:
            reply: Chunk | Reject = refused
        else:
            model = self.model
            ready = Ready(session_id=observe.session_id, epoch=observe.epoch, model_version=model.model_version, contract=model.contract)
            session = Session(ready, SessionPeer(caller=caller), model, self, clock=self._clock)
            prepared = await self._prepared(replace(observe, seq=max(observe.seq, 1)), adapter or ObservationAdapter(model.contract))
            try:
                asked = session.ask(prepared)
                reply = asked if isinstance(asked, Reject) else await asked
            finally:
                session.drop("the caller has disconnected")
        if isinstance(reply, Chunk):
            reply = replace(reply, chunk_id=f"once-{uuid.uuid4().hex[:16]}")
        self.count(reply)
        return reply

    def submit(self, request: DecisionRequest, deadline: float, asked: str, guidance: Guidance) -> PendingRequest:
        """Hand a request to the engine, with the levels that may replace the one that was asked for."""
        return self._host.submit(request, deadline, asked, guidance)

    def end_episode(self, session: Session, end: End) -> None:
        """End an episode; the session stays open."""
        if session.end_episode(end):
            logger.info("episode.ended cell=%s episode=%s reason=%s", session.cell, end.episode_id, end.stop_reason)

    def renew(self, session: Session) -> float:
        """Renew a lease, unless its caller would not be admitted again; returns the seconds that are left."""
        now = self._clock()
        if self.access.may_stay(session.caller):
            session.lease.renew(now)
        return session.lease.left_s(now)

    def is_throttled(self, session: Session) -> bool:
        """Whether this cell replaces its own requests faster than it may."""
        is_throttled = self.access.is_throttled(session)
        self.metrics.throttled.inc(1 if is_throttled else 0)
        return is_throttled

    def count(self, reply: Chunk | Reject) -> None:
        """Count one answer."""
        if isinstance(reply, Reject):
            self.metrics.rejects.labels(reply.code.value).inc()
        else:
            self.metrics.count_chunk(reply)
        engine = self._host.engine
        if engine is not None:
            self.metrics.queue.set(engine.depth)
            self.metrics.rows.set(engine.rows)
        self.metrics.missed.inc(self._host.newly_missed())

    async def _prepared(self, observe: Observe, adapter: ObservationAdapter) -> PreparedObservation:
        return await asyncio.get_running_loop().run_in_executor(self.decoding, adapter.prepare, observe, self._clock(), self._clock)
