"""Simulated cells that report to a real controller: signed reports, episodes at given rates, swaps between them; no robot, no sleep."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_core.spec.fleet.documents import CellReport, DesiredState, EpisodeRecord, UpdateError
from model_core.spec.fleet.signatures import opened, sealed, trusted, written_public


@dataclass
class SimulatedCell:
    """One cell. offset_s: its clock less the true one. rates: release -> success rate; others fail always."""

    name: str
    site: str = "lab"
    running: str = ""
    tasks: tuple[str, ...] = ("pick",)
    labels: dict[str, str] = field(default_factory=dict)
    offset_s: float = 0.0
    boot: str = "boot-1"
    rates: dict[str, float] = field(default_factory=dict)
    refuses: str = ""
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sequence: int = 0
    number: int = 0
    waiting: list[EpisodeRecord] = field(default_factory=list)
    desired: DesiredState | None = None

    @property
    def enrolment(self) -> dict[str, str]:
        return {"site": self.site, "public_key": written_public(self.key.public_key())}

    def episode(self, now_s: float, rng: np.random.Generator, *, lasts_s: float = 20.0, **more) -> EpisodeRecord:
        """Run one that ends now, of the release that runs."""
        self.number += 1
        success = rng.random() < self.rates.get(self.running, 0.0)
        record = EpisodeRecord(
            id=f"{self.name}-{self.number}",
            release=self.running,
            task=self.tasks[self.number % len(self.tasks)],
            started_at_s=now_s + self.offset_s - lasts_s,
            ended_at_s=now_s + self.offset_s,
            outcome="success" if success else "failure",
            **more,
        )
        self.waiting.append(record)
        return record

    def report(self, now_s: float, **more) -> bytes:
        """The next report, signed."""
        self.sequence += 1
        error = UpdateError(code="PROBES", message="depth differs", release=self.refuses) if self.refuses else None
        document = CellReport(
            cell=self.name,
            site=self.site,
            agent_version="0.1.0",
            sequence=self.sequence,
            boot=self.boot,
            sent_at_s=now_s + self.offset_s,
            tasks=self.tasks,
            labels=self.labels,
            running=self.running,
            error=error,
            episodes=tuple(self.waiting[:256]),
            **more,
        )
        return sealed(document, self.key)

    def answered(self, message: bytes, controller_key) -> DesiredState:
        """Take the answer: acknowledged episodes are dropped, a proposed release runs from the next episode on."""
        answer = opened(message, DesiredState, trusted(controller_key))
        assert answer.cell == self.name
        self.waiting = [one for one in self.waiting if one.id not in set(answer.acknowledged)]
        if self.desired is None or answer.revision >= self.desired.revision:
            self.desired = answer
            if answer.release and answer.release != self.refuses and answer.release not in answer.blocked:
                self.running = answer.release
        return answer
