"""Small parts of the gateway: the send queue, the idempotency cache, and how often an engine may be replaced."""

from __future__ import annotations

import asyncio

import pytest

from model_core.spec.protocol.wire import Chunk, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.http.idempotency import IdempotencyCache
from serving.gateway.http.send_queue import SendQueue
from serving.gateway.operations.service_state import ServiceState, State


def reject(code: RefusalCode = RefusalCode.PARSE, *, retryable: bool = False) -> Reject:
    return Reject(code=code, reason="x", retryable=retryable)


def test_a_send_queue_keeps_the_order() -> None:
    async def scene() -> list[bytes]:
        sent: list[bytes] = []

        async def send(data: bytes) -> None:
            await asyncio.sleep(0)
            sent.append(data)

        queue = SendQueue(send, limit=8, timeout_s=1.0)
        for number in range(5):
            queue.put_bytes(bytes([number]))
        await queue.flush()
        await queue.close()
        return sent

    assert asyncio.run(scene()) == [bytes([n]) for n in range(5)]


@pytest.mark.parametrize("limit", [2, 64])
def test_a_peer_that_does_not_read_is_noticed_by_number_or_by_time(limit: int) -> None:
    async def scene() -> bool:
        async def send(_: bytes) -> None:
            await asyncio.sleep(60)

        queue = SendQueue(send, limit=limit, timeout_s=0.05)
        for _ in range(5):
            queue.put(reject())
        await asyncio.wait_for(queue.overflowed.wait(), 5)
        queue.put(reject())  # nothing more is taken, and nothing fails
        await queue.close()
        return True

    assert asyncio.run(scene())


def test_a_socket_that_breaks_ends_the_send_queue() -> None:
    async def scene() -> bool:
        async def send(_: bytes) -> None:
            raise RuntimeError("Unexpected ASGI message")

        queue = SendQueue(send, limit=4, timeout_s=1.0)
        queue.put(reject())
        await queue.flush()
        await queue.close()
        return queue.overflowed.is_set()

    assert asyncio.run(scene())


class Asked:
    def __init__(self, *replies: Reject) -> None:
        self.replies, self.count = list(replies), 0

    async def __call__(self) -> Chunk | Reject:
        self.count += 1
        await asyncio.sleep(0.01)
        return self.replies.pop(0)


def test_a_key_is_asked_once_also_by_two_at_the_same_time() -> None:
    async def scene() -> None:
        kept, ask = IdempotencyCache(4, 60.0), Asked(reject())
        first, second = await asyncio.gather(kept.answer("k", b"x", ask), kept.answer("k", b"x", ask))
        assert first is second
        assert await kept.answer("k", b"x", ask) is first
        assert await kept.answer("k", b"another body", ask) is None
        assert ask.count == 1

    asyncio.run(scene())


def test_what_may_be_asked_again_is_asked_again() -> None:
    async def scene() -> None:
        kept = IdempotencyCache(4, 60.0)
        ask = Asked(reject(RefusalCode.OVERLOAD, retryable=True), reject())
        assert (await kept.answer("k", b"x", ask)).code is RefusalCode.OVERLOAD  # type: ignore[union-attr]
        await asyncio.sleep(0)
        assert (await kept.answer("k", b"x", ask)).code is RefusalCode.PARSE  # type: ignore[union-attr]

    asyncio.run(scene())


def test_kept_answers_are_bounded_in_number_and_age() -> None:
    async def scene() -> None:
        now = [0.0]
        kept = IdempotencyCache(2, 10.0, clock=lambda: now[0])
        ask = Asked(*(reject() for _ in range(6)))
        for key in ("a", "b", "c"):
            await kept.answer(key, b"x", ask)
        await kept.answer("a", b"x", ask)  # was pushed out
        assert ask.count == 4
        now[0] = 11.0
        await kept.answer("a", b"x", ask)  # was forgotten
        assert ask.count == 5

    asyncio.run(scene())


def test_an_engine_is_replaced_a_few_times_within_ten_minutes() -> None:
    state = ServiceState(max_restarts=2)
    assert state.ready()
    assert state.lost("hangs", 0.0)
    assert state.state is State.RECOVERING
    assert state.lost("hangs", 10.0)
    assert state.lost("hangs", 900.0)  # the first two are long ago
    assert state.lost("hangs", 901.0)
    assert not state.lost("hangs", 902.0)
    assert state.state is State.FAILED
    state.to(State.STOPPED, "the end")
    assert not state.ready()
    assert state.state is State.STOPPED
