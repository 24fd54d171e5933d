"""Options for uvicorn's sockets, whether this package or BentoML starts it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES

# The protocol class is named and not imported, so that reading these options does not import uvicorn.
# No per-message compression: it delays images and does not make them smaller. A dead connection is noticed within 15 s.
SOCKET_OPTIONS: Mapping[str, Any] = {
    "ws": "serving.gateway.http.large_frames:LargeFrames",
    "ws_max_size": MAX_MESSAGE_BYTES + 1024,
    "ws_per_message_deflate": False,
    "ws_ping_interval": 5.0,
    "ws_ping_timeout": 10.0,
}


def use_everywhere() -> None:
    """Make these options uvicorn's defaults in this process: BentoML makes its own `uvicorn.Config` and passes none of them."""
    import uvicorn

    made = uvicorn.Config.__init__
    if hasattr(made, "__wrapped__"):
        return

    @functools.wraps(made)
    def init(self: uvicorn.Config, *args: Any, **options: Any) -> None:
        made(self, *args, **{**SOCKET_OPTIONS, **options})

    uvicorn.Config.__init__ = init
