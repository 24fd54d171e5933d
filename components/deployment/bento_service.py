"""The packed policy service as a process of its own: start it, wait until it is ready, stop all of it.

The only file that runs `bentoml serve`. The process is bound to loopback.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.adapters.http import answers
from components.adapters.processes import LOOPBACK, free_port
from components.config.records import Progress, Silent
from components.deployment.service_process import ServiceProcess, State, fetch_state, running, tied_to_us


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """Where a running service listens. instance: what it repeats in its status, "" when that does not matter."""

    host: str
    port: int
    instance: str = ""

    @property
    def http(self) -> str:
        """For people, probes and metrics."""
        return f"http://{self.host}:{self.port}"

    @property
    def session(self) -> str:
        """For workcells."""
        return f"ws://{self.host}:{self.port}/v1/session"


@contextlib.contextmanager
def running_service(
    bento: Path,
    *,
    home: Path,
    log: Path,
    port: int = 0,
    progress: Progress | None = None,
    tell_end: Callable[[str], object] | None = None,
) -> Iterator[ServiceAddress]:
    """Serve the built bento in folder `bento` until the block ends.

    home: where BentoML keeps its own files. port 0: a free one. tell_end: hears of an end by itself. Raises
    JobError, with the end of the log, when the service dies, fails its golden probes, or is not ready in time.
    """
    address = ServiceAddress(host=LOOPBACK, port=port or free_port(), instance=uuid.uuid4().hex)
    home.mkdir(parents=True, exist_ok=True)
    service = ServiceProcess(
        name="the policy service",
        command=service_command(bento, home=home, address=address),
        state=lambda: _state(address),
        instance=address.instance,
        port=address.port,
        log=log,
        cwd=home,
    )
    with running(service, progress or Silent(), tell_end):
        yield address


def service_command(bento: Path, *, home: Path, address: ServiceAddress, tokens: Path | None = None) -> list[str]:
    """The command line of a service that does not outlive this process.

    tokens: a table of token digests. Without one, loopback needs none, whatever this process's environment names.
    """
    settings = {} if tokens is None else {"ACTWRIGHT_TOKENS_FILE": str(tokens.resolve())}
    settings |= {
        "BENTOML_HOME": str(home.resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",  # a line a message would bury what matters
        "ACTWRIGHT_INSTANCE": address.instance,
        "OMP_NUM_THREADS": "1",
    }
    serve = [sys.executable, "-m", "bentoml", "serve", str(bento.resolve()), "--host", address.host, "--port", str(address.port)]
    unset = ["-u", "ACTWRIGHT_TOKENS", "-u", "ACTWRIGHT_TOKENS_FILE"]
    return ["env", *unset, *(f"{k}={v}" for k, v in settings.items()), *tied_to_us(serve)]


def fetch_status(address: ServiceAddress, timeout_s: float = 2.0) -> State | None:
    """What /v1/status answers, or None while there is no answer."""
    return fetch_state(f"{address.http}/v1/status", timeout_s=timeout_s)


def _state(address: ServiceAddress) -> State | None:
    """The service's status; ready only when BentoML's own /readyz agrees."""
    status = fetch_status(address)
    if status is not None and status["state"] == "ready" and not answers(f"{address.http}/readyz", timeout_s=2.0):
        return {**status, "state": "starting"}
    return status
