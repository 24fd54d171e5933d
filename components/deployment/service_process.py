"""A service as a child process: started, awaited until it is ready, stopped with everything that it started.

The process gets its own process group and is ended when we die. What it prints goes to a log file, whose last lines travel in
the error when it fails.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.http import NoAnswerError, Readiness, get, wait_until_ready
from components.adapters.processes import last_lines, stop_group, tell_of_end
from components.config.records import Progress
from model_core.spec.errors import JobError

State = Mapping[str, Any]
_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProcess:
    """What to start and how to recognise it.

    name: for people ("the gateway"). state: asks the service for {state, reason, instance}; None while it does not answer. instance:
    what our process repeats there, so that another one on the same port is recognised. grace_s: between SIGTERM and SIGKILL.
    """

    name: str
    command: Sequence[str]
    state: Callable[[], State | None]
    instance: str
    port: int
    log: Path
    cwd: Path | None = None
    grace_s: float = 8.0
    ready_timeout_s: float = 180.0


@contextlib.contextmanager
def running(service: ServiceProcess, progress: Progress, tell_end: Callable[[str], object] | None = None) -> Iterator[None]:
    """Run the service until the block ends; the block begins when it is ready. Raises `JobError`, with the end of the log.

    tell_end: hears of a service that was ready and ended by itself.
    """
    service.log.parent.mkdir(parents=True, exist_ok=True)
    with service.log.open("wb") as sink:
        process = subprocess.Popen(
            service.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, cwd=service.cwd
        )
        try:
            _await_ready(process, service, progress)
            stopping = None if tell_end is None else tell_of_end(process, tell_end, name=service.name, log=service.log)
            try:
                yield
            finally:
                if stopping is not None:
                    stopping.set()
        finally:
            stop_group(process, grace_s=service.grace_s)


def tied_to_us(command: Sequence[str]) -> list[str]:
    """`command`, started through a line that ends it when this process dies."""
    return [sys.executable, "-m", "serving.lifeline", str(os.getpid()), *command]


def fetch_state(url: str, *, timeout_s: float = 2.0, tls: ssl.SSLContext | None = None) -> State | None:
    """The JSON that `url` answers, ready or not; None while there is no answer that is JSON."""
    try:
        return get(url, timeout_s=timeout_s, tls=tls).json()
    except (NoAnswerError, ValueError):
        return None


def _await_ready(process: subprocess.Popen[bytes], service: ServiceProcess, progress: Progress) -> None:
    seen: State = {}

    def is_ready() -> bool:
        nonlocal seen
        state = service.state() if process.poll() is None else None
        if state is None:
            progress.update(0, 1, f"waiting for {service.name} (starting)")
            return False
        seen = state
        if state.get("instance") != service.instance:
            raise JobError(f"port {service.port} is taken: another process answers there. Fix: give {service.name} another port")
        if state["state"] == "failed":
            raise JobError(f"{service.name} will not become ready: {state['reason']}{_end_of(service.log)}")
        reason = f": {state['reason']}" if state.get("reason") else ""
        progress.update(0, 1, f"waiting for {service.name} ({state['state']}{reason})")
        return state["state"] == "ready"

    ending = wait_until_ready(is_ready, timeout_s=service.ready_timeout_s, is_alive=lambda: process.poll() is None, poll_s=_POLL_S)
    if ending is Readiness.DIED:
        raise JobError(f"{service.name} ended with code {process.returncode} before it was ready{_end_of(service.log)}")
    if ending is Readiness.LATE:
        answer = f"it answers {seen['state']}: {seen['reason']}" if seen else "no answer"
        raise JobError(f"{service.name} was not ready within {service.ready_timeout_s:.0f} s ({answer}){_end_of(service.log)}")


def _end_of(log: Path) -> str:
    return f"; the end of {log}:\n{last_lines(log)}"
