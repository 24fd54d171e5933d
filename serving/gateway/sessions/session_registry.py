"""Open sessions, what was reserved for them, and why the ended ones ended. Bounded; lives on the event loop."""

from __future__ import annotations

from collections import OrderedDict

from model_core.spec.protocol.wire import Reject
from model_core.spec.types import RefusalCode
from serving.gateway.inference.admission import Reservations
from serving.gateway.sessions.observation_adapter import ObservationAdapter
from serving.gateway.sessions.session import Mirror, Session

_REMEMBERED = 1024


class SessionRegistry:
    """Open sessions by id. share: of the measured capacity that may be reserved. mirror: looks on at all of them (`Session`)."""

    def __init__(self, share: float) -> None:
        self.sessions: dict[str, Session] = {}
        self.reservations = Reservations(share)
        self.mirror: Mirror | None = None
        self._adapters: dict[str, ObservationAdapter] = {}
        self._ended: OrderedDict[str, tuple[RefusalCode, str]] = OrderedDict()

    def add(self, session: Session, adapter: ObservationAdapter, rate_per_s: float) -> None:
        """Add an open session. adapter: how its observations are read. rate_per_s: what is reserved for its cell."""
        session.mirror = self.mirror
        self.sessions[session.ready.session_id] = session
        self._adapters[session.ready.session_id] = adapter
        self.reservations.hold(session.cell, rate_per_s)

    def remove(self, session: Session, code: RefusalCode, why: str) -> bool:
        """End a session: its request is dropped, its cell is told why. False when it had ended before."""
        session.reset()
        ready = session.ready
        if self.sessions.pop(ready.session_id, None) is None:
            return False
        is_lease = code is RefusalCode.LEASE
        session.tell(Reject(session_id=ready.session_id, epoch=ready.epoch, code=code, reason=why, retryable=is_lease))
        session.ended.set()
        self._adapters.pop(ready.session_id, None)
        self._ended[ready.session_id] = (code, why)
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if self.of_cell(session.cell) is None:
            self.reservations.free(session.cell)
        return True

    def is_open(self, session: Session) -> bool:
        """Whether it has not ended."""
        return session.ready.session_id in self.sessions

    def why_ended(self, session: Session) -> tuple[RefusalCode, str]:
        """What a cell is told that still sends messages in a session that has ended."""
        return self._ended.get(session.ready.session_id, (RefusalCode.STALE_EPOCH, "session closed; reconnect with a new HELLO"))

    def adapter_of(self, session: Session) -> ObservationAdapter | None:
        """How its observations are read; None when it has ended. Thread-safe."""
        return self._adapters.get(session.ready.session_id)

    def of_cell(self, cell: str) -> Session | None:
        """The open session of a cell."""
        return next((s for s in self.sessions.values() if s.cell == cell), None)

    def held_bytes(self) -> int:
        """About how much memory is held for all of them."""
        return sum(session.held_bytes for session in self.sessions.values())

    def shortest_lease_s(self, now: float) -> float:
        """Seconds until the first lease runs out; 0 without any session."""
        return min((session.lease.left_s(now) for session in self.sessions.values()), default=0.0)
