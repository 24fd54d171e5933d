"""A fleet's controller that listens on loopback in a thread, with a virtual clock, simulated cells and a rollout of two stages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.adapters.processes import free_port
from model_core.access import Tokens, token_digest
from serving.fleet.controller.app import create_app
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.database import Database
from tests.simulated_fleet import SimulatedCell

NEW, OLD = "a" * 64, "b" * 64
PLAN = {
    "name": "careful",
    "release": NEW,
    "stages": [
        {"name": "one cell", "cells": 1, "minimum_episodes": 5},
        {"name": "fleet", "share": 1.0, "hold_out": 0.25, "minimum_episodes": 200, "approvals": 1},
    ],
    "guards": {"interventions": 0.3},
}
ROLES = {"lou": "observe", "ada": "operate", "bo": "admin", "cy": "admin"}


def token_of(person: str) -> str:
    return f"token-of-{person}"


@dataclass(kw_only=True)
class LiveFleet:
    """A controller that answers at `url`, and its cells. tokens: the file of `ROLES`. now: its clock, one number."""

    url: str
    tokens: Path
    controller: Controller
    now: list[float]
    loop: asyncio.AbstractEventLoop
    cells: list[SimulatedCell] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def post(self, path: str, body: Mapping[str, object], by: str = "bo") -> dict[str, object]:
        reply = httpx.post(self.url + path, json=body, headers={"authorization": f"Bearer {token_of(by)}"}, trust_env=False)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def add(self, name: str, site: str) -> None:
        cell = SimulatedCell(name=name, site=site, running=OLD, rates={OLD: 1.0, NEW: 1.0})
        self.post(f"/v1/cells/{name}/enrol", cell.enrolment)
        self.cells.append(cell)

    def is_waiting_for(self, what: str) -> bool:
        """Whether the newest rollout waits for something."""
        reply = httpx.get(f"{self.url}/v1/rollouts", headers={"authorization": f"Bearer {token_of('lou')}"}, trust_env=False)
        return any(what in missing for missing in reply.json()[-1]["missing"])

    def round(self, count: int = 1, *, silent: str = "") -> None:
        """Each cell but the silent one runs an episode and reports; then the controller looks."""
        for _ in range(count):
            self.now[0] += 30.0
            for cell in (one for one in self.cells if one.name != silent):
                cell.episode(self.now[0], self.rng)
                reply = httpx.post(f"{self.url}/v1/cells/{cell.name}/report", content=cell.report(self.now[0]), trust_env=False)
                assert reply.status_code == 200, reply.text
                cell.answered(reply.content, self.controller.key.public_key())
            asyncio.run_coroutine_threadsafe(self.controller.look(), self.loop).result(30)

    def start(self) -> None:
        """Four cells at two sites, and a rollout in its first stage."""
        for name, site in (("cell-1", "lab"), ("cell-2", "lab"), ("cell-3", "plant"), ("cell-4", "plant")):
            self.add(name, site)
        self.round()
        self.post("/v1/releases", {"digest": NEW, "model_version": "pick/4", "allowed_by": "the gate promotes it"})
        self.post("/v1/releases", {"digest": OLD, "model_version": "pick/3", "allowed_by": "the gate promotes it"})
        self.post("/v1/rollouts", {"plan": PLAN}, by="ada")
        self.round(2)


@contextlib.contextmanager
def live_fleet(folder: Path) -> Iterator[LiveFleet]:
    """A controller on a database in `folder`, until the block ends."""
    tokens, now = folder / "fleet_tokens.json", [time.time()]
    tokens.write_text(json.dumps({token_digest(token_of(name)): {"subject": name, "role": role} for name, role in ROLES.items()}))
    controller = Controller(Database(f"sqlite:///{folder / 'fleet.db'}"), Ed25519PrivateKey.generate(), clock=lambda: now[0])
    port, loops = free_port(), []
    server = uvicorn.Server(
        uvicorn.Config(create_app(controller, Tokens.from_file(tokens), look_every_s=0.0), port=port, log_level="warning")
    )

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield LiveFleet(url=f"http://127.0.0.1:{port}", tokens=tokens, controller=controller, now=now, loop=loops[0])
    server.should_exit = True
    thread.join(10)
