"""The packed policy service as a process of its own: start it, wait until it is ready, stop all of it.

The only file that runs `bentoml serve`. The process is bound to loopback, gets its own process group, and is ended by
the kernel when we die. What it prints goes to a log file, whose last lines travel in the error when it fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.processes import LOOPBACK, free_port, last_lines, stop_group
from components.config.records import Progress, Silent
from model_core.spec.errors import JobError


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
    bento: Path, *, home: Path, log: Path, port: int = 0, ready_timeout_s: float = 180.0, progress: Progress | None = None
) -> Iterator[ServiceAddress]:
    """Serve the built bento in folder `bento` until the block ends.

    home: where BentoML keeps its own files. port 0: a free one. Raises JobError, with the end of the log, when the
    service dies, fails its golden probes, or is not ready in time.
    """
    address = ServiceAddress(host=LOOPBACK, port=port or free_port(), instance=uuid.uuid4().hex)
    home.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            service_command(bento, home=home, address=address),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            cwd=home,
        )
        try:
            _await_ready(process, address, log, ready_timeout_s, progress or Silent())
            yield address
        finally:
            stop_group(process)


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


def tied_to_us(command: Sequence[str]) -> list[str]:
    """`command`, started through a line that ends it when this process dies."""
    return [sys.executable, "-m", "serving.lifeline", str(os.getpid()), *command]


def fetch_status(address: ServiceAddress, timeout_s: float = 2.0) -> Mapping[str, Any] | None:
    """What /v1/status answers, or None while there is no answer."""
    try:
        with urllib.request.urlopen(f"{address.http}/v1/status", timeout=timeout_s) as answer:
            return json.loads(answer.read())
    except (OSError, ValueError):
        return None


def _await_ready(process: subprocess.Popen[bytes], address: ServiceAddress, log: Path, timeout_s: float, progress: Progress) -> None:
    began = time.monotonic()
    status: Mapping[str, Any] | None = None
    while time.monotonic() - began < timeout_s:
        if process.poll() is not None:
            raise JobError(
                f"the policy service ended with code {process.returncode} before it was ready; the end of {log}:\n{last_lines(log)}"
            )
        status = fetch_status(address)
        if status is not None and status.get("instance") != address.instance:
            raise JobError(f"port {address.port} is taken: another process answers there; give the policy service another port")
        if status is not None and status["state"] == "ready" and _answers_ready(address):
            return
        if status is not None and status["state"] == "failed":
            raise JobError(f"the policy service will not become ready: {status['reason']}; the end of {log}:\n{last_lines(log)}")
        progress.update(0, 1, f"waiting for the policy service ({'starting' if status is None else status['state']})")
        time.sleep(0.25)
    seen = "no answer" if status is None else f"it answers {status['state']}: {status['reason']}"
    raise JobError(f"the policy service was not ready within {timeout_s:.0f} s ({seen}); the end of {log}:\n{last_lines(log)}")


def _answers_ready(address: ServiceAddress) -> bool:
    try:
        with urllib.request.urlopen(f"{address.http}/readyz", timeout=2.0) as answer:
            return answer.status == 200
    except OSError:
        return False
