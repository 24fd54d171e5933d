"""Open sessions, what they reserve, and why the ended ones ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from model_core.spec.protocol.wire import Message, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.sessions import session_registry
from serving.gateway.sessions.session import Session
from tests.gateway_parts import Rooms


def test_a_session_is_found_by_its_cell_until_it_ends_once() -> None:
    async def scene() -> None:
        rooms, told = Rooms(), list[Message]()
        session = rooms.opened("a")
        session.send = told.append
        registry = rooms.registry
        assert registry.of_cell("a") is session
        assert registry.is_open(session)
        assert registry.adapter_of(session) is not None
        assert registry.remove(session, RefusalCode.LEASE, "too long silent")
        assert not registry.remove(session, RefusalCode.KILLED, "again")
        assert (registry.of_cell("a"), registry.is_open(session), registry.adapter_of(session)) == (None, False, None)
        assert session.ended.is_set()
        (reject,) = told
        assert isinstance(reject, Reject)
        assert (reject.code, reject.reason, reject.retryable) == (RefusalCode.LEASE, "too long silent", True)
        assert registry.why_ended(session) == (RefusalCode.LEASE, "too long silent")

    asyncio.run(scene())


def test_a_reservation_ends_with_the_cells_last_session() -> None:
    async def scene() -> None:
        rooms = Rooms()
        registry, first = rooms.registry, rooms.opened("a")
        adapter = registry.adapter_of(first)
        assert adapter is not None
        registry.reservations.hold("a", 5.0)
        second = _another_of_the_same_cell(rooms, first)
        registry.add(second, adapter, 5.0)
        registry.remove(first, RefusalCode.STALE_EPOCH, "newer session")
        assert registry.reservations.total_per_s == 5.0
        registry.remove(second, RefusalCode.STALE_EPOCH, "closed")
        assert registry.reservations.total_per_s == 0.0

    asyncio.run(scene())


def _another_of_the_same_cell(rooms: Rooms, first: Session) -> Session:
    from serving.gateway.sessions.session_state import SessionPeer

    assert rooms.host.model is not None
    return Session(replace(first.ready, session_id="another"), SessionPeer(cell="a"), rooms.host.model, rooms.host, clock=rooms.clock)


def test_the_shortest_lease_and_the_held_memory_are_over_all_sessions() -> None:
    async def scene() -> None:
        rooms = Rooms()
        assert (rooms.registry.shortest_lease_s(rooms.clock.now), rooms.registry.held_bytes()) == (0.0, 0)
        first, second = rooms.opened("a"), rooms.opened("b")
        first.lease.until, second.lease.until = rooms.clock.now + 3.0, rooms.clock.now + 7.0
        assert rooms.registry.shortest_lease_s(rooms.clock.now) == 3.0
        assert rooms.registry.held_bytes() == first.held_bytes + second.held_bytes > 0

    asyncio.run(scene())


def test_why_sessions_ended_is_remembered_for_a_bounded_number(monkeypatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(session_registry, "_REMEMBERED", 2)
        rooms = Rooms()
        sessions = [rooms.opened(name) for name in ("a", "b", "c")]
        for session in sessions:
            rooms.registry.remove(session, RefusalCode.KILLED, "stopped")
        assert rooms.registry.why_ended(sessions[0])[0] is RefusalCode.STALE_EPOCH  # forgotten: the general answer
        assert [rooms.registry.why_ended(session)[0] for session in sessions[1:]] == [RefusalCode.KILLED] * 2

    asyncio.run(scene())
