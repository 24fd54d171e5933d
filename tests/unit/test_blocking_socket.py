"""The socket of a caller that waits: what was given up takes nothing with it, what was closed says so."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.blocking_socket import CLOSE_S, SLACK_S, BlockingSocket


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def sleep(socket: ServerConnection) -> None:
    """Read no message."""
    await socket.wait_closed()


@contextlib.contextmanager
def served(handler: Callable[[ServerConnection], Awaitable[None]]) -> Iterator[str]:
    found: concurrent.futures.Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = concurrent.futures.Future()

    async def run() -> None:
        async with serve(handler, "127.0.0.1", 0, max_size=None, max_queue=1, close_timeout=0.1) as server:
            ended = asyncio.Event()
            found.set_result((next(iter(server.sockets)).getsockname()[1], asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    port, loop, ended = found.result(10.0)
    try:
        yield f"ws://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10.0)


@pytest.fixture
def url() -> Iterator[str]:
    """A service that gives every message back."""
    with served(echo) as found:
        yield found


def opened(url: str) -> BlockingSocket:
    return BlockingSocket(url, headers={}, tls=None, open_timeout_s=10.0, max_size=2**20)


def test_an_interrupted_wait_takes_no_message_with_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with opened(url) as socket:
        with monkeypatch.context() as patched:
            patched.setattr(concurrent.futures.Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                socket.recv(30.0)
        socket.send(b"for the next one who asks")
        assert socket.recv(10.0) == b"for the next one who asks"


def test_a_closed_socket_says_so(url: str) -> None:
    socket = opened(url)
    socket.close()
    socket.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for use in (lambda: socket.send(b"x"), lambda: socket.recv(0.1)):
            with pytest.raises(ConnectionAbortedError):
                use()


def test_a_peer_that_has_stopped_reading_holds_up_no_goodbye() -> None:
    with served(sleep) as url:
        socket = opened(url)
        with contextlib.suppress(TimeoutError):
            while True:
                socket.send(bytes(2**22), 0.2)
        began = time.monotonic()
        socket.close()
        assert time.monotonic() - began < CLOSE_S + SLACK_S / 2
