"""One workcell as a process of its own, started by its command line: its options and what it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.adapters.processes import last_lines, stop_group
from components.config.simulators import SIMULATORS
from model_core.spec.errors import SpecError
from model_core.spec.execution.cell_options import CellExit, CellOptions

SIMULATED_ROBOT = "components.simulation.robot:make_robot"
STRICT_DRIVER = "serving.workcell.robot.strict_driver:make_robot"
_SHOWN = 6


def named_robot(robot: str) -> tuple[str, tuple[str, ...]]:
    """MODULE:FACTORY of a robot that is named by a person, and the options that the name stands for. Raises SpecError for no such name."""
    if robot in SIMULATORS:
        return SIMULATED_ROBOT, (f"simulator={json.dumps(robot)}",)
    if robot != "strict" and ":" not in robot:
        raise SpecError(f"--robot {robot}: there are {', '.join((*SIMULATORS, 'strict'))}, or name your own as MODULE:FACTORY")
    return (STRICT_DRIVER if robot == "strict" else robot), ()


def cell_command(options: CellOptions) -> list[str]:
    """The command line of a cell that ends when this process does."""
    tied = replace(options, parent=os.getpid())
    return ["env", "OMP_NUM_THREADS=1", sys.executable, "-m", "serving.workcell", *tied.arguments()]


def run_cell(
    options: CellOptions,
    *,
    log: Path,
    hear: Callable[[Mapping[str, Any]], object],
    complain: Callable[[str], object],
    timeout_s: float = 0.0,
) -> int:
    """Run the cell to its end; its exit code. hear: called with every JSON line that it writes; complain: with the end of its log.

    timeout_s: after which it is stopped (0: never); then it raises `TimeoutError`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    options.result.unlink(missing_ok=True)
    command = cell_command(replace(options, live=True))
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, start_new_session=True)
        is_late = threading.Event()
        alarm = threading.Timer(timeout_s, lambda: (is_late.set(), stop_group(process, grace_s=10.0)))
        alarm.daemon = True
        if timeout_s:
            alarm.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                report = _report(line)
                if report is not None:
                    hear(report)
            code = process.wait()
        finally:
            alarm.cancel()
            stop_group(process, grace_s=10.0)
    if is_late.is_set():
        raise TimeoutError(f"{options.cell} was stopped after {timeout_s:g} s")
    if code:
        refused = _refusal(options.result) if code == CellExit.REFUSED else ""
        count = 1 if code in (CellExit.USAGE, CellExit.REFUSED) else 5
        complain(refused or last_lines(log, count) or f"the cell ended with code {code}; see {log}")
    return code


def _refusal(result: Path) -> str:
    """Why nothing moved, as the cell wrote it: its first lines, since an embodiment that does not fit differs in many fields."""
    try:
        lines = str(json.loads(result.read_text(encoding="utf-8")).get("refused_to_move", "")).splitlines()
    except (OSError, ValueError):
        return ""
    more = [f"  ... and {len(lines) - _SHOWN} more, in {result}"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def _report(line: bytes) -> Mapping[str, Any] | None:
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None
