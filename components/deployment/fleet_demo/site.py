"""What a site needs before its first rollout: keys, a repository of update metadata behind an HTTP server, and files for each agent."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.processes import free_port
from components.adapters.signing.folder_signature import Signer, Trust
from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import make_repository
from components.release.fleet.create import Made
from components.release.fleet.publish import publish
from model_core.spec.files import atomic_write
from model_core.spec.fleet.signatures import make_key, public_path

SITE = "demo"
BENCH = {"bench": "yes"}
# a service ends with the agent that started it, so that a demonstration that is killed leaves no process behind
_SERVICE = (
    'exec "{python}" -m serving.lifeline $PPID "{python}" -m serving.gateway --bundle "{bundle}" --port {port} --candidate "{candidate}"'
)
SERVICE = ("sh", "-c", _SERVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The folders of one site. service: command of a policy service, as in an agent's settings."""

    folder: Path
    service: Sequence[str] = SERVICE

    @property
    def keys(self) -> Path:
        """Of releases and update metadata."""
        return self.folder / "keys"

    @property
    def repository(self) -> Path:
        """What robots read."""
        return self.folder / "repository"

    @property
    def controller_key(self) -> Path:
        """Signs proposals."""
        return self.folder / "keys" / "controller.pem"

    @property
    def signer(self) -> Signer:
        """Of releases."""
        return Signer(private_key=self.keys / "release.pem")

    def make(self) -> None:
        """Keys and an empty repository."""
        make_keys(self.keys, [SITE])
        make_repository(self.repository, Keys(folder=self.keys))
        make_key(self.controller_key)

    def offer(self, made: Made) -> None:
        """Let the robots of the site take a release."""
        publish(made.folder, self.repository, [SITE], Keys(folder=self.keys), Trust(public_key=self.keys / "release.pub.pem"))

    @property
    def services(self) -> Path:
        """Of the policy services that its cells share."""
        return self.folder / "services"

    def cell(self, name: str) -> Path:
        """The folder of one cell's computer."""
        return self.folder / "cells" / name

    def prepare_agent(
        self, cell: str, task: str, addresses: Mapping[str, str], *, is_bench: bool, shared_ports: tuple[int, int] | None = None
    ) -> Path:
        """Write what a person brings to a cell's computer; returns the settings file of its agent. addresses: controller and repository.
        shared_ports: of the two policy services that the cells share; None for services of its own."""
        folder = self.cell(cell)
        folder.mkdir(parents=True, exist_ok=True)  # a test may have put a disk below it
        make_key(folder / "cell.pem")
        shutil.copyfile(self.repository / "metadata" / "1.root.json", folder / "1.root.json")
        settings: dict[str, Any] = {
            "cell": cell,
            "site": SITE,
            **addresses,
            "root": "1.root.json",
            "key": "cell.pem",
            "controller_key": str(public_path(self.controller_key).resolve()),
            "release_key": str((self.keys / "release.pub.pem").resolve()),
            "service": list(self.service),
            "ports": shared_ports or (free_port(), free_port()),
            "services": str(self.services.resolve()) if shared_ports else None,
            "tasks": [task],
            "labels": BENCH if is_bench else {},
            "report_every_s": 1.0,
        }
        atomic_write(folder / "agent.json", json.dumps(settings, indent=1) + "\n")
        return folder / "agent.json"

    def public_key(self, cell: str) -> str:
        """By which a cell's reports are known (PEM)."""
        return public_path(self.cell(cell) / "cell.pem").read_text(encoding="utf-8")


@contextlib.contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback until the block ends; gives its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="repository", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was fetched stands in the agents' logs."""
