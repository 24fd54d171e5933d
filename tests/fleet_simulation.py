"""Simulated cells of `tests.scale.fleet_controller` and the controller's process as they see it; time is a file that both sides read."""

from __future__ import annotations

import http.client
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from model_core.spec.fleet.signatures import make_key
from tests.scale.gate_outcomes import ROOT
from tests.simulated_fleet import SimulatedCell

V1, V2, V3 = "1" * 64, "2" * 64, "3" * 64
RATES = {V1: 0.8, V2: 0.8, V3: 0.6}
ROUND_S, STARTED_S = 600.0, 1_800_000_000.0
LOST_ANSWERS, FALLS_SILENT, COMES_BACK, CLOCK_IS_OFF = 0.02, 0.01, 0.2, 0.1  # shares of cells, in a round
_PATIENCE_S = 120.0


class Clock:
    """Seconds since 1970 that the simulation sets and the controller's process reads, in a file of eight bytes."""

    def __init__(self, path: Path, *, now: float | None = None) -> None:
        if now is not None:
            path.write_bytes(struct.pack("d", now))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    def __call__(self) -> float:
        return struct.unpack("d", self._map[:8])[0]

    def set(self, now: float) -> None:
        self._map[:8] = struct.pack("d", now)


class Service:
    """The controller's process: started, killed, asked."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.kills, self.peak_bytes = folder, 0, 0
        self._local = threading.local()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.scale.fleet_controller", "--serve", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        until = time.monotonic() + _PATIENCE_S
        while self.ask("GET", "/readyz")[0] != 200:
            assert self.process.poll() is None, "the controller ended"
            assert time.monotonic() < until, "the controller did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        self.end(signal.SIGKILL)
        self.kills += 1
        self.start()

    def end(self, number: int = signal.SIGTERM) -> None:
        self.note_memory()
        self.process.send_signal(number)
        self.process.wait(60)

    def note_memory(self) -> None:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        self.peak_bytes = max(self.peak_bytes, 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))

    @property
    def processor_s(self) -> float:
        """Processor time of this process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """(status, content); status 0 where nothing answered. One kept connection for each thread."""
        link = getattr(self._local, "link", None) or http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        self._local.link = link
        try:
            link.request(method, path, body, {"content-type": "application/json"} if body else {})
            reply = link.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException):
            link.close()
            self._local.link = None
            return 0, b""

    def order(self, path: str, body: object) -> Any:
        status, content = self.ask("POST", path, json.dumps(body).encode())
        assert status == 200, content
        return json.loads(content)

    def rollout(self) -> Any:
        return json.loads(self.ask("GET", "/v1/rollouts")[1])[-1]


class Simulation:
    """The cells, and what they saw. A round is ten minutes of virtual time."""

    def __init__(self, count: int, folder: Path, seed: int) -> None:
        self.rng, self.clock = np.random.default_rng(seed), Clock(folder / "clock", now=STARTED_S)
        self.controller_key = make_key(folder / "controller.pem").public_key()
        self.service = Service(folder)
        self.cells = [
            SimulatedCell(name=f"cell-{n:04}", site=f"site-{n % 5}", tasks=("pick", "place"), running=V1, rates=RATES) for n in range(count)
        ]
        for cell in self.cells:
            cell.offset_s = float(self.rng.choice([-7_200.0, 7_200.0])) if self.rng.random() < CLOCK_IS_OFF else 0.0
            self.service.order(f"/v1/cells/{cell.name}/enrol", cell.enrolment)
        self.silent: set[str] = set()
        self.seen: set[str] = set()
        self.reports, self.unanswered = 0, 0

    def round(self, pool: Executor, *, is_killed: bool = False, is_heard: bool = False) -> None:
        """Every cell runs an episode; those that are not silent report. is_killed: the controller, in the midst of the reports. is_heard:
        no cell is silent and no answer is lost, else of 1,000 cells there would always be one that does not know that it was heard."""
        self.clock.set(self.clock() + ROUND_S)
        asked = []
        for cell in self.cells:
            cell.episode(self.clock(), self.rng, lasts_s=60.0)
            self.seen.add(cell.running)
            self.silent ^= {cell.name} if self.rng.random() < (COMES_BACK if cell.name in self.silent else FALLS_SILENT) else set()
            if is_heard or cell.name not in self.silent:
                asked.append((cell, bool(self.rng.random() < LOST_ANSWERS) and not is_heard))
        sent = [pool.submit(self.report, *one) for one in asked[: len(asked) // 2]]
        if is_killed:
            self.service.kill()
        for one in [*sent, *(pool.submit(self.report, *one) for one in asked[len(asked) // 2 :])]:
            one.result()

    def report(self, cell: SimulatedCell, is_lost: bool) -> None:
        status, content = self.service.ask("POST", f"/v1/cells/{cell.name}/report", cell.report(self.clock()))
        self.reports += 1
        if status == 200 and not is_lost:
            cell.answered(content, self.controller_key)
        else:
            self.unanswered += 1  # the same episodes go with the next report

    def rollout_of(self, release: str, pool: Executor, *, kills: int = 0, most_rounds: int = 400) -> dict[str, Any]:
        """One rollout to its end, as the controller tells it, and how many rounds it took. Raises `AssertionError` where no cell was held
        out until the verdict."""
        self.offer(release)
        self.service.order("/v1/rollouts", {"plan": {"name": f"to-{release[0]}", "release": release, "stages": stages()}})
        for number in range(1, most_rounds + 1):
            self.round(pool, is_killed=number <= kills)
            told = self.looked()
            if told["status"] in ("passed", "rolled back"):
                return {"status": told["status"], "stage": told["stage"], "episodes_of_it": told["finished"], "rounds": number}
            assert told["status"] == "running", told["told"]
            assert any(cell.running != release for cell in self.cells), "no cell was held out"
        raise AssertionError(f"the rollout did not end: {told['told']}")

    def offer(self, release: str) -> None:
        self.service.order("/v1/releases", {"digest": release, "model_version": f"pick/{release[0]}", "allowed_by": "a simulation"})

    def looked(self) -> Any:
        """The rollout, after the controller looked at what came in."""
        before = None
        while True:
            told = self.service.rollout()
            state = (told["finished"], told["status"], told["stage"], sum(row["new_trials"] + row["old_trials"] for row in told["strata"]))
            if state == before:
                return told
            before = state
            time.sleep(0.5)

    def settle(self, pool: Executor, release: str, *, most_rounds: int = 60) -> int:
        """Rounds until everybody was heard and runs the release. Raises `AssertionError` where somebody never does."""
        for number in range(most_rounds):
            if all(cell.running == release and not cell.waiting for cell in self.cells):
                self.round(pool, is_heard=True)  # what was taken up with an answer stands in the next report
                return number + 1
            self.round(pool, is_heard=True)
        raise AssertionError("not every cell reached the release")


def stages() -> Sequence[dict[str, object]]:
    """Two cells, a quarter, all but a fifth that is held out until the proof."""
    proof = {"margin": 0.1, "maximum_episodes": 100_000}
    return [
        {"name": "few", "cells": 2, "minimum_episodes": 20},
        {"name": "quarter", "share": 0.25, "minimum_episodes": 20},
        {"name": "fleet", "share": 1.0, "hold_out": 0.2, "minimum_episodes": 50, "proof": proof},
    ]
