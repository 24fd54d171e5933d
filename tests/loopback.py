"""A real gateway over a real socket, in this process: uvicorn in a thread, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import uvicorn

from serving.gateway.app import create_app
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.sessions.gateway import Gateway, GatewayLimits, LoadedModel
from tests.fakes import EchoPolicy


@contextlib.contextmanager
def serve(gateway: Gateway) -> Iterator[str]:
    """Serve `gateway`; gives "127.0.0.1:port"."""
    with serve_app(uvicorn.Config(create_app(gateway), host="127.0.0.1", port=0, log_level="critical", **SOCKET_OPTIONS)) as address:
        yield address


@contextlib.contextmanager
def serve_app(config: uvicorn.Config) -> Iterator[str]:
    """Serve an application on a free port; gives "127.0.0.1:port"."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)


def echo_gateway(policy: EchoPolicy, limits: GatewayLimits | None = None) -> Gateway:
    """A gateway over the fake policy. It measures nothing before it is ready, so that the policy's calls are the test's."""
    model = LoadedModel(policy=policy, contract=policy.contract, model_version=policy.model_version)
    return Gateway(lambda: model, replace(limits or GatewayLimits(), warm_up_s=0.0))


def wait_until(claim: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for something that happens in another thread."""
    give_up_at = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.005)
