"""Reading the body of a bounded HTTP request, and giving up work whose client has disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from model_core.spec.errors import WireError

T = TypeVar("T")


class BodyTooLarge(WireError):  # noqa: N818
    """More bytes than the endpoint reads."""


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body. Raises `BodyTooLarge` as soon as it has more than `most_bytes`."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most_bytes:
            raise BodyTooLarge(f"a body has at most {most_bytes} bytes")
    return bytes(data)


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; if the client disconnects first, `work` is cancelled and ClientDisconnect raised. Read the body before."""
    answering = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
