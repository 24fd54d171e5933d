"""The gateway as a process of its own: one bundle served over HTTP(S) and WebSocket until the block ends.

The same application as inside a Bento (`python -m serving.gateway`), so that it can have TLS, tokens and another address than
loopback without BentoML's own processes around it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.adapters.processes import free_port, last_lines, stop_group
from components.config.records import Progress, Silent
from components.deployment.bento_service import tied_to_us
from model_core.spec.errors import JobError, SpecError

_LINES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and to whom. certificate, key: PEM files, both or neither. limits: JSON of bounds.

    tokens: table of token digests; inherits_tokens: the environment names one, which the gateway reads for itself.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    tokens: Path | None = None
    limits: Path | None = None
    inherits_tokens: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise SpecError(f"port: expected 0..65535 (0: any free one), got {self.port}")
        if (self.certificate is None) != (self.key is None):
            raise SpecError("TLS needs both --cert and --key")
        if not self.is_loopback and not self.needs_token:
            raise SpecError(
                f"host {self.host!r} is reachable from other machines, and there are no tokens: give --tokens FILE, "
                "set ACTWRIGHT_TOKENS_FILE, or stay on 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """It cannot be reached from outside this machine."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def needs_token(self) -> bool:
        """Every client needs a token."""
        return self.tokens is not None or self.inherits_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAddress:
    """Where a running gateway listens."""

    listening: Listening

    @property
    def http(self) -> str:
        """For people, probes and metrics."""
        return f"{'http' if self.listening.certificate is None else 'https'}://{self._name}:{self.listening.port}"

    @property
    def session(self) -> str:
        """For workcells."""
        return f"{'ws' if self.listening.certificate is None else 'wss'}://{self._name}:{self.listening.port}/v1/session"

    @property
    def _name(self) -> str:
        everywhere = self.listening.host in ("0.0.0.0", "::")
        return socket.gethostname() if everywhere else f"[{self.listening.host}]" if ":" in self.listening.host else self.listening.host


def gateway_command(bundle: Path, listening: Listening, *, instance: str = "") -> list[str]:
    """The command line of a gateway that does not outlive this process."""
    serve = [
        sys.executable,
        "-m",
        "serving.gateway",
        "--bundle",
        str(bundle.resolve()),
        "--host",
        listening.host,
        "--port",
        str(listening.port),
    ]
    options = {"--cert": listening.certificate, "--key": listening.key, "--tokens-file": listening.tokens, "--limits": listening.limits}
    for name, value in options.items():
        serve += [] if value is None else [name, str(value.resolve())]
    return ["env", f"ACTWRIGHT_INSTANCE={instance}", "OMP_NUM_THREADS=1", *tied_to_us(serve)]


@contextlib.contextmanager
def running_gateway(
    bundle: Path, listening: Listening, *, log: Path, ready_timeout_s: float = 180.0, progress: Progress | None = None
) -> Iterator[GatewayAddress]:
    """Serve the bundle until the block ends. Raises JobError, with the end of the log, when it dies or is not ready in time.

    port 0: a free one. Ready means: loaded, warmed up, golden probes answered as they were when it was packed.
    """
    here = replace(listening, port=listening.port or free_port())
    instance = uuid.uuid4().hex
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            gateway_command(bundle, here, instance=instance), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            _await_ready(process, here, instance, log, ready_timeout_s, progress or Silent())
            yield GatewayAddress(listening=here)
        finally:
            stop_group(process, grace_s=15.0)


def _await_ready(process: subprocess.Popen[bytes], here: Listening, instance: str, log: Path, timeout_s: float, progress: Progress) -> None:
    give_up_at = time.monotonic() + timeout_s
    status: Mapping[str, Any] | None = None
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise JobError(
                f"the gateway ended with code {process.returncode} before it was ready; the end of {log}:\n{last_lines(log, _LINES)}"
            )
        status = _status(here)
        if status is not None and status.get("instance") != instance:
            raise JobError(f"port {here.port} is taken: another process answers there; give another --port")
        state = "starting" if status is None else str(status["state"])
        if state == "ready":
            return
        if status is not None and state == "failed":
            raise JobError(f"the policy will not become ready: {status['reason']}; the end of {log}:\n{last_lines(log, _LINES)}")
        progress.update(0, 1, f"{state}: {status['reason']}" if status is not None and status.get("reason") else state)
        time.sleep(0.25)
    raise JobError(f"the gateway was not ready within {timeout_s:.0f} s; the end of {log}:\n{last_lines(log, _LINES)}")


def _status(here: Listening) -> Mapping[str, Any] | None:
    """What /readyz answers, ready or not; None while there is no answer."""
    host = "127.0.0.1" if here.host in ("0.0.0.0", "localhost") else "[::1]" if here.host == "::" else here.host
    scheme, context = ("http", None) if here.certificate is None else ("https", ssl._create_unverified_context())  # it is our own child
    try:
        with urllib.request.urlopen(f"{scheme}://{host}:{here.port}/readyz", timeout=2.0, context=context) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        try:
            return json.loads(error.read())
        except ValueError:
            return None
    except (OSError, ValueError):
        return None
