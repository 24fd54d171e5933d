"""Who may ask now: leases, tokens, orders of an operator, request rates. Real parts, a clock of the test's own, no sockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from model_core.access import Caller, Role, Tokens, token_digest
from model_core.spec.protocol.wire import Reject
from model_core.spec.types import RefusalCode
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.handshake import Accepted
from tests.gateway_parts import Rooms, observe


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


def code(answer: object) -> RefusalCode:
    assert isinstance(answer, Reject), answer
    return answer.code


def test_a_cell_that_fits_is_accepted_and_may_ask() -> None:
    async def scene() -> None:
        rooms = Rooms()
        session = rooms.opened()
        assert rooms.access.refusal(session, observe(session.ready)) is None
        assert rooms.access.state_and_reason() == ("ready", "")

    run(scene)


def test_a_lease_that_has_run_out_is_refused_as_such_and_a_renewed_one_is_not() -> None:
    async def scene() -> None:
        rooms = Rooms(limits=GatewayLimits(warm_up_s=0.0, lease_s=5.0))
        session = rooms.opened()
        rooms.clock.now += 4.9
        session.lease.renew(rooms.clock.now)
        rooms.clock.now += 4.9
        assert rooms.access.refusal(session, observe(session.ready)) is None
        rooms.clock.now += 0.2
        refused = rooms.access.refusal(session, observe(session.ready))
        assert code(refused) is RefusalCode.LEASE
        assert refused is not None
        assert refused.retryable

    run(scene)


def test_an_ended_session_is_told_why_it_ended() -> None:
    async def scene() -> None:
        rooms = Rooms()
        session = rooms.opened()
        rooms.registry.remove(session, RefusalCode.KILLED, "stopped by hand")
        refused = rooms.access.refusal(session, observe(session.ready))
        assert code(refused) is RefusalCode.KILLED
        assert refused is not None
        assert refused.reason == "stopped by hand"

    run(scene)


def test_draining_finishes_the_running_episode_and_begins_none() -> None:
    async def scene() -> None:
        rooms = Rooms()
        session = rooms.opened()
        session.episode_id = "running"
        rooms.state.draining = "a new version"
        assert rooms.access.refusal(session, observe(session.ready, episode="running")) is None
        assert code(rooms.access.refusal(session, observe(session.ready, episode="next"))) is RefusalCode.DRAINING
        assert code(rooms.access.greet(rooms.hello("b"), session.caller, 5.0)) is RefusalCode.DRAINING
        assert rooms.access.state_and_reason() == ("draining", "a new version")

    run(scene)


def test_a_killed_cell_is_refused_and_another_is_not() -> None:
    async def scene() -> None:
        rooms = Rooms()
        first, second = rooms.opened("a"), rooms.opened("b")
        rooms.state.kills.order("cell", "a", "smoke", "ann")
        assert code(rooms.access.refusal(first, observe(first.ready))) is RefusalCode.KILLED
        assert rooms.access.refusal(second, observe(second.ready)) is None
        assert code(rooms.access.greet(rooms.hello("a"), first.caller, 5.0)) is RefusalCode.KILLED

    run(scene)


def test_a_cell_of_another_holder_and_one_too_many_are_refused() -> None:
    async def scene() -> None:
        rooms = Rooms(limits=GatewayLimits(warm_up_s=0.0, max_sessions=1))
        rooms.opened("a", Caller(subject="ann", role=Role.OPERATE))
        assert code(rooms.access.greet(rooms.hello("a"), Caller(subject="bob", role=Role.OPERATE), 5.0)) is RefusalCode.AUTH
        full = rooms.access.greet(rooms.hello("b"), Caller(subject="bob", role=Role.OPERATE), 5.0)
        assert code(full) is RefusalCode.OVERLOAD
        assert isinstance(full, Reject)
        assert full.retry_after_ms > 0
        again = rooms.access.greet(rooms.hello("a"), Caller(subject="ann", role=Role.OPERATE), 5.0)
        assert isinstance(again, Accepted)  # in place of its old session

    run(scene)


def test_requests_that_come_too_often_are_refused_with_a_time_to_come_back() -> None:
    async def scene() -> None:
        rooms = Rooms(limits=GatewayLimits(warm_up_s=0.0, min_interval_ms=100.0))
        session = rooms.opened()
        session.asked_at = rooms.clock.now
        rooms.clock.now += 0.06
        refused = rooms.access.refusal(session, observe(session.ready))
        assert code(refused) is RefusalCode.OVERLOAD
        assert refused is not None
        assert refused.retry_after_ms == pytest.approx(40.0, abs=1.0)
        rooms.clock.now += 0.06
        assert rooms.access.refusal(session, observe(session.ready)) is None

    run(scene)


def test_replaced_requests_are_counted_over_one_second() -> None:
    async def scene() -> None:
        rooms = Rooms(limits=GatewayLimits(warm_up_s=0.0, replaced_per_s=3))
        session = rooms.opened()
        session.replaced += [rooms.clock.now] * 3
        assert not rooms.access.is_throttled(session)
        session.replaced.append(rooms.clock.now)
        assert rooms.access.is_throttled(session)
        rooms.clock.now += 1.1
        assert not rooms.access.is_throttled(session)

    run(scene)


def test_a_revoked_token_ends_with_the_episode_and_without_a_session_after_a_lease(tmp_path: Path) -> None:
    async def scene() -> None:
        file, clock = tmp_path / "tokens.json", [1000.0]
        file.write_text(json.dumps({token_digest("secret"): {"subject": "ann", "role": "operate"}}))
        tokens = Tokens.from_file(file, clock=lambda: clock[0])
        caller = tokens.admit("Bearer secret", Role.OPERATE)
        assert isinstance(caller, Caller)
        rooms = Rooms(limits=GatewayLimits(warm_up_s=0.0, lease_s=5.0), tokens=tokens)
        session = rooms.opened("a", caller)
        session.episode_id = "running"
        file.write_text(json.dumps({token_digest("another"): {"subject": "bob", "role": "operate"}}))
        os.utime(file, ns=(1, 1))
        clock[0] += 10.0
        assert not rooms.access.may_stay(caller)
        assert rooms.access.refusal(session, observe(session.ready, episode="running")) is None
        assert code(rooms.access.refusal(session, observe(session.ready, episode="next"))) is RefusalCode.AUTH
        assert rooms.access.refusal_without_session(observe(session.ready), caller) is None
        rooms.clock.now += 5.1
        assert code(rooms.access.refusal_without_session(observe(session.ready), caller)) is RefusalCode.AUTH

    run(scene)


def test_an_engine_that_does_not_answer_makes_every_cell_wait() -> None:
    async def scene() -> None:
        rooms = Rooms()
        session = rooms.opened()
        rooms.state.fail("the model is gone")
        refused = rooms.access.refusal(session, observe(session.ready))
        assert code(refused) is RefusalCode.NOT_READY
        assert refused is not None
        assert (refused.retryable, refused.reason) == (True, "the model is gone")

    run(scene)
