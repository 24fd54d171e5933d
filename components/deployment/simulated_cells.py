"""Simulated workcells at work: the packed service and its cells as processes of their own, then what came of it.

Cells are named by string on a command line, exactly as a real one would be started; nothing of `serving` is imported.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.adapters.processes import last_lines, stop_group
from components.config.recipe import WorkcellsConfig
from components.config.records import Progress, Silent, WorkcellRow
from components.deployment.bento_service import running_service
from components.deployment.cell_process import SIMULATED_ROBOT, cell_command
from model_core.spec.errors import JobError, SpecError
from model_core.spec.execution.cell_options import CellExit, CellOptions

logger = logging.getLogger(__name__)

AUDIT = "undigested/audit"
SECONDS_PER_EPISODE = 180.0


def run_workcells(
    cfg: WorkcellsConfig,
    bento: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    tasks: Sequence[str] = (),
    robot_options: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Serve `bento`, let `cfg.cells` cells work against it, stop everything; return the record.

    tasks: one per cell, in turn, where `cfg.tasks` is empty. robot_options: for the robot's factory (horizon_sim_steps is
    taken from `cfg`). The record has `rows` of what equal runs share, and `undigested.rows`, each a `WorkcellRow` document,
    with latencies. Recordings are out/recordings/*.episode; the audit of each cell is out/undigested/audit/<cell>, for its
    times differ from run to run. Raises JobError when the service or a cell breaks; a cell that refused the handshake is a
    row with `refused_to_move`.
    """
    jobs = tasks_of_cells(cfg, tasks)
    for leftover in ("recordings", "undigested"):
        shutil.rmtree(out / leftover, ignore_errors=True)
    logs = out / "undigested"
    board = _Board(progress or Silent(), total=cfg.cells * cfg.episodes_per_cell)
    options = {"horizon_sim_steps": cfg.horizon_sim_steps, **(robot_options or {})}
    with running_service(bento, home=out / "scratch" / "bentoml", log=logs / "service.log", progress=board.progress) as address:
        cells = [_CellProcess(options=one, log=logs / f"{one.cell}.log") for one in cell_options(cfg, jobs, address.session, out, options)]
        try:
            for cell in cells:
                cell.start(board)
            for cell in cells:
                cell.wait(SECONDS_PER_EPISODE * cfg.episodes_per_cell)
        finally:
            for cell in cells:
                cell.stop()
        rows = [cell.read_row() for cell in cells]
    shared = ("cell", "task", "episodes", "successes", "refused_to_move")
    return {
        "rows": [{key: row[key] for key in shared} for row in rows],
        "model_versions": sorted({str(row["model_version"]) for row in rows if row["model_version"]}),
        "recordings": sorted(path.name for path in (out / "recordings").glob("*.episode")),
        "undigested": {"rows": [{name: row[name] for name in WorkcellRow.__dataclass_fields__} for row in rows]},
    }


def tasks_of_cells(cfg: WorkcellsConfig, tasks: Sequence[str]) -> list[tuple[str, str]]:
    """(cell name, task) of every cell; tasks go round when there are more cells than tasks."""
    chosen = tuple(cfg.tasks) or tuple(tasks)
    if not chosen:
        raise SpecError("no task for the workcells: set workcells.tasks, or give the tasks of collect")
    return [(f"cell-{index + 1:02d}", chosen[index % len(chosen)]) for index in range(cfg.cells)]


def cell_options(
    cfg: WorkcellsConfig, jobs: Sequence[tuple[str, str]], url: str, out: Path, robot_options: Mapping[str, object]
) -> list[CellOptions]:
    """The options of every cell. jobs: (cell name, task). Each cell has seeds of its own."""
    return [
        CellOptions(
            robot=SIMULATED_ROBOT,
            task=task,
            cell=cell,
            url=url,
            episodes=cfg.episodes_per_cell,
            first_seed=cfg.first_seed + 1000 * index,
            execute_horizon=cfg.execute_horizon,
            deadline_ms=cfg.deadline_ms,
            result=out / "undigested" / f"{cell}.json",
            realtime=cfg.real_time,
            spool=out / "recordings" if cfg.record else None,
            audit=out / AUDIT / cell if cfg.audit else None,
            robot_options=tuple(f"{name}={json.dumps(value)}" for name, value in robot_options.items()),
        )
        for index, (cell, task) in enumerate(jobs)
    ]


class _Board:
    """Adds up what the cells report, for one progress bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress = progress
        self._total, self._done, self._successes = total, 0, 0
        self._lock = threading.Lock()

    def hear(self, line: str) -> None:
        """One line of a cell's output; what is not a JSON object is not for us."""
        try:
            report = json.loads(line)
            text = f"{report['cell']}: {report['stop_reason']} after {report['steps']} steps"
            success = bool(report["success"])
        except (ValueError, KeyError, TypeError):
            return
        with self._lock:
            self._done += 1
            self._successes += success
            self.progress.update(self._done, self._total, f"{self._successes} of {self._done} solved; {text}")


@dataclass(slots=True, kw_only=True)
class _CellProcess:
    """One cell's process, its log and its result file."""

    options: CellOptions
    log: Path
    process: subprocess.Popen[bytes] | None = None
    reader: threading.Thread | None = field(default=None)

    @property
    def name(self) -> str:
        return self.options.cell

    def start(self, board: _Board) -> None:
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                cell_command(self.options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, start_new_session=True
            )
        self.reader = threading.Thread(target=self._listen, args=(board,), daemon=True)
        self.reader.start()

    def _listen(self, board: _Board) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            board.hear(line.decode(errors="replace"))

    def wait(self, timeout_s: float) -> None:
        assert self.process is not None
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise JobError(f"{self.name} did not finish within {timeout_s:.0f} s; the end of {self.log}:\n{last_lines(self.log)}") from None
        if code not in (CellExit.DONE, CellExit.REFUSED):
            raise JobError(f"{self.name} ended with code {code}; the end of {self.log}:\n{last_lines(self.log)}")

    def stop(self) -> None:
        if self.process is not None:
            stop_group(self.process, grace_s=5.0)
        if self.reader is not None:
            self.reader.join(2.0)

    def read_row(self) -> dict[str, Any]:
        path = self.options.result
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise JobError(
                f"{self.name} left no readable result at {path}: {error}; the end of {self.log}:\n{last_lines(self.log)}"
            ) from error
