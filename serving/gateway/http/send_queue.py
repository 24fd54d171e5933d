"""Messages on their way to one client: in order, bounded in number and time. A client that does not read is disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from model_core.spec.protocol.wire import Message, encode_message

logger = logging.getLogger(__name__)


class SendQueue:
    """Sends messages one after the other. Use on one event loop.

    send: puts bytes on the socket and returns when there is room for more. limit: messages that may wait; with more, or one
    that takes longer than `timeout_s`, the queue is `overflowed` and nothing more is sent.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], *, limit: int, timeout_s: float) -> None:
        self._send, self._timeout_s = send, timeout_s
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(limit)
        self.overflowed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    def put(self, message: Message) -> None:
        """Send after everything that waits."""
        self.put_bytes(encode_message(message))

    def put_bytes(self, data: bytes) -> None:
        """Send bytes after everything that waits."""
        if self.overflowed.is_set():
            return
        try:
            self._waiting.put_nowait(data)
        except asyncio.QueueFull:
            logger.warning("peer.does_not_read waiting=%d", self._waiting.qsize())
            self.overflowed.set()

    async def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until everything is sent, but not for long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._waiting.join(), timeout_s)

    async def close(self) -> None:
        """Stop sending."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            data = await self._waiting.get()
            try:
                if not self.overflowed.is_set():
                    async with asyncio.timeout(self._timeout_s):  # no task of its own, as wait_for would make
                        await self._send(data)
            except Exception as error:  # whatever a closing socket raises means the same: the client has gone
                logger.debug("peer.gone error=%s", type(error).__name__)
                self.overflowed.set()
            finally:
                self._waiting.task_done()
