"""The fleet's controller from this side: its process on this machine, and questions and orders to one over HTTP.

Named by string on a command line, exactly as on another machine; nothing of `serving` is imported.
"""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.adapters.http import NoAnswerError, request
from components.adapters.processes import free_port
from components.config.records import Progress, Silent
from components.deployment.gateway_service import Listening, child_state
from components.deployment.service_address import ServiceCredentials
from components.deployment.service_process import ServiceProcess, running, tied_to_us
from model_core.spec.errors import ActwrightError, NotReady
from model_core.spec.fleet.documents import CONTROLLER_PORT

URL = f"http://127.0.0.1:{CONTROLLER_PORT}"


class OrderRefused(ActwrightError, RuntimeError):  # noqa: N818
    """The controller does not carry out an order, and says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerFiles:
    """What a controller is started with. database: URL of SQLAlchemy. key: private key (PEM) that signs proposals. mlflow: server whose
    webhook is accepted, "" for none. repository, root: of update metadata, which then say what is proposed to a site, and where they are
    trusted from. report_every_s: how often cells are asked to report."""

    database: str
    key: Path
    log: Path
    mlflow: str = ""
    repository: str = ""
    root: Path | None = None
    report_every_s: float = 10.0


@contextlib.contextmanager
def running_controller(files: ControllerFiles, listening: Listening, progress: Progress | None = None) -> Iterator[str]:
    """A controller in a process of its own until the block ends; gives its URL. Raises `JobError` with the end of its log."""
    here, instance = replace(listening, port=listening.port or free_port()), uuid.uuid4().hex
    command = [sys.executable, "-m", "serving.fleet.controller", "--database", files.database, "--key", str(files.key)]
    command += ["--host", listening.host, "--port", str(here.port), "--report-every", str(files.report_every_s)]
    options = {"--cert": listening.certificate, "--tls-key": listening.key, "--tokens-file": listening.tokens, "--mlflow": files.mlflow}
    options |= {"--repository": files.repository, "--root": files.root, "--metadata": files.key.parent / "metadata"}
    for name, value in options.items():
        command += [name, str(value)] if value else []
    service = ServiceProcess(
        name="the fleet controller",
        command=["env", f"ACTWRIGHT_INSTANCE={instance}", *tied_to_us(command)],
        state=lambda: child_state(here),
        instance=instance,
        port=here.port,
        log=files.log,
    )
    with running(service, progress or Silent()):
        yield here.address


def ask(url: str, path: str, credentials: ServiceCredentials) -> Any:
    """What a GET gives, as JSON. Raises `NotReady` where nothing answers, `OrderRefused` where it is refused."""
    return _answer("GET", url, path, None, credentials)


def order(url: str, path: str, body: Mapping[str, Any], credentials: ServiceCredentials) -> Any:
    """What a POST gives, as JSON. Raises as `ask` does."""
    return _answer("POST", url, path, json.dumps(body).encode(), credentials)


def whole_log(url: str, credentials: ServiceCredentials) -> list[dict[str, Any]]:
    """Every entry of the log, page by page."""
    entries: list[dict[str, Any]] = []
    while page := ask(url, f"/v1/log?after={entries[-1]['number'] if entries else 0}", credentials):
        entries += page
    return entries


def _answer(method: str, url: str, path: str, body: bytes | None, credentials: ServiceCredentials) -> Any:
    whole = f"{url.rstrip('/')}{path}"
    headers = {**credentials.headers, **({} if body is None else {"content-type": "application/json"})}
    try:
        reply = request(method, whole, timeout_s=credentials.timeout_s, headers=headers, body=body, tls=credentials.tls(whole))
    except NoAnswerError as error:
        raise NotReady(
            f"no controller answers at {url} ({error.reason}). Fix: start one with `actwright fleet up`, or name it with --url"
        ) from error
    try:
        found = reply.json()
    except ValueError as error:
        raise NotReady(f"{whole} answered {reply.status} and no JSON. Fix: is this the fleet's controller? name it with --url") from error
    if reply.ok:
        return found
    reason = str(found.get("reason", found)) if isinstance(found, dict) else str(found)
    if reply.status in (401, 403):
        raise OrderRefused(
            f"the controller answered {reply.status}: {reason}. Fix: give a token with the role (--token-file, or ACTWRIGHT_TOKEN)"
        )
    raise OrderRefused(f"the controller refuses: {reason}")
