"""What concerns all sessions at once: an operator's drain, kill and resume, a lost engine, and leases that run out."""

from __future__ import annotations

import logging

from model_core.access import Caller
from model_core.spec.fleet.kill_list import Kill, KillList, Scope
from model_core.spec.types import RefusalCode
from serving.gateway.operations.metrics import Metrics
from serving.gateway.sessions.access_policy import AccessPolicy, GatewayParts
from serving.gateway.sessions.session import Session
from serving.gateway.sessions.session_state import StopTold

logger = logging.getLogger(__name__)

_STOPS_KEPT = 1024


class Supervisor:
    """Tells the cells what an operator or a failure means for them. Lives on the event loop."""

    def __init__(self, parts: GatewayParts, access: AccessPolicy, metrics: Metrics) -> None:
        self._parts, self._access, self._metrics = parts, access, metrics
        self._state, self._registry, self._host = parts.state, parts.registry, parts.host
        self._told_to_hold = self._is_offline = False
        self._stops: dict[str, StopTold] = {}  # by session

    def drain(self, caller: Caller, why: str = "") -> None:
        """Begin no new episode and no new session; running episodes are finished."""
        sessions = self._registry.sessions.values()
        self._state.draining = f"the service is being drained{': ' + why if why else ''}"
        self._metrics.draining.set(1)
        logger.warning("admin.drain subject=%s role=%s reason=%s sessions=%d", caller.subject, caller.role, why, len(sessions))
        for session in sessions:
            session.tell(session.control("DRAIN", text=self._state.draining))

    def kill(self, caller: Caller, why: str = "", cell: str = "", *, scope: Scope | None = None, value: str = "") -> Kill:
        """Stop something: a cell, or by scope and value anything that a kill can name; nothing named means the whole service.

        No request of it is answered any more, and its cells are told to stop for good. Raises `WireError` for a scope without its value.
        """
        scope, value = (scope, value) if scope is not None else ("cell", cell) if cell else ("fleet", "")
        kill = self._state.kills.order(scope, value, why, caller.subject)
        logger.warning(
            "admin.kill subject=%s role=%s scope=%s value=%s id=%s reason=%s", caller.subject, caller.role, scope, value, kill.id, why
        )
        self._stop_killed()
        return kill

    def obey(self, message: bytes, source: str) -> KillList | None:
        """Take the fleet's signed kill list in; None for one that is in force already. Raises `WireError` for one that may not follow."""
        before = {kill.id for kill in self._state.kills.in_force}
        found = self._state.kills.accept(message)
        if found is not None:
            after = {kill.id for kill in self._state.kills.in_force}
            if after != before:
                logger.warning("fleet.kills number=%d in_force=%s source=%s", found.number, ",".join(sorted(after)) or "none", source)
            self._stop_killed()
            self._let_go()
        return found

    def release(self, caller: Caller) -> str:
        """One principal releases what was ordered here; returns what is still missing, "" when it is released.

        Killed cells must reconnect: no robot moves again by itself.
        """
        missing = self._state.kills.release(caller.subject, caller.digest)
        logger.warning("admin.release subject=%s role=%s missing=%s", caller.subject, caller.role, missing or "nothing")
        self._let_go()
        return missing

    def resume(self, caller: Caller) -> None:
        """Undo drain."""
        logger.warning("admin.resume subject=%s role=%s", caller.subject, caller.role)
        was_draining, self._state.draining = bool(self._state.draining), ""
        self._metrics.draining.set(0)
        if was_draining and not self._told_to_hold:  # else the RESET that ends the HOLD ends the DRAIN too
            self._reset_cells("the service is no longer draining")

    def _stop_killed(self) -> None:
        """Tell every cell that a kill concerns, once."""
        for name, session in self._registry.sessions.items():
            why = self._access.killed(session.cell)
            if why and name not in self._stops:
                self._stops[name] = StopTold(cell=session.cell, told_at=self._parts.clock(), is_idle=session.episode_id is None)
                session.tell(session.control("KILL", text=why))
                session.drop(why, RefusalCode.KILLED)
        while len(self._stops) > _STOPS_KEPT:
            del self._stops[next(iter(self._stops))]

    def _let_go(self) -> None:
        """Sessions that were stopped and are not any more end: their cells shake hands again, and a person there resumes them."""
        for name, stop in list(self._stops.items()):
            if not self._access.killed(stop.cell):
                del self._stops[name]
                if (session := self._registry.sessions.get(name)) is not None:
                    text = "this session was stopped by an operator; reconnect with a new HELLO"
                    self.close_session(session, RefusalCode.STALE_EPOCH, text)

    def held(self, session: Session) -> None:
        """A cell says that it holds. After a KILL this is measured, once: from the order to the cell's word, so never too short."""
        stop = self._stops.get(session.ready.session_id)
        if stop is None or stop.held_after_s is not None:
            return
        stop.held_after_s = self._parts.clock() - stop.told_at
        self._metrics.kill_to_hold.observe(stop.held_after_s)
        logger.warning("cell.held cell=%s after_ms=%.0f", session.cell, 1e3 * stop.held_after_s)

    def stops(self) -> list[dict[str, object]]:
        """For operators: each stopped cell, whether no episode ran, and after how long it held (None: it has not said so yet)."""
        return [{"cell": one.cell, "idle": one.is_idle, "held_after_s": one.held_after_s} for one in self._stops.values()]

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
        self._watch_fleet()
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
        kills = self._state.kills
        metrics.kills.set(len(kills.in_force))
        metrics.fleet_lease.set(-1 if (left_s := kills.lease_left_s()) is None else left_s)
        metrics.ready.set(1 if self._host.answers and not self._state.draining else 0)
        if (model := self._host.model) is not None:
            metrics.model.labels(model.model_version, model.contract_id, model.bundle_digest).set(1)

    def _watch_fleet(self) -> None:
        """The offline rule "stop" holds every cell as long as the fleet is not heard."""
        why = self._state.kills.offline_stop()
        if bool(why) != self._is_offline:
            logger.warning("fleet.%s rule=%s", "lost" if why else "heard", self._state.kills.ties.offline.then)
            for session in self._registry.sessions.values():
                session.tell(session.control("HOLD" if why else "RESET", text=why or "the fleet is heard again"))
        self._is_offline = bool(why)

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
