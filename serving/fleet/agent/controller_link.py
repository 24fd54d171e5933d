"""One exchange with the controller: a signed report goes out, a signed proposal comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from model_core.spec.errors import WireError
from model_core.spec.fleet.documents import CellReport, DesiredState
from model_core.spec.fleet.signatures import MOST_BYTES, opened, sealed
from serving.fleet.intake.http_client import HttpClient
from serving.fleet.intake.problems import UpdateRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerLink:
    """controller: its address. key: of this cell. trusted: key id -> key of the controller."""

    controller: str
    key: Ed25519PrivateKey
    trusted: Mapping[str, Ed25519PublicKey]
    client: HttpClient

    def ask(self, report: CellReport, revision: int) -> DesiredState:
        """What the controller proposes. revision: of the last proposal, which no answer may be older than.

        Raises `UpdateRefused`: UNREACHABLE, or CONTROLLER for an answer that is not its own, not to this report, or an older one, INTERNAL
        for a report that breaks its own rules.
        """
        url = f"{self.controller.rstrip('/')}/v1/cells/{quote(report.cell, safe='')}/report"
        try:
            message = sealed(report, self.key)
        except WireError as error:
            raise UpdateRefused("INTERNAL", f"the report of {report.cell}: {error}") from error
        answer = self.client.exchange(url, message, most=MOST_BYTES)
        try:
            desired = opened(answer, DesiredState, self.trusted)
        except WireError as error:
            raise UpdateRefused("CONTROLLER", f"the answer of {self.controller}: {error}") from error
        if desired.cell != report.cell or desired.acknowledged_sequence != report.sequence:
            raise UpdateRefused(
                "CONTROLLER",
                f"the answer is to report {desired.acknowledged_sequence} of {desired.cell}, expected {report.sequence} of {report.cell}",
            )
        if desired.revision < revision:
            raise UpdateRefused("CONTROLLER", f"the proposal has revision {desired.revision}, and {revision} was here already")
        return desired
