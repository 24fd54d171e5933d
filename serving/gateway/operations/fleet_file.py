"""The file that ties a service to its fleet: who may stop it, where it hears of that, and what holds when it hears nothing.

    {"kill_key": "controller.pub.pem", "kill_list": "https://fleet.example/v1/kill-list", "site": "lab", "release": "<digest>",
     "offline": "finish", "offline_after_s": 1.0, "state": "kills.json"}

offline: stop, finish or episodes:N, as in the release; in force when nothing was heard for `offline_after_s` and for the last lease.
`--fleet FILE`, or ACTWRIGHT_FLEET. Paths are relative to the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError
from model_core.spec.fleet.release import offline_rule
from model_core.spec.settings import real, text
from serving.gateway.operations.kill_switch import FleetTies, kill_keys

FLEET_VARIABLE = "ACTWRIGHT_FLEET"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFile:
    """What the file says, with paths resolved. kill_list: a path or an address that is polled, "" where lists are only pushed."""

    ties: FleetTies
    kill_list: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    kill_key: str
    kill_list: str = ""
    site: str = ""
    release: str = ""
    offline: str = "finish"
    offline_after_s: float = 1.0
    state: str = ""

    def __post_init__(self) -> None:
        text("kill_key", self.kill_key)
        real("offline_after_s", self.offline_after_s, above=0.0, high=366 * 86_400.0)


def read_fleet_file(path: Path) -> FleetFile:
    """Read and check it. Raises SpecError naming the field that is wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"fleet: {path} cannot be read: {error}") from error
    given = from_document(_Document, found, where="fleet")
    is_address = given.kill_list.startswith(("http://", "https://"))
    ties = FleetTies(
        keys=kill_keys(path.parent / given.kill_key),
        site=given.site,
        release=given.release,
        offline=offline_rule(given.offline, given.offline_after_s),
        state=path.parent / given.state if given.state else None,
    )
    kill_list = given.kill_list if is_address or not given.kill_list else str(path.parent / given.kill_list)
    return FleetFile(ties=ties, kill_list=kill_list)
