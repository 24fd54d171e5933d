"""The gateway as a process of its own: one bundle served over HTTP(S) and WebSocket until the block ends.

The same application as inside a Bento (`python -m serving.gateway`), so that it can have TLS, tokens and another address than
loopback without BentoML's own processes around it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from components.adapters.processes import free_port
from components.config.records import Progress, Silent
from components.deployment.service_process import ServiceProcess, State, fetch_state, running, tied_to_us
from model_core.access import is_loopback
from model_core.spec.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and to whom. certificate, key: PEM files, both or neither. limits: JSON of bounds. fleet: JSON that ties it to one.
    shadow: the bundle of a candidate whose answers are compared and sent to no robot.

    tokens: table of token digests; inherits_tokens: the environment names one, which the gateway reads for itself.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    tokens: Path | None = None
    limits: Path | None = None
    fleet: Path | None = None
    shadow: Path | None = None
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
        return is_loopback(self.host)

    @property
    def address(self) -> str:
        """Its URL on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "localhost") else "[::1]" if self.host == "::" else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}"

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
    for name, value in {**options, "--fleet": listening.fleet, "--shadow": listening.shadow}.items():
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
    service = ServiceProcess(
        name="the gateway",
        command=gateway_command(bundle, here, instance=instance),
        state=lambda: child_state(here),
        instance=instance,
        port=here.port,
        log=log,
        grace_s=15.0,
        ready_timeout_s=ready_timeout_s,
    )
    with running(service, progress or Silent()):
        yield GatewayAddress(listening=here)


def child_state(here: Listening) -> State | None:
    """What /readyz of a service that we started answers, ready or not: its certificate is not checked, it is our own child."""
    tls = None if here.certificate is None else ssl._create_unverified_context()
    return fetch_state(f"{here.address}/readyz", tls=tls)
