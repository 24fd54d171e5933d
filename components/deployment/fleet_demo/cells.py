"""The cells of the demonstration: for each an agent and a workcell as processes of their own, ended between two episodes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from components.adapters.processes import last_lines, stop_group
from components.deployment.cell_process import SIMULATED_ROBOT, cell_command
from components.deployment.service_process import tied_to_us
from model_core.spec.errors import JobError
from model_core.spec.execution.cell_options import FIRST_SEED, CellOptions

# a machine with fewer cores than cells answers late; the simulated world waits for it
_DEADLINE_MS, _HEARTBEAT_S = 60_000.0, 60.0
_PATIENCE_S = 600.0
_MOST_EPISODES = 100_000
_END_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """What a cell does. folder: of its computer, which the agent's settings are in. robot: its factory by name, with options; {folder} in
    one stands for the cell's folder."""

    name: str
    task: str
    folder: Path
    number: int
    robot: str = SIMULATED_ROBOT
    robot_options: Mapping[str, object] = field(default_factory=dict[str, object])
    realtime: bool = False

    @property
    def files(self) -> Path:
        """What cell and agent share."""
        return self.folder / "cell"

    @property
    def audit(self) -> Path:
        """Its audit files."""
        return self.folder / "audit"

    def options(self) -> CellOptions:
        """Of its process: more episodes than it will have time for, from seeds that no other cell has."""
        return CellOptions(
            robot=self.robot,
            task=self.task,
            cell=self.name,
            agent=self.files,
            episodes=_MOST_EPISODES,
            first_seed=FIRST_SEED + _MOST_EPISODES * self.number,
            deadline_ms=_DEADLINE_MS,
            heartbeat_s=_HEARTBEAT_S,
            patience_s=_PATIENCE_S,
            audit=self.audit,
            result=self.folder / "result.json",
            realtime=self.realtime,
            robot_options=tuple(f"{name}={self._option(value)}" for name, value in self.robot_options.items()),
        )

    def _option(self, value: object) -> str:
        return json.dumps(value.replace("{folder}", str(self.folder)) if isinstance(value, str) else value)


@dataclass(slots=True)
class RunningCells:
    """The processes of all cells."""

    jobs: Sequence[CellJob]
    agents: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])
    cells: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])

    def check(self) -> None:
        """Raises `JobError` where a process ended by itself, with the end of its log."""
        for job in self.jobs:
            for kind, processes in (("agent", self.agents), ("cell", self.cells)):
                process = processes.get(job.name)
                if process is not None and process.poll() is not None:
                    log = job.folder / f"{kind}.log"
                    raise JobError(f"the {kind} of {job.name} ended with code {process.returncode}; the end of {log}:\n{last_lines(log)}")

    def start_agents(self) -> None:
        """Each takes in what the controller proposes to it."""
        for job in self.jobs:
            words = ["-m", "serving.fleet.agent", "--config", str(job.folder / "agent.json")]
            self.agents[job.name] = _started(tied_to_us([sys.executable, *words]), job.folder / "agent.log")

    def start_cells(self) -> None:
        """Each runs episode after episode on the service that its agent permits."""
        for job in self.jobs:
            self.cells[job.name] = cell = _started(cell_command(job.options()), job.folder / "cell.log")
            if not job.realtime:
                _yield_to_others(cell.pid)

    def end_cells(self) -> None:
        """End each cell between two of its episodes, so that none is cut."""
        ending = [job for job in self.jobs if job.name in self.cells]
        with ThreadPoolExecutor(max(len(ending), 1)) as pool:
            list(pool.map(self._end_cell, ending))

    def _end_cell(self, job: CellJob) -> None:
        with between_episodes(job.files):
            stop_group(self.cells.pop(job.name))

    def end(self) -> None:
        """End whatever still runs; services end with their agents."""
        for process in (*self.cells.values(), *self.agents.values()):
            stop_group(process, grace_s=5.0)
        self.cells.clear()
        self.agents.clear()


@contextlib.contextmanager
def running_cells(jobs: Sequence[CellJob]) -> Iterator[RunningCells]:
    """Nothing runs at first; whatever was started is ended with the block."""
    running = RunningCells(jobs)
    try:
        yield running
    finally:
        running.end()


@contextlib.contextmanager
def between_episodes(files: Path, most_s: float = _END_WITHIN_S) -> Iterator[None]:
    """While the block runs, the cell with these files is in no episode and begins none: this process has its update lock.

    Raises `JobError` where the running episode does not end within `most_s`.
    """
    files.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(files / "update.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up_at = time.monotonic() + most_s
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > give_up_at:
                raise JobError(f"an episode of {files.parent.name} did not end within {most_s:g} s. Fix: see {files.parent / 'cell.log'}")
            time.sleep(0.002)  # shorter than the cell waits between two tries
        yield
    finally:
        os.close(descriptor)


def _yield_to_others(pid: int) -> None:
    """Simulated worlds wait for other programs. At their usual priority they would leave a candidate in shadow, which has the lowest,
    no time at all on a machine with fewer cores than cells."""
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _started(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
