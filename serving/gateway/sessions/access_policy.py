"""Who may ask now: handshakes, episodes, leases, tokens and request rates. Everything here is decided before the model is asked."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from model_core.access import ANYBODY, Caller, Tokens
from model_core.spec.errors import NotReady
from model_core.spec.protocol.wire import Hello, Observe, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.inference.model_host import ModelHost
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.operations.service_state import ServiceState, State
from serving.gateway.sessions.handshake import Accepted, greet
from serving.gateway.sessions.replies import rejection
from serving.gateway.sessions.session import Session
from serving.gateway.sessions.session_registry import SessionRegistry

_MAY_ASK_AGAIN = frozenset({RefusalCode.NOT_READY, RefusalCode.OVERLOAD, RefusalCode.DRAINING, RefusalCode.LEASE})
_SOON_MS, _LATER_MS = 1000.0, 5000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayParts:
    """What the parts of one gateway share. tokens: None where every caller may ask. clock: monotonic seconds."""

    limits: GatewayLimits
    state: ServiceState
    registry: SessionRegistry
    host: ModelHost
    tokens: Tokens | None
    clock: Callable[[], float]


class AccessPolicy:
    """Decides, and changes nothing but its own memory. Lives on the event loop."""

    def __init__(self, parts: GatewayParts) -> None:
        self._limits, self._state, self._tokens = parts.limits, parts.state, parts.tokens
        self._registry, self._host, self._clock = parts.registry, parts.host, parts.clock
        self._outdated: dict[str, float] = {}

    def state_and_reason(self) -> tuple[str, str]:
        """State and reason, for people: "ready" and "" when new work is taken."""
        state, trouble = self._state, self._host.trouble
        if trouble:
            return "hung", trouble
        if state.state is State.READY and state.draining:
            return "draining", state.draining
        return str(state.state), state.reason

    def greet(self, hello: Hello, caller: Caller, lease_s: float) -> Accepted | Reject:
        """Answer a HELLO."""
        refused = self._refused_cell(hello, caller)
        if refused is None:
            answer = greet(hello, self._ready(hello.epoch, lease_s))
            if isinstance(answer, Reject):
                return answer
            full = self._registry.reservations.refuses(hello.cell, hello.replan_hz, self._host.times.capacity_per_s(""))
            if not full:
                return answer
            refused = RefusalCode.OVERLOAD, full
        code, reason = refused
        retry_after_ms = 0.0 if code not in _MAY_ASK_AGAIN else _SOON_MS if code is RefusalCode.NOT_READY else _LATER_MS
        return Reject(code=code, reason=reason, epoch=hello.epoch, retryable=code in _MAY_ASK_AGAIN, retry_after_ms=retry_after_ms)

    def refusal(self, session: Session, observe: Observe) -> Reject | None:
        """Why this OBSERVE is refused before it is read; None when it may be asked."""
        if not self._registry.is_open(session):
            return refused(observe, *self._registry.why_ended(session))
        if session.stale(observe) is not None:
            return None  # the session refuses it
        now = self._clock()
        if session.lease.left_s(now) <= 0:
            return refused(observe, RefusalCode.LEASE, "the lease has run out; reconnect with a new HELLO")
        stop = self._stopped(session.cell)
        return refused(observe, *stop) if stop else self._too_often(session, observe, now) or self._no_episode(session, observe)

    def refusal_without_session(self, observe: Observe, caller: Caller) -> Reject | None:
        """The same for a caller that has no session."""
        stop = self._stopped("")
        if stop is None and self._state.draining:
            stop = RefusalCode.DRAINING, self._state.draining
        if stop is None and self.has_outstayed(caller):
            stop = RefusalCode.AUTH, f"the token of {caller.subject!r} is no longer valid"
        return None if stop is None else refused(observe, *stop)

    def killed(self, cell: str) -> str:
        """Why this cell is stopped; "" while it is not. cell: "" for a caller without a session."""
        model = self._host.model
        if model is None:
            return self._state.kills.stopped("", "", cell)
        return self._state.kills.stopped(model.model_version, model.bundle_digest, cell)

    def may_stay(self, caller: Caller) -> bool:
        """Whether this caller would be admitted again now."""
        return self._tokens is None or caller is ANYBODY or self._tokens.still_valid(caller)

    def has_outstayed(self, caller: Caller) -> bool:
        """Whether the token of a caller without sessions, and so without leases, has been invalid for longer than a lease lasts."""
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
        if self._state.draining:
            return RefusalCode.DRAINING, self._state.draining
        holder = self._registry.of_cell(hello.cell)
        if holder is not None and holder.caller.subject != caller.subject:
            return RefusalCode.AUTH, f"cell {hello.cell!r} has a session of another holder; it ends with its lease"
        if holder is None and len(self._registry.sessions) >= self._limits.max_sessions:
            return RefusalCode.OVERLOAD, f"{self._limits.max_sessions} sessions are open, the most that this service takes"
        return None

    def _stopped(self, cell: str) -> tuple[RefusalCode, str] | None:
        """Why no cell, or not this cell, is answered now."""
        if killed := self.killed(cell):
            return RefusalCode.KILLED, killed
        if offline := self._state.kills.offline_stop():
            return RefusalCode.LEASE, offline
        return None if self._host.answers else (RefusalCode.NOT_READY, self.state_and_reason()[1])

    def _too_often(self, session: Session, observe: Observe, now: float) -> Reject | None:
        early_ms = self._limits.min_interval_ms - 1e3 * (now - session.asked_at)
        if early_ms > 0 and session.is_new(observe):
            text = f"the next request may come in {early_ms:.0f} ms; the shortest interval is {self._limits.min_interval_ms:g} ms"
            return replace(refused(observe, RefusalCode.OVERLOAD, text), retry_after_ms=early_ms)
        if session.is_waiting and self.is_throttled(session):
            text = f"more than {self._limits.replaced_per_s} requests a second were replaced before they were answered"
            return replace(refused(observe, RefusalCode.OVERLOAD, text), retry_after_ms=_SOON_MS)
        return None

    def _no_episode(self, session: Session, observe: Observe) -> Reject | None:
        if session.episode_id is not None and observe.episode_id == session.episode_id:
            return None
        if self._state.draining:
            return refused(observe, RefusalCode.DRAINING, f"no new episode may begin: {self._state.draining}")
        if offline := self._state.kills.offline_episode(f"{session.cell}/{observe.episode_id}"):
            return refused(observe, RefusalCode.DRAINING, offline)
        if not self.may_stay(session.caller):
            text = f"the token of {session.caller.subject!r} is no longer valid; a new episode needs a new one"
            return refused(observe, RefusalCode.AUTH, text)
        return None

    def _ready(self, epoch: int, lease_s: float) -> Ready:
        model = self._host.model
        if model is None:
            raise NotReady("there is no contract yet")
        return Ready(
            session_id=uuid.uuid4().hex,
            epoch=epoch,
            model_version=model.model_version,
            contract=model.contract,
            lease_s=lease_s,
            levels=self._host.times.profile(),
            bundle_digest=model.bundle_digest,
            min_interval_ms=self._limits.min_interval_ms,
        )


def refused(observe: Observe, code: RefusalCode, reason: str) -> Reject:
    """A REJECT that echoes `observe` and says whether asking again may help."""
    return rejection(observe, code, reason, retryable=code in _MAY_ASK_AGAIN)
