"""`LinkCore` on a real socket: one thread that connects, writes, reads and lets time pass. The control loop never waits for it.

Images are packed on this thread, outside the lock: `ask` and `poll` return at once, whatever the network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, WebSocketException

from model_core.spec.errors import ActwrightError, WireError
from model_core.spec.protocol.trust import distrust
from model_core.spec.protocol.wire import Observe, encode_message
from model_core.spec.types import RefusalCode
from serving.workcell.link.connection_state import LinkCore
from serving.workcell.link.credentials import Credentials, Destination, reason_of
from serving.workcell.link.interface import Link
from serving.workcell.link.link_types import LinkEvent, LinkSettings, ObserveRequest, ending_of, read_frame

logger = logging.getLogger(__name__)

TICK_S = 0.01


class AsyncLink(Link):
    """A `Link` over a WebSocket. url: "ws://host:port/v1/session" or "wss://...".

    Start it with `start`; it dials by itself, again and again, until `close`.
    """

    def __init__(
        self,
        url: str,
        settings: LinkSettings,
        *,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(LinkCore(settings))
        self._clock = clock
        self._to = Destination.of(url, credentials or Credentials())
        self._lock = threading.Condition()  # notified when the link's own thread may have heard something
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="link", daemon=True)

    def start(self) -> None:
        """Begin to dial."""
        self._thread.start()

    def close(self) -> None:
        """Cut the connection and end the thread, within a second."""
        self._closing.set()
        self._nudge()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def ask(self, question: ObserveRequest) -> int:
        """Ask; the request's number, or 0 while the link is down."""
        with self._lock:
            seq = self.core.ask(question, self._clock())
        self._nudge()
        return seq

    def give_up(self, seq: int) -> None:
        """Not wanted any more: CANCEL goes out."""
        with self._lock:
            self.core.give_up(seq)
        self._nudge()

    def poll(self) -> list[LinkEvent]:
        """What happened since the last call; deadlines are looked at here too, so they are as exact as the control loop."""
        with self._lock:
            self.core.tick(self._clock())
            return self.core.poll()

    def put_back(self, events: list[LinkEvent]) -> None:
        """The next `poll` gives these first."""
        with self._lock:
            self.core.put_back(events)

    def wait(self, timeout_s: float) -> None:
        """Return when `poll` has something to tell, or after `timeout_s`: for a simulated world, which stands still meanwhile."""
        with self._lock:
            self._lock.wait_for(lambda: self.core.has_news, timeout_s)

    def pin(self, model_version: str, contract_id: str) -> None:
        """Only this model from now on."""
        with self._lock:
            self.core.pin(model_version, contract_id)

    def end_episode(self, episode_id: str, stop_reason: str, *, success: bool) -> None:
        """Tell the service; any model will do again."""
        with self._lock:
            self.core.end_episode(episode_id, stop_reason, success=success)
        self._nudge()

    def renew(self, reason: str) -> None:
        """A new session and epoch."""
        with self._lock:
            self.core.renew(self._clock(), reason)
        self._nudge()

    @property
    def url(self) -> str:
        """Where it goes."""
        return self._to.url

    def move(self, url: str) -> None:
        """Go to another service from now on; between episodes only."""
        self._to = Destination.of(url, self._to.credentials)
        self.renew(f"the service is now at {url}")

    def _nudge(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        with self._lock:
            yield
            if self.core.has_news:
                self._lock.notify_all()

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        while not self._closing.is_set():
            with self._told():
                may_dial = self.core.may_dial(self._clock())
                if may_dial:
                    self.core.dialling(self._clock())
            if may_dial:
                reason = await self._converse()
                with self._told():
                    self.core.closed(self._clock(), reason)
                logger.info("link.down url=%s reason=%s", self._to.url, reason)
            else:
                await self._pause()

    async def _pause(self) -> None:
        assert self._wake is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), TICK_S)
        self._wake.clear()

    async def _converse(self) -> str:
        """One connection from the dial to its end; returns why it ended."""
        to = self._to
        try:
            socket = await self._dialled(asyncio.ensure_future(to.dial().__aenter__()))
        except InvalidStatus as error:
            return self._turned_away(error)
        except ssl.SSLCertVerificationError as error:
            reason = distrust(error)
            with self._told():
                self.core.refused_at_door(self._clock(), RefusalCode.AUTH, reason)
            return reason
        except (OSError, TimeoutError, WebSocketException, ActwrightError) as error:
            return f"no policy service at {to.url}: {reason_of(error, to.url)}"
        if socket is None:
            return "given up while dialling"
        with self._told():
            self.core.opened(self._clock())
        jobs = [asyncio.ensure_future(job) for job in (self._write(socket), self._read(socket), self._watch())]
        done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        if self._closing.is_set():
            await self._write_last(socket)
        socket.transport.abort()  # no closing handshake: a peer that was given up must not delay it
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        return "; ".join(sorted({ending_of(job) for job in done}))

    async def _dialled(self, dial: asyncio.Future[ClientConnection]) -> ClientConnection | None:
        while not dial.done():
            with self._told():
                self.core.tick(self._clock())
                is_wanted = not self.core.wants_cut
            if not is_wanted or self._closing.is_set():
                dial.cancel()
                await asyncio.wait([dial])
                return None
            await asyncio.wait([dial], timeout=TICK_S)
        return dial.result()

    def _turned_away(self, error: InvalidStatus) -> str:
        status = error.response.status_code
        reason = f"the service answered HTTP {status} at {self._to.url}"
        if status in (401, 403):
            with self._told():
                self.core.refused_at_door(self._clock(), RefusalCode.AUTH, f"{reason}: no token, a wrong one, or one that expired")
        return reason

    async def _write(self, socket: ClientConnection) -> str:
        while not self._closing.is_set():
            with self._told():
                message = self.core.outgoing(self._clock())
            if message is None:
                await self._pause()
                continue
            try:
                data = encode_message(message)
            except WireError as error:  # what a person drew or wrote may be more than a message takes
                if not isinstance(message, Observe):
                    raise
                with self._told():
                    self.core.unsendable(message.seq, str(error), self._clock())
                continue
            await socket.send(data)
        return "closed by this cell"

    async def _write_last(self, socket: ClientConnection) -> None:
        with contextlib.suppress(Exception):
            for _ in range(4):  # an END that was queued just now
                with self._told():
                    message = self.core.outgoing(self._clock())
                if message is None:
                    break
                await asyncio.wait_for(socket.send(encode_message(message)), 0.2)

    async def _read(self, socket: ClientConnection) -> str:
        async for data in socket:
            frame = read_frame(data)  # outside of the lock: `ask` and `poll` wait for nothing
            with self._told():
                self.core.take(frame, self._clock())
        return f"closed by the service ({socket.close_code})"

    async def _watch(self) -> str:
        while not self._closing.is_set():  # a peer that stops reading holds up the writer, not this
            with self._told():
                self.core.tick(self._clock())
                if self.core.wants_cut:
                    return "cut by this cell"
            await asyncio.sleep(TICK_S)
        return "closed by this cell"
