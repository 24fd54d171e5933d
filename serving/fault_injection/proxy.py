"""A TCP link that can be slow, narrow, lossy, half-open, corrupting or cut, between any client and any server.

    client <--> proxy --(latency, jitter, bandwidth, stalls, flipped bits)--> server

Bytes keep their order, as TCP's do: a lost segment appears as a stall of `stall_ms`, after which everything behind it
arrives at once. "half-open" drops the bytes of both directions and keeps the sockets: no FIN, no RST. "cut" resets both.
A plan of `LinkAction` changes the link while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from model_core.spec.errors import SpecError
from serving.fault_injection.background_loop import background_loop, cancel_all_tasks, run_on
from serving.fault_injection.fault_log import FaultLog
from serving.fault_injection.link_conditions import Conditions, LinkAction

READ_BYTES = 16 * 1024
QUEUE_SEGMENTS = 64  # what a slow link holds before it stops reading: the sender must feel it
EXIT_KILLED = 137


@dataclass(slots=True, eq=False)
class _Connection:
    number: int
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        for writer in (self.near, self.far):
            with contextlib.suppress(OSError):
                # Zero linger: the peer gets an RST at once instead of a polite FIN.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Listens on loopback or elsewhere and forwards to `upstream` ("host:port"). Not thread-safe: see `running_proxy`."""

    def __init__(
        self,
        upstream: str,
        conditions: Conditions | None = None,
        *,
        seed: int = 0,
        plan: tuple[LinkAction, ...] = (),
        log: FaultLog | None = None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        host, mark, port = upstream.rpartition(":")
        if not mark or not port.isdigit():
            raise SpecError(f"upstream is HOST:PORT, got {upstream!r}")
        self.conditions, self.log = conditions or Conditions(), log or FaultLog()
        self.connections = 0
        self.forwarded_bytes = {"up": 0, "down": 0}
        self._host, self._port, self._seed, self._plan = host, int(port), seed, plan
        self._kill = kill or (lambda: os._exit(EXIT_KILLED))
        self._is_silent, self._refuses = False, False
        self._connections: set[_Connection] = set()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Begin to forward; port 0 takes a free one."""
        server = await asyncio.start_server(self._accept, host, port)
        for planned in self._plan:
            asyncio.get_running_loop().call_later(planned.at_s, self.do, planned.action)
        return server

    def do(self, action: str) -> None:
        """Change the link now: one of `ACTIONS`."""
        self.log.add("fault", fault=action, connections=len(self._connections))
        if action == "kill":
            self._kill()
        elif action == "half-open":
            self._is_silent = True
        elif action == "heal":
            # The bytes that a half-open link dropped are lost: after healing, its old connections would resume in the middle
            # of a message. They are reset, as a NAT without their entries would do.
            if self._is_silent:
                self.reset_all()
            self._is_silent = self._refuses = False
        elif action in {"cut", "refuse"}:
            self._refuses = action == "refuse"
            self.reset_all()

    def change(self, **conditions: float | str) -> None:
        """Other conditions from now on, such as latency_ms=200."""
        self.conditions = replace(self.conditions, **conditions)  # type: ignore[arg-type]
        self.log.add("conditions", **conditions)

    def reset_all(self) -> None:
        """Reset every connection: both ends see an RST."""
        for connection in list(self._connections):
            connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            self.log.add("upstream-lost", reason=str(error))
            writer.transport.abort()
            return
        connection = _Connection(number=self.connections, near=writer, far=far_writer)
        for side in (writer, far_writer):
            side.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(connection)
        loop = asyncio.get_running_loop()
        connection.tasks = [
            loop.create_task(self._forward(connection, reader, far_writer, "up")),
            loop.create_task(self._forward(connection, far_reader, writer, "down")),
        ]
        with contextlib.suppress(asyncio.CancelledError):  # the proxy itself is being stopped
            await asyncio.gather(*connection.tasks, return_exceptions=True)
        self._connections.discard(connection)
        for side in (writer, far_writer):
            side.close()

    async def _forward(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        """Read segments, give each its time of release, hand them over in order."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_SEGMENTS)
        writing = asyncio.get_running_loop().create_task(_release(queue, writer))
        rng = np.random.default_rng([self._seed, connection.number, direction == "up"])
        loop, free_at = asyncio.get_running_loop(), 0.0
        try:
            while data := await reader.read(READ_BYTES):
                if self._is_silent and self.conditions.affects(direction):
                    continue
                self.forwarded_bytes[direction] += len(data)
                wait_s, data = self._treat(data, direction, connection.number, rng)
                # A narrow link passes one segment after the other; a stalled segment delays all that follow it.
                free_at = max(free_at, loop.time()) + self.conditions.transfer_s(len(data), direction)
                release_at = max(free_at, loop.time() + wait_s)
                free_at = max(free_at, release_at - self.conditions.latency_ms / 1e3)
                await queue.put((release_at, data))
            while self._is_silent:  # not even a FIN passes
                await asyncio.sleep(0.05)
            await queue.put((loop.time() + self.conditions.latency_ms / 1e3, b""))
            await writing
        except (ConnectionError, asyncio.CancelledError):
            connection.reset()
        finally:
            writing.cancel()

    def _treat(self, data: bytes, direction: str, number: int, rng: np.random.Generator) -> tuple[float, bytes]:
        now = self.conditions
        jitter, loss, flip = rng.random(3)
        if not now.affects(direction):
            return 0.0, data
        wait_ms = now.latency_ms + jitter * now.jitter_ms
        if loss < now.loss:
            wait_ms += now.stall_ms
            self.log.add("fault", fault="loss", connection=number, direction=direction, bytes=len(data), ms=now.stall_ms)
        if flip < now.flip:
            bit = int(rng.integers(0, 8 * len(data)))
            data = data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]
            self.log.add("fault", fault="flip", connection=number, direction=direction, bit=bit)
        return wait_ms / 1e3, data


async def _release(queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            release_at, data = await queue.get()
            if release_at > loop.time():
                await asyncio.sleep(release_at - loop.time())
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


@dataclass(slots=True)
class RunningProxy:
    """A proxy in a thread; every method may be called from any thread."""

    proxy: FaultProxy
    port: int
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        """Where a client connects to."""
        return f"127.0.0.1:{self.port}"

    def do(self, action: str) -> None:
        """One of `ACTIONS`, done when this returns."""
        run_on(self.loop, _call(lambda: self.proxy.do(action)))

    def change(self, **conditions: float | str) -> None:
        """Other conditions from now on."""
        run_on(self.loop, _call(lambda: self.proxy.change(**conditions)))


async def _call(change: Callable[[], None]) -> None:
    change()


@contextlib.contextmanager
def running_proxy(upstream: str, conditions: Conditions | None = None, **options: object) -> Iterator[RunningProxy]:
    """Forward to `upstream` from a free loopback port, in a thread of this process, silently."""
    options.setdefault("log", FaultLog(silent=True))
    proxy = FaultProxy(upstream, conditions, **options)  # type: ignore[arg-type]  (the names are FaultProxy's)
    with background_loop("fault-proxy") as loop:
        server = run_on(loop, proxy.listen("127.0.0.1", 0))
        try:
            yield RunningProxy(proxy=proxy, port=server.sockets[0].getsockname()[1], loop=loop)
        finally:
            run_on(loop, _stop(proxy, server))


async def _stop(proxy: FaultProxy, server: asyncio.Server) -> None:
    server.close()
    proxy.reset_all()
    await cancel_all_tasks()


async def forward_for_ever(proxy: FaultProxy, host: str, port: int) -> None:
    """Forward until cancelled; the log says at which address."""
    async with await proxy.listen(host, port) as server:
        where = server.sockets[0].getsockname()
        proxy.log.add("listening", address=f"{where[0]}:{where[1]}")
        await asyncio.Event().wait()
