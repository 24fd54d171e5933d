"""A policy service that misbehaves by script. It speaks the native protocol with every client; it has no model.

    serve_for_ever(FaultServer(script), ...)   until the process ends
    with running_server(script) as server:     in a thread, for tests; server.url, server.log

Correct answers hardly move the robot (`contents.stationary_actions`); tests may give their own `answer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import WireError
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES, Control, Hello, Message, Observe, Ready, decode_message, encode_message
from serving.fault_injection.background_loop import background_loop, cancel_all_tasks, run_on
from serving.fault_injection.fault_log import FaultLog
from serving.fault_injection.responder import ActionSource, Responder
from serving.fault_injection.script import PlannedFaults, Script

EXIT_KILLED = 137


class FaultServer:
    """Serves `script`. contract: None fits the contract to the body of each HELLO.

    answer: (observe, contract) -> actions (K, A). kill: what "kill" does; by default the process ends at once.
    """

    def __init__(
        self,
        script: Script,
        *,
        contract: PolicyContract | None = None,
        answer: ActionSource | None = None,
        model_version: str = "faults/1",
        log: FaultLog | None = None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        self.script, self.log = script, log or FaultLog()
        self.requests = self.connections = 0
        self._contract, self._model_version, self._answer = contract, model_version, answer
        self._kill = kill or (lambda: os._exit(EXIT_KILLED))
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> Server:
        """Begin to serve; port 0 takes a free one."""
        return await serve(
            self._serve,
            host,
            port,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            process_request=self._before_handshake,
            close_timeout=0.5,
            open_timeout=None,
        )

    async def _before_handshake(self, _: ServerConnection, request: Request) -> Response | None:
        if request.path in {"/livez", "/readyz"}:
            return Response(HTTPStatus.OK.value, "OK", _headers(), b"ok\n")
        self.connections += 1
        rule = self.script.for_connection(self.connections)
        if rule is not None and rule.fault == "mute":
            self.log.add("fault", fault="mute", connection=self.connections)
            await asyncio.Event().wait()
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        number = self.connections
        responder = Responder(self.script, number, contract=self._contract, answer=self._answer, model_version=self._model_version)
        with contextlib.suppress(ConnectionClosed):
            if not await self._greet(socket, responder, number):
                return
            async for data in socket:
                message = self._read(data)
                if isinstance(message, Observe):
                    self.requests += 1
                    task = asyncio.get_running_loop().create_task(self._reply(socket, responder, message, number, self.requests))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif isinstance(message, Control) and (reply := responder.control(message)) is not None:
                    await socket.send(encode_message(reply))

    def _read(self, data: bytes | str) -> Message | None:
        try:
            return decode_message(data) if isinstance(data, bytes) else None
        except WireError as error:
            self.log.add("unreadable", reason=str(error)[:200])
            return None

    async def _greet(self, socket: ServerConnection, responder: Responder, number: int) -> bool:
        name = "" if responder.rule is None else responder.rule.fault
        if name:
            self.log.add("fault", fault=name, connection=number)
        if name == "handshake-only":
            await socket.wait_closed()
            return False
        hello = self._read(await socket.recv())
        if name == "hang-up" or not isinstance(hello, Hello):
            socket.transport.abort()
            return False
        answer = responder.greet(hello)
        await socket.send(encode_message(answer))
        return isinstance(answer, Ready)

    async def _reply(self, socket: ServerConnection, responder: Responder, observe: Observe, connection: int, number: int) -> None:
        planned = self.script.for_request(number)
        for rule in planned.rules:
            self.log.add("fault", fault=rule.fault, request=number, connection=connection, seq=observe.seq)
        self._kill_or_freeze(planned)
        if planned.delay_ms > 0:
            await asyncio.sleep(planned.delay_ms / 1e3)
        if "close" in planned.names:
            socket.transport.abort()
            return
        with contextlib.suppress(ConnectionClosed):
            for frame in responder.answers(observe, number, planned):
                await socket.send(frame)

    def _kill_or_freeze(self, planned: PlannedFaults) -> None:
        for rule in planned.rules:
            if rule.fault == "kill":
                self._kill()
            if rule.fault == "freeze":
                time.sleep(rule.ms / 1e3)  # on the event loop, on purpose: no message is answered, not even a ping


def _headers() -> Headers:
    return Headers([("Content-Type", "text/plain"), ("Content-Length", "3")])


@dataclass(slots=True)
class RunningServer:
    """A server in a thread."""

    server: FaultServer
    port: int

    @property
    def url(self) -> str:
        """For a native client."""
        return f"ws://127.0.0.1:{self.port}/v1/session"

    @property
    def log(self) -> FaultLog:
        """The faults that it injected."""
        return self.server.log


@contextlib.contextmanager
def running_server(script: Script, *, port: int = 0, **options: object) -> Iterator[RunningServer]:
    """Serve `script` on loopback in a thread of this process, silently; everything is gone at the end.

    Raises OSError if the port is in use.
    """
    options.setdefault("log", FaultLog(silent=True))
    server = FaultServer(script, **options)  # type: ignore[arg-type]  (the names are FaultServer's)
    with background_loop("fault-server") as loop:
        listening = run_on(loop, server.listen("127.0.0.1", port))
        try:
            yield RunningServer(server=server, port=listening.sockets[0].getsockname()[1])
        finally:
            run_on(loop, _abort(listening))


async def _abort(listening: Server) -> None:
    """Stop as a killed process would: without closing handshakes."""
    for connection in listening.connections:
        connection.transport.abort()
    listening.close(close_connections=False)
    await asyncio.sleep(0.01)
    await cancel_all_tasks()


async def serve_for_ever(server: FaultServer, host: str, port: int) -> None:
    """Serve until cancelled; the log says at which address."""
    async with await server.listen(host, port) as listening:
        where = listening.sockets[0].getsockname()
        server.log.add("listening", url=f"ws://{where[0]}:{where[1]}/v1/session")
        await asyncio.Event().wait()
