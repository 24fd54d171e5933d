"""One workcell as a process of its own, started by its command line: what `actwright workcell run` orders, and what it hears."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.processes import last_lines, stop_group
from components.config.simulators import SIMULATORS
from components.deployment.simulated_cells import ROBOT
from model_core.spec.errors import SpecError

ROBOTS: Mapping[str, str] = {**dict.fromkeys(SIMULATORS, ROBOT), "strict": "serving.workcell.robot.strict_driver:make_robot"}
REFUSED = 3  # the cell's exit code when a handshake was refused and nothing moved
_SHOWN = 6
STRATEGIES = ("sync", "async", "prefix", "blend", "ensemble")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOrder:
    """What one cell is to do. url: of the session. audit: its folder gets one folder a cell. options: "name=value" for the robot."""

    robot: str
    task: str
    url: str
    cell: str
    result: Path
    episodes: int = 1
    first_seed: int = 950_000
    strategy: str = ""
    is_realtime: bool = False
    deadline_ms: float = 2000.0
    audit: Path | None = None
    commissioning: Path | None = None
    watchdog: Path | None = None
    spool: Path | None = None
    steering: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy and self.strategy not in STRATEGIES:
            raise SpecError(f"--strategy {self.strategy}: there are {', '.join(STRATEGIES)}")
        if self.strategy not in ("", "sync") and not self.is_realtime:
            raise SpecError(f"--strategy {self.strategy} needs --realtime: without it the simulated world waits for every answer")
        if self.watchdog is not None and not self.is_realtime:
            raise SpecError("--watchdog needs --realtime: without it nothing moves while the cell is silent")
        if self.steering is not None and not self.is_realtime:
            raise SpecError("--steer needs --realtime: without it there is no time in which somebody could draw")
        if self.robot not in ROBOTS and ":" not in self.robot:
            raise SpecError(f"--robot {self.robot}: there are {', '.join(ROBOTS)}, or name your own as MODULE:FACTORY")

    def command(self) -> list[str]:
        """The command line of the cell, which ends when we do."""
        words = ["--parent", str(os.getpid()), "--robot", ROBOTS.get(self.robot, self.robot), "--task", self.task, "--cell", self.cell]
        words += ["--url", self.url, "--episodes", str(self.episodes), "--first-seed", str(self.first_seed)]
        words += ["--deadline-ms", str(self.deadline_ms), "--result", str(self.result), "--live"]
        words += ["--realtime" if self.is_realtime else "--lockstep", *(["--strategy", self.strategy] if self.strategy else [])]
        audit = None if self.audit is None else self.audit / self.cell
        files = {"--audit": audit, "--commissioning": self.commissioning, "--watchdog": self.watchdog, "--spool": self.spool}
        files["--steering-file"] = self.steering
        for name, path in {**files, "--token-file": self.token_file, "--ca-file": self.ca_file}.items():
            words += [] if path is None else [name, str(path.resolve())]
        simulator = [f"simulator={json.dumps(self.robot)}"] if self.robot in SIMULATORS else []
        for pair in (*simulator, *self.options):
            words += ["--robot-option", pair]
        return ["env", "OMP_NUM_THREADS=1", sys.executable, "-m", "serving.workcell", *words]


def run_cell(order: CellOrder, *, log: Path, hear: Callable[[Mapping[str, Any]], object], complain: Callable[[str], object]) -> int:
    """Run the cell to its end and return its exit code. hear: every JSON line that it says; complain: the end of its log when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    order.result.unlink(missing_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(order.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, start_new_session=True)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                told = _told(line)
                if told is not None:
                    hear(told)
            code = process.wait()
        finally:
            stop_group(process, grace_s=10.0)
    if code:
        refused = _refusal(order.result) if code == REFUSED else ""
        complain(refused or last_lines(log, 1 if code in (2, REFUSED) else 5) or f"the cell ended with code {code}; see {log}")
    return code


def _refusal(result: Path) -> str:
    """Why nothing moved, as the cell wrote it: its first lines, for a body that does not fit differs in many fields."""
    try:
        lines = str(json.loads(result.read_text(encoding="utf-8")).get("refused_to_move", "")).splitlines()
    except (OSError, ValueError):
        return ""
    more = [f"  ... and {len(lines) - _SHOWN} more, in {result}"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def _told(line: bytes) -> Mapping[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
