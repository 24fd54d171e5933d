"""A reply that is made once on the event loop: when the answer is there, or when its deadline has come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from model_core.spec.protocol.wire import Chunk, Reject


class PendingReply:
    """`reply` gets the result of `make` at the first call of `settle`. Then `make` is dropped, because it keeps images alive."""

    __slots__ = ("_loop", "_make", "_timer", "reply")

    def __init__(self, make: Callable[[], Chunk | Reject]) -> None:
        self._loop = asyncio.get_running_loop()
        self._make: Callable[[], Chunk | Reject] | None = make
        self._timer: asyncio.TimerHandle | None = None
        self.reply: asyncio.Future[Chunk | Reject] = self._loop.create_future()

    def settle_within(self, seconds: float) -> None:
        """Settle after `seconds` at the latest."""
        self._timer = self._loop.call_later(seconds, self.settle)

    def settle_soon(self, _: object) -> None:
        """Settle on the loop. Thread-safe."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so have all its callers
            self._loop.call_soon_threadsafe(self.settle)

    def settle(self) -> None:
        """Make the reply, unless that has been done. An exception goes to whoever awaits the reply."""
        make, self._make = self._make, None
        if make is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self.reply.done():  # given up by its only caller
            return
        try:
            self.reply.set_result(make())
        except Exception as error:
            self.reply.set_exception(error)
