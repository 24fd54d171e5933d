"""The settings of one agent: a JSON file, read once; paths in it are relative to its folder.

{"cell": "cell-1", "site": "lab", "controller": "https://fleet.example", "repository": "https://releases.example/repository",
 "root": "1.root.json", "key": "cell-1.pem", "controller_key": "controller.pub.pem", "release_key": "release.pub.pem"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError, require
from model_core.spec.fleet.documents import checked_name
from model_core.spec.protocol.trust import bearer, checked_token

GATEWAY = ("{python}", "-m", "serving.gateway", "--bundle", "{bundle}", "--port", "{port}", "--candidate", "{candidate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """All settings.

    controller, repository: addresses of the controller and of the folder that `actwright fleet repository new` made. root: its
    1.root.json, brought here by hand. key: private key of this cell; controller_key: public key of the controller. release_key, or
    authorities: who must have signed a release. home: where slots, metadata and state are kept; cell_files: the folder that the cell is
    given as --agent. service: the command of a policy service, with {python}, {bundle}, {port} and {candidate} (the file that names who
    answers in its shadow). ports: on loopback, one for each slot. services: a folder that the agents of several cells on this computer
    name: they share one policy service for each release, and these two ports; None for services of this cell's own.
    bytes_per_s: of downloads, 0 for no limit. spare_bytes: what a download leaves free on the disk. patience_s: how long a service may
    take to answer its probes. timeout_s: of one exchange. controller_token_file, service_token_file: bearer tokens, where they are asked.
    """

    cell: str
    site: str
    controller: str
    repository: str
    root: Path
    key: Path
    controller_key: Path
    release_key: Path | None = None
    authorities: tuple[Path, ...] = ()
    home: Path = Path("agent")
    cell_files: Path = Path("cell")
    service: tuple[str, ...] = GATEWAY
    ports: tuple[int, int] = (3101, 3102)
    services: Path | None = None
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(dict[str, str]()))
    report_every_s: float = 10.0
    bytes_per_s: float = 0.0
    spare_bytes: int = 64 * 2**20
    patience_s: float = 1800.0
    timeout_s: float = 30.0
    controller_token_file: Path | None = None
    service_token_file: Path | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        for name in ("cell", "site"):
            checked_name(name, getattr(self, name))
        for name in ("controller", "repository"):
            require(getattr(self, name).startswith(("http://", "https://")), f"{name}: expected an address, http(s)://...")
        require((self.release_key is None) == bool(self.authorities), "give release_key, or authorities: who signs releases")
        for name in ("report_every_s", "patience_s", "timeout_s"):
            require(0 < getattr(self, name) < 1e6, f"{name} must be above 0, in seconds", got=getattr(self, name))
        require(self.bytes_per_s >= 0 and self.spare_bytes >= 0, "bytes_per_s and spare_bytes must not be negative")
        require(len(set(self.ports)) == 2 and all(0 < port < 65_536 for port in self.ports), "ports: expected two", got=self.ports)
        require(any("{bundle}" in word for word in self.service), "service: expected a command with {bundle} and {port}")

    def port(self, slot: str) -> int:
        """Of the service of a slot."""
        return self.ports["ab".index(slot)]


def read_settings(path: Path) -> AgentSettings:
    """The settings in a file. Raises `SpecError` naming the field that is wrong."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read: {error}. Fix: write a JSON file as docs/fleet.md shows") from error
    settings = from_document(AgentSettings, document, where=str(path))
    beside = {one.name: _beside(path, getattr(settings, one.name)) for one in fields(settings) if "Path" in str(one.type)}
    return replace(settings, **beside)


def token_header(path: Path | None) -> dict[str, str]:
    """The header of a bearer token; nothing without a file. Raises `SpecError` for a file that holds none."""
    if path is None:
        return {}
    try:
        return bearer(checked_token(path.read_text(encoding="utf-8", errors="replace"), str(path)))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}. Fix: write the token there") from error


def _beside(path: Path, value: Path | tuple[Path, ...] | None) -> Path | tuple[Path, ...] | None:
    if isinstance(value, tuple):
        return tuple(path.parent / one for one in value)
    return None if value is None else path.parent / value
