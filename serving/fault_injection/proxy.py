"""A TCP link that can be slow, narrow, lossy, half-open, dirty or cut, between any client and any server.

    client <--> proxy --(latency, jitter, bandwidth, stalls, flipped bits)--> server

Bytes keep their order, as TCP's do: a lost segment shows as a stall of `stall_ms`, after which everything behind it
comes at once. HALF_OPEN swallows both directions and keeps the sockets: no FIN, no RST, nothing. CUT resets both.
A plan changes the conditions while it runs: `[{"at_s": 5, "do": "half-open"}, {"at_s": 9, "do": "heal"}]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from model_core.spec.errors import SpecError
from serving.fault_injection.journal import Journal

READ_BYTES = 16 * 1024
QUEUE_SEGMENTS = 64  # what a slow link holds before it stops reading: the sender must feel it
DEEDS = ("half-open", "heal", "cut", "refuse", "kill")
EXIT_KILLED = 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the link is now. rate_kbps: 0 is unlimited. loss: chance that a segment (16 KiB) stalls for stall_ms.

    flip: chance that a segment has one bit flipped. direction: "both", "up" (to the server) or "down" is affected.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_kbps: float = 0.0
    loss: float = 0.0
    stall_ms: float = 200.0
    flip: float = 0.0
    direction: str = "both"

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("latency_ms", "jitter_ms", "rate_kbps", "stall_ms")}
        wrong = next((name for name, value in numbers.items() if not 0 <= value < 1e9), None)
        if wrong:
            raise SpecError(f"{wrong} must be 0..1e9, got {numbers[wrong]}")
        for name in ("loss", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name} is a chance, 0..1, got {getattr(self, name)}")
        if self.direction not in {"both", "up", "down"}:
            raise SpecError(f"direction is both, up or down, got {self.direction!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that the proxy does `at_s` seconds after it began."""

    at_s: float
    do: str

    def __post_init__(self) -> None:
        if self.do not in DEEDS or not 0 <= self.at_s < 1e9:
            raise SpecError(f"a deed is one of {', '.join(DEEDS)} at 0 or more seconds, got {self.do!r} at {self.at_s}")


@dataclass(slots=True, eq=False)
class _Pair:
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
        plan: tuple[Deed, ...] = (),
        journal: Journal | None = None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        host, mark, port = upstream.rpartition(":")
        if not mark or not port.isdigit():
            raise SpecError(f"upstream is HOST:PORT, got {upstream!r}")
        self.conditions, self.journal = conditions or Conditions(), journal or Journal()
        self.connections = 0
        self.forwarded_bytes = {"up": 0, "down": 0}
        self._host, self._port, self._seed, self._plan = host, int(port), seed, plan
        self._kill = kill or (lambda: os._exit(EXIT_KILLED))
        self._is_silent, self._refuses = False, False
        self._pairs: set[_Pair] = set()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Begin to forward; port 0 takes a free one."""
        server = await asyncio.start_server(self._accept, host, port)
        for deed in self._plan:
            asyncio.get_running_loop().call_later(deed.at_s, self.do, deed.do)
        return server

    def do(self, deed: str) -> None:
        """Change the link now: one of `DEEDS`."""
        self.journal.add("fault", fault=deed, connections=len(self._pairs))
        if deed == "kill":
            self._kill()
        elif deed == "half-open":
            self._is_silent = True
        elif deed == "heal":
            # What a half-open link swallowed is gone: after healing, its old connections would resume in the middle
            # of a message. They are reset, as a NAT that has forgotten them would.
            if self._is_silent:
                self._reset_all()
            self._is_silent = self._refuses = False
        elif deed in {"cut", "refuse"}:
            self._refuses = deed == "refuse"
            self._reset_all()

    def change(self, **conditions: float | str) -> None:
        """Other numbers from now on, such as latency_ms=200."""
        self.conditions = replace(self.conditions, **conditions)  # type: ignore[arg-type]
        self.journal.add("conditions", **conditions)

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            self.journal.add("upstream-lost", reason=str(error))
            writer.transport.abort()
            return
        pair = _Pair(number=self.connections, near=writer, far=far_writer)
        for side in (writer, far_writer):
            side.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.add(pair)
        loop = asyncio.get_running_loop()
        pair.tasks = [
            loop.create_task(self._forward(pair, reader, far_writer, "up")),
            loop.create_task(self._forward(pair, far_reader, writer, "down")),
        ]
        with contextlib.suppress(asyncio.CancelledError):  # the proxy itself is being shut
            await asyncio.gather(*pair.tasks, return_exceptions=True)
        self._pairs.discard(pair)
        for side in (writer, far_writer):
            side.close()

    async def _forward(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        """Read segments, give each its time of release, hand them over in order."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_SEGMENTS)
        writing = asyncio.get_running_loop().create_task(_release(queue, writer))
        rng = np.random.default_rng([self._seed, pair.number, direction == "up"])
        loop, free_at = asyncio.get_running_loop(), 0.0
        try:
            while data := await reader.read(READ_BYTES):
                if self._is_silent and self.conditions.direction in {"both", direction}:
                    continue
                self.forwarded_bytes[direction] += len(data)
                wait_s, data = self._treat(data, direction, pair.number, rng)
                # A narrow link passes one segment after the other; a stalled one holds up all that come behind it.
                free_at = max(free_at, loop.time()) + self._passing_s(len(data), direction)
                release_at = max(free_at, loop.time() + wait_s)
                free_at = max(free_at, release_at - self.conditions.latency_ms / 1e3)
                await queue.put((release_at, data))
            while self._is_silent:  # not even a FIN passes
                await asyncio.sleep(0.05)
            await queue.put((loop.time() + self.conditions.latency_ms / 1e3, b""))
            await writing
        except (ConnectionError, asyncio.CancelledError):
            pair.reset()
        finally:
            writing.cancel()

    def _passing_s(self, count: int, direction: str) -> float:
        now = self.conditions
        return 0.0 if now.rate_kbps <= 0 or now.direction not in {"both", direction} else 8e-3 * count / now.rate_kbps

    def _treat(self, data: bytes, direction: str, number: int, rng: np.random.Generator) -> tuple[float, bytes]:
        now = self.conditions
        jitter, lost, dirty = rng.random(3)
        if now.direction not in {"both", direction}:
            return 0.0, data
        wait_ms = now.latency_ms + jitter * now.jitter_ms
        if lost < now.loss:
            wait_ms += now.stall_ms
            self.journal.add("fault", fault="loss", connection=number, direction=direction, bytes=len(data), ms=now.stall_ms)
        if dirty < now.flip:
            bit = int(rng.integers(0, 8 * len(data)))
            data = data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]
            self.journal.add("fault", fault="flip", connection=number, direction=direction, bit=bit)
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

    def do(self, deed: str) -> None:
        """One of `DEEDS`, done when this returns."""
        asyncio.run_coroutine_threadsafe(_call(lambda: self.proxy.do(deed)), self.loop).result(10)

    def change(self, **conditions: float | str) -> None:
        """Other numbers from now on."""
        asyncio.run_coroutine_threadsafe(_call(lambda: self.proxy.change(**conditions)), self.loop).result(10)


async def _call(deed: Callable[[], None]) -> None:
    deed()


@contextlib.contextmanager
def running_proxy(upstream: str, conditions: Conditions | None = None, **options: object) -> Iterator[RunningProxy]:
    """Forward to `upstream` from a free loopback port, in a thread of this process, silently."""
    options.setdefault("journal", Journal(silent=True))
    proxy = FaultProxy(upstream, conditions, **options)  # type: ignore[arg-type]  (the names are FaultProxy's)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fault-proxy", daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(proxy.listen("127.0.0.1", 0), loop).result(10)
    try:
        yield RunningProxy(proxy=proxy, port=server.sockets[0].getsockname()[1], loop=loop)
    finally:
        asyncio.run_coroutine_threadsafe(_shut(proxy, server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _shut(proxy: FaultProxy, server: asyncio.Server) -> None:
    server.close()
    proxy._reset_all()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.01)


async def forward_for_ever(proxy: FaultProxy, host: str, port: int) -> None:
    """Forward until cancelled; says where on the journal."""
    async with await proxy.listen(host, port) as server:
        where = server.sockets[0].getsockname()
        proxy.journal.add("listening", address=f"{where[0]}:{where[1]}")
        await asyncio.Event().wait()
