"""Who may ask now: handshakes, episodes, leases, tokens and the pace of asking. Everything here is decided before the model is asked."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

from model_core.spec.errors import NotReady
from model_core.spec.protocol.wire import Hello, Observe, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.inference.model_host import EngineRoom
from serving.gateway.operations.limits import Limits
from serving.gateway.operations.service_state import Standing, State
from serving.gateway.operations.tokens import ANYBODY, Caller, Tokens
from serving.gateway.sessions.handshake import Fit, greet
from serving.gateway.sessions.replies import rejection
from serving.gateway.sessions.session import Session
from serving.gateway.sessions.session_registry import Register

_MAY_ASK_AGAIN = frozenset({RefusalCode.NOT_READY, RefusalCode.OVERLOAD, RefusalCode.DRAINING, RefusalCode.LEASE})
_SOON_MS, _LATER_MS = 1000.0, 5000.0


class Reception:
    """Decides, and changes nothing but its own memory. Lives on the event loop. clock: monotonic seconds."""

    def __init__(
        self, limits: Limits, standing: Standing, tokens: Tokens | None, register: Register, room: EngineRoom, clock: Callable[[], float]
    ) -> None:
        self._limits, self._standing, self._tokens = limits, standing, tokens
        self._register, self._room, self._clock = register, room, clock
        self._outdated: dict[str, float] = {}

    def trouble(self) -> tuple[str, str]:
        """State and reason, for people: "ready" and "" when new work is taken."""
        standing, trouble = self._standing, self._room.trouble
        if trouble:
            return "hung", trouble
        if standing.state is State.READY and standing.draining:
            return "draining", standing.draining
        return str(standing.state), standing.reason

    def greet(self, hello: Hello, caller: Caller, lease_s: float) -> tuple[Ready | Reject, Fit]:
        """Answer a HELLO; with READY comes how the cell's observations are read."""
        refused = self._refused_cell(hello, caller)
        if refused is None:
            answer, fit = greet(hello, self._ready(hello.epoch, lease_s))
            if isinstance(answer, Reject):
                return answer, fit
            full = self._register.reservations.refuses(hello.cell, hello.replan_hz, self._room.times.capacity_per_s(""))
            if not full:
                return answer, fit
            refused = RefusalCode.OVERLOAD, full
        code, reason = refused
        retry_after_ms = 0.0 if code not in _MAY_ASK_AGAIN else _SOON_MS if code is RefusalCode.NOT_READY else _LATER_MS
        again = code in _MAY_ASK_AGAIN
        return Reject(code=code, reason=reason, epoch=hello.epoch, retryable=again, retry_after_ms=retry_after_ms), Fit.none()

    def refusal(self, session: Session, observe: Observe) -> Reject | None:
        """Why this OBSERVE is not even looked at; None when it may be asked."""
        if not self._register.is_open(session):
            return refused(observe, *self._register.why_ended(session))
        if session.stale(observe) is not None:
            return None  # the session says so itself
        now = self._clock()
        if session.lease.left_s(now) <= 0:
            return refused(observe, RefusalCode.LEASE, "the lease has run out; shake hands again")
        stop = self._stopped(session.cell)
        return refused(observe, *stop) if stop else self._too_often(session, observe, now) or self._no_episode(session, observe)

    def refusal_once(self, observe: Observe, caller: Caller) -> Reject | None:
        """The same for somebody who has no session."""
        stop = self._stopped("")
        if stop is None and self._standing.draining:
            stop = RefusalCode.DRAINING, self._standing.draining
        if stop is None and self.has_outstayed(caller):
            stop = RefusalCode.AUTH, f"the token of {caller.subject!r} is no longer valid"
        return None if stop is None else refused(observe, *stop)

    def may_stay(self, caller: Caller) -> bool:
        """Whether this caller would be let in again now."""
        return self._tokens is None or caller is ANYBODY or self._tokens.still_valid(caller)

    def has_outstayed(self, caller: Caller) -> bool:
        """Whether a caller without sessions, and so without leases, could not come in again for as long as a lease lasts."""
        if self.may_stay(caller):
            self._outdated.pop(caller.digest, None)
            return False
        now = self._clock()
        return now - self._outdated.setdefault(caller.digest, now) > self._limits.lease_s

    def is_throttled(self, session: Session) -> bool:
        """Whether this cell replaces its own requests faster than it may."""
        since = self._clock() - 1.0
        session.replaced[:] = [at for at in session.replaced[-4 * self._limits.replaced_per_s :] if at > since]
        return len(session.replaced) > self._limits.replaced_per_s

    def _refused_cell(self, hello: Hello, caller: Caller) -> tuple[RefusalCode, str] | None:
        stop = self._stopped(hello.cell)
        if stop:
            return stop
        if self._standing.draining:
            return RefusalCode.DRAINING, self._standing.draining
        holder = self._register.of_cell(hello.cell)
        if holder is not None and holder.caller.subject != caller.subject:
            return RefusalCode.AUTH, f"cell {hello.cell!r} has a session of another holder; it ends with its lease"
        if holder is None and len(self._register.sessions) >= self._limits.max_sessions:
            return RefusalCode.OVERLOAD, f"{self._limits.max_sessions} sessions are open, all that this service takes"
        return None

    def _stopped(self, cell: str) -> tuple[RefusalCode, str] | None:
        """Why nobody, or this cell, is answered now."""
        killed = self._standing.killed.get("") or (cell and self._standing.killed.get(cell))
        if killed:
            return RefusalCode.KILLED, killed
        return None if self._room.answers else (RefusalCode.NOT_READY, self.trouble()[1])

    def _too_often(self, session: Session, observe: Observe, now: float) -> Reject | None:
        early_ms = self._limits.min_interval_ms - 1e3 * (now - session.asked_at)
        if early_ms > 0 and session.is_new(observe):
            text = f"the next request may come in {early_ms:.0f} ms; at least {self._limits.min_interval_ms:g} ms lie between two"
            return replace(refused(observe, RefusalCode.OVERLOAD, text), retry_after_ms=early_ms)
        if session.is_waiting and self.is_throttled(session):
            text = f"more than {self._limits.replaced_per_s} requests a second were replaced before they were answered"
            return replace(refused(observe, RefusalCode.OVERLOAD, text), retry_after_ms=_SOON_MS)
        return None

    def _no_episode(self, session: Session, observe: Observe) -> Reject | None:
        if session.episode_id is not None and observe.episode_id == session.episode_id:
            return None
        if self._standing.draining:
            return refused(observe, RefusalCode.DRAINING, f"no new episode is begun: {self._standing.draining}")
        if not self.may_stay(session.caller):
            text = f"the token of {session.caller.subject!r} is no longer valid; a new episode needs a new one"
            return refused(observe, RefusalCode.AUTH, text)
        return None

    def _ready(self, epoch: int, lease_s: float) -> Ready:
        who = self._room.identity
        if who is None:
            raise NotReady("there is no contract yet")
        return Ready(
            session_id=uuid.uuid4().hex,
            epoch=epoch,
            model_version=who.model_version,
            contract=who.contract,
            lease_s=lease_s,
            levels=self._room.times.profile(),
            bundle_digest=who.bundle_digest,
            min_interval_ms=self._limits.min_interval_ms,
        )


def refused(observe: Observe, code: RefusalCode, reason: str) -> Reject:
    """A REJECT that echoes `observe` and says truly whether asking again may help."""
    return rejection(observe, code, reason, retryable=code in _MAY_ASK_AGAIN)
