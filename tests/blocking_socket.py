"""A WebSocket for a caller that waits: one event loop in one thread does all reading and writing.

`websockets.sync` reads in a thread of its own while the caller writes. Over TLS both enter one OpenSSL session at the same time,
which OpenSSL forbids and Python does not prevent (cpython issues 137583, 151508): session tickets of TLS 1.3 arrive just as the first
request goes out, and the request is lost (seen with Python 3.11.7: 12 of 1,800 handshakes never answered; 0 of 2,400 with one thread).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect

T = TypeVar("T")

CLOSE_S = 0.3
SLACK_S = 5.0
_CLOSED = "the socket was closed by this side"


class BlockingSocket:
    """Connects when made. Use from one thread at a time.

    open_timeout_s covers TCP, TLS and the WebSocket handshake. Raises TimeoutError, OSError, websockets' InvalidHandshake or InvalidURI.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        open_timeout_s: float,
        max_size: int,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="socket", daemon=True)
        self._thread.start()
        try:
            self._socket = self._wait(lambda: self._open(url, headers, tls, open_timeout_s, max_size), open_timeout_s)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: bytes | str, timeout: float = SLACK_S) -> None:
        """Hand one message to the socket. Raises TimeoutError (what was handed over still goes out, if ever it can) or ConnectionClosed.

        timeout: seconds; a peer that has stopped reading fills the buffer, and then this waits.
        """
        self._wait(lambda: asyncio.wait_for(self._socket.send(message), timeout), timeout)

    def recv(self, timeout: float) -> bytes | str:
        """The next message. timeout: seconds. Raises TimeoutError (no message is lost by it) or websockets' ConnectionClosed."""
        return self._wait(lambda: asyncio.wait_for(self._socket.recv(), timeout), timeout)

    def close(self) -> None:
        """Say goodbye, shortly, and end the thread; safe to call twice."""
        try:
            if self._thread.is_alive():
                with contextlib.suppress(Exception):
                    self._wait(self._goodbye, CLOSE_S)
        finally:
            self._end()

    def _wait(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
        if not self._thread.is_alive():
            raise ConnectionAbortedError(_CLOSED)
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result(timeout + SLACK_S)  # the loop gives up by itself at `timeout`; this is for a loop that hangs
        except concurrent.futures.CancelledError as error:
            raise ConnectionAbortedError(_CLOSED) from error
        finally:
            future.cancel()  # Ctrl-C ends the wait and not the work: nobody would take the message that it receives

    async def _goodbye(self) -> None:
        try:
            await asyncio.wait_for(self._socket.close(), CLOSE_S)
        finally:
            self._socket.transport.abort()  # a peer that has stopped reading takes no goodbye, nor what was sent before it
            await self._socket.wait_closed()

    @staticmethod
    async def _open(
        url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, open_timeout_s: float, max_size: int
    ) -> ClientConnection:
        return await connect(
            url,
            additional_headers=headers,
            ssl=tls,
            open_timeout=open_timeout_s,
            close_timeout=CLOSE_S,
            compression=None,
            max_size=max_size,
            proxy=None,
        )

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SLACK_S)
