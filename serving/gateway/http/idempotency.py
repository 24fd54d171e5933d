"""Answers kept by idempotency key: the same request sent twice is answered once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model_core.spec.protocol.wire import Chunk, Reject


@dataclass(slots=True)
class _Entry:
    digest: bytes
    answer: asyncio.Future[Chunk | Reject]
    at: float


class IdempotencyCache:
    """The last answers, by key. Bounded in number and age; lives on one event loop. clock: monotonic seconds."""

    def __init__(self, limit: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._ttl_s, self._clock = limit, ttl_s, clock
        self._kept: OrderedDict[str, _Entry] = OrderedDict()

    async def answer(self, key: str, body: bytes, ask: Callable[[], Awaitable[Chunk | Reject]]) -> Chunk | Reject | None:
        """The result of `ask`, called at most once per key; None when the key came before with another body.

        A refusal that may be asked again is not kept, so that asking again can succeed.
        """
        self._forget()
        digest = hashlib.sha256(body).digest()
        kept = self._kept.get(key)
        if kept is not None and kept.digest != digest:
            return None
        if kept is None:
            kept = _Entry(digest, asyncio.ensure_future(ask()), self._clock())
            self._kept[key] = kept
            kept.answer.add_done_callback(lambda answer: self._settle(key, answer))
        return await asyncio.shield(kept.answer)  # a caller that disconnects does not cancel the answer of another

    def _settle(self, key: str, answer: asyncio.Future[Chunk | Reject]) -> None:
        failed = answer.cancelled() or answer.exception() is not None
        if failed or (isinstance(reply := answer.result(), Reject) and reply.retryable):
            self._kept.pop(key, None)

    def _forget(self) -> None:
        before = self._clock() - self._ttl_s
        while self._kept and (len(self._kept) >= self._limit or next(iter(self._kept.values())).at < before):
            self._kept.popitem(last=False)
