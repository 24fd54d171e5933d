"""What concerns all sessions at once: an operator's drain, kill and resume, a lost engine, and leases that run out."""

from __future__ import annotations

import logging

from model_core.access import Caller
from model_core.spec.types import RefusalCode
from serving.gateway.operations.metrics import Metrics
from serving.gateway.sessions.access_policy import AccessPolicy, GatewayParts
from serving.gateway.sessions.session import Session

logger = logging.getLogger(__name__)


class Supervisor:
    """Tells the cells what an operator or a failure means for them. Lives on the event loop."""

    def __init__(self, parts: GatewayParts, access: AccessPolicy, metrics: Metrics) -> None:
        self._parts, self._access, self._metrics = parts, access, metrics
        self._state, self._registry, self._host = parts.state, parts.registry, parts.host
        self._told_to_hold = False

    def drain(self, caller: Caller, why: str = "") -> None:
        """Begin no new episode and no new session; running episodes are finished."""
        sessions = self._registry.sessions.values()
        self._state.draining = f"the service is being drained{': ' + why if why else ''}"
        self._metrics.draining.set(1)
        logger.warning("admin.drain subject=%s role=%s reason=%s sessions=%d", caller.subject, caller.role, why, len(sessions))
        for session in sessions:
            session.tell(session.control("DRAIN", text=self._state.draining))

    def kill(self, caller: Caller, why: str = "", cell: str = "") -> None:
        """Stop one cell, or with "" all of them: no request is answered any more, and the cells are told to stop for good."""
        text = f"stopped by an operator{': ' + why if why else ''}"
        self._state.killed[cell] = text
        logger.warning("admin.kill subject=%s role=%s cell=%s reason=%s", caller.subject, caller.role, cell or "(all)", why)
        for session in self._registry.sessions.values():
            if cell in {"", session.cell}:
                session.tell(session.control("KILL", text=text))
                session.drop(text, RefusalCode.KILLED)

    def resume(self, caller: Caller) -> None:
        """Undo drain and kill. Killed cells must reconnect: no robot moves again by itself."""
        logger.warning("admin.resume subject=%s role=%s", caller.subject, caller.role)
        was_killed, was_draining = dict(self._state.killed), bool(self._state.draining)
        self._state.draining, self._state.killed = "", {}
        self._metrics.draining.set(0)
        for session in [s for s in self._registry.sessions.values() if "" in was_killed or s.cell in was_killed]:
            self.close_session(session, RefusalCode.STALE_EPOCH, "this session was stopped by an operator; reconnect with a new HELLO")
        if was_draining and not self._told_to_hold:  # else the RESET that ends the HOLD ends the DRAIN too
            self._reset_cells("the service is no longer draining")

    def tend(self) -> list[Session]:
        """Periodic work, on the event loop: end sessions whose lease ran out, replace an engine that hangs. Returns the ended sessions."""
        now, limits = self._parts.clock(), self._parts.limits
        over = [s for s in self._registry.sessions.values() if s.lease.left_s(now) <= 0 and not s.is_waiting]
        for session in over:
            text = f"the lease ran out after {session.lease.seconds:g} s without a message; reconnect with a new HELLO"
            if not self._access.may_stay(session.caller):
                text = "the lease ran out and the token is no longer valid; reconnect with a new token"
            logger.info("session.expired cell=%s session=%s", session.cell, session.ready.session_id)
            self.close_session(session, RefusalCode.LEASE, text)
        for session in self._registry.sessions.values():
            session.forget(now, limits.state_ttl_s, limits.max_session_bytes)
        self._watch_engine()
        self.count_sessions()
        return over

    def close_session(self, session: Session, code: RefusalCode, why: str) -> None:
        """Free everything that is held for a session; safe to call twice."""
        if self._registry.remove(session, code, why):
            self.count_sessions()

    def count_sessions(self) -> None:
        """Set the gauges that describe sessions, readiness and the served model."""
        metrics, registry = self._metrics, self._registry
        metrics.sessions.set(len(registry.sessions))
        metrics.session_bytes.set(registry.held_bytes())
        metrics.lease.set(registry.shortest_lease_s(self._parts.clock()))
        metrics.reserved.set(registry.reservations.total_per_s)
        metrics.ready.set(1 if self._host.answers and not self._state.draining else 0)
        if (model := self._host.model) is not None:
            metrics.model.labels(model.model_version, model.contract_id, model.bundle_digest).set(1)

    def _reset_cells(self, why: str) -> None:
        """A cell that was told HOLD or DRAIN waits for a RESET from the same service."""
        self._told_to_hold = False
        for session in self._registry.sessions.values():
            session.tell(session.control("RESET", text=why))

    def _watch_engine(self) -> None:
        """Replace an engine that hangs or has died. The cells are told at once; their requests are refused."""
        why = self._host.trouble
        if not why:
            if self._told_to_hold and self._host.answers:
                self._reset_cells("the engine answers again")
            return
        self._told_to_hold = True
        if self._host.replace(why):
            self._metrics.restarts.inc()
        for session in self._registry.sessions.values():
            session.tell(session.control("HOLD", text=why))
