"""An event loop in a thread of this process, for servers that tests and benchmarks run beside their own code."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_WAIT_S = 10.0


@contextlib.contextmanager
def background_loop(name: str) -> Iterator[asyncio.AbstractEventLoop]:
    """A running loop; it is stopped and closed at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=name, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_WAIT_S)
        loop.close()


def run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on `loop` from another thread."""
    return asyncio.run_coroutine_threadsafe(work, loop).result(_WAIT_S)


async def cancel_all_tasks() -> None:
    """Cancel every other task of this loop, and let them end."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.01)
