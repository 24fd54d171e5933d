"""An ASGI application without a socket: one request in, one answer out, thousands a second in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

Headers = Sequence[tuple[bytes, bytes]]
_SCOPE = {
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}


async def call(app: Any, method: str, path: str, body: bytes = b"", headers: Headers = ()) -> tuple[int, bytes]:
    """One HTTP request; (status, body)."""
    scope = {
        **_SCOPE,
        "type": "http",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": list(headers),
    }
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])
    gone = asyncio.Event()
    status, answer = 0, bytearray()

    async def receive() -> dict[str, Any]:
        part = next(parts, None)
        if part is not None:
            return part
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        nonlocal status
        if event["type"] == "http.response.start":
            status = event["status"]
        elif event["type"] == "http.response.body":
            answer.extend(event.get("body", b""))

    await app(scope, receive, send)
    gone.set()
    return status, bytes(answer)


class Socket:
    """One WebSocket conversation with the application. `closed` is its close code once it has hung up."""

    def __init__(self, app: Any, path: str, headers: Headers = (), subprotocols: Sequence[str] = ()) -> None:
        self.closed: int | None = None
        self.accepted = False
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        scope = {
            **_SCOPE,
            "type": "websocket",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "headers": list(headers),
            "subprotocols": list(subprotocols),
        }
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "websocket.accept":
                self.accepted = True
            elif event["type"] == "websocket.send":
                self._outbox.put_nowait(event["bytes"] if event.get("bytes") is not None else event.get("text"))
            elif event["type"] == "websocket.close":
                self.closed = event.get("code", 1000)
                self._outbox.put_nowait(None)
            await asyncio.sleep(0)

        try:
            await app(scope, self._inbox.get, send)
        finally:
            self.closed = self.closed or 1000
            self._outbox.put_nowait(None)

    def send(self, data: bytes | str) -> None:
        """A binary frame, or a text frame."""
        self._inbox.put_nowait({"type": "websocket.receive", ("text" if isinstance(data, str) else "bytes"): data})

    async def receive(self, timeout_s: float = 10.0) -> bytes | str | None:
        """What comes next; None when the application has hung up."""
        return await asyncio.wait_for(self._outbox.get(), timeout_s)

    async def close(self) -> None:
        """Hang up and wait until the application has noticed. What it raised comes out here."""
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self._task, 10)
