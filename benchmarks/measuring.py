"""What the benchmarks of data share: the machine that a result is of, processes with their wall and processor time, and ratios.

Processor time hardly feels what else the machine does, wall time is what a person waits for: results state both, and how busy it was.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def conditions(load_before: tuple[float, float, float], started: float, **versions: str) -> dict[str, Any]:
    """Where and when: date, machine, versions, load before and after, seconds of the whole benchmark. started: `perf_counter()` then."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "load_average": {"before": round(load_before[0], 1), "after": round(os.getloadavg()[0], 1)},
        "took_s": round(perf_counter() - started),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions},
    }


def scheduling() -> str:
    """This session's priority beside others: "nice 0" as usual, "unknown" for a process in no such group."""
    group = Path("/proc/self/autogroup")
    return (group.read_text(encoding="utf-8").partition(" ")[2].strip() if group.is_file() else "") or "unknown"


def processor() -> str:
    """The processor's name as the system states it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_bytes() -> int:
    """The most memory that this process held (VmHWM); the resource module may tell that of the process that forked it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def timed(command: Sequence[str], *, folder: Path | None = None, sound: Sequence[int] = (0,), **environment: str) -> dict[str, Any]:
    """One process: wall_s, cpu_s (with its children), and what it printed. Raises `SystemExit` for an exit code that is not `sound`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=folder, check=False)
    wall_s = perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in sound:
        raise SystemExit(f"{' '.join(command[:5])}: exit code {done.returncode}\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s, "printed": done.stdout.strip(), "warned": done.stderr.strip()[-300:]}


def ratio(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    """How many times as much of `measure` the peer takes: of medians, with a bootstrap interval over the runs of both."""
    peer, mine = [float(run[measure]) for run in theirs], [float(run[measure]) for run in ours]
    rng = np.random.default_rng(0)
    draws = [np.median(rng.choice(peer, len(peer))) / np.median(rng.choice(mine, len(mine))) for _ in range(2000)]
    low, high = (round(float(value), 2) for value in np.quantile(draws, (0.025, 0.975)))
    return {"ratio": round(statistics.median(peer) / statistics.median(mine), 2), "interval_95": [low, high], "runs": len(mine)}


def medians(runs: Mapping[str, Sequence[Mapping[str, Any]]], measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Side -> measure -> median over its runs."""
    return {
        side: {name: round(statistics.median(float(run[name]) for run in found), 4) for name in measures} for side, found in runs.items()
    }


def written(result: Mapping[str, Any], path: Path) -> None:
    """Write a result, and print it as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "said"}))
