"""Memory that `actwright up` holds while no person uses it, without a policy service: PSS of its processes, with the console and without.

PSS (proportional set size) counts a page that n processes share as 1/n in each, so that the sum over all processes is what they hold. The
home is the golden one of the tests: one trained and judged version, and no champion that could be served. Measured are: all of it after
`--settle` seconds; the same after every list of the console was asked for once, as by people who looked at each page; and what is left
after the console alone was ended. Processor time of the idle processes is stated beside it.

Run: python benchmarks/idle_memory.py [--settle 30]      writes benchmarks/results/idle_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "idle_memory.json"
GOLDEN = ROOT / "tests" / "golden" / "home_aa4ee54" / "home"
GOAL_MIB = 900
LISTS = ("cells", "episodes", "places", "failures", "models", "studies", "runs", "lineage", "trials", "fleet", "operators", "causes")


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    import psutil

    process = psutil.Process(pid)
    return [pid, *(one.pid for one in process.children(recursive=True))]


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def part_of(pid: int) -> str:
    """Which part of `up` a process is, by its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    named = {"console": "console", "prefect": "prefect", "mlflow": "mlflow", "up": "actwright up"}
    return next((part for word in reversed(words) for name, part in named.items() if word == name or f"{name}." in word), "other")


def held(pid: int) -> dict[str, float]:
    """MiB of each part of the processes of `up`, and of all."""
    parts: dict[str, float] = {}
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # a process that has ended meanwhile holds nothing
            parts[part_of(one)] = parts.get(part_of(one), 0.0) + pss_mib(one)
    return {name: round(mib, 1) for name, mib in sorted(parts.items())} | {"all": round(sum(parts.values()), 1)}


def look_around(console: str) -> None:
    """Ask once for what each page of the console shows first."""
    for name in LISTS:
        with urllib.request.urlopen(f"{console}/api/{name}", timeout=120) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"{console}/api/models/actwright-miniature/1/card", timeout=120) as answer:
        assert answer.status == 200


def started(home: Path) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """`actwright up` over this home, and the addresses that it told."""
    variables = {"ACTWRIGHT_HOME": home, "ACTWRIGHT_DATA": home / "data", "ACTWRIGHT_RUNS": home / "runs"}
    environment = os.environ | {name: str(path) for name, path in variables.items()}
    command = [sys.executable, "-m", "flows.commands.main", "up"]
    up = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert up.stdout is not None
    told = json.loads(up.stdout.readline())
    assert set(told) == {"console", "prefect", "mlflow"}, "no policy service is part of this figure"
    return up, told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--settle", type=float, default=30.0, help="seconds without use before each figure")
    settle_s = parser.parse_args().settle
    from benchmarks.measuring import conditions

    began, load_before = perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "store").symlink_to(GOLDEN / "store")
        shutil.copyfile(GOLDEN / "mlflow.db", home / "mlflow.db")
        up, told = started(home)
        try:
            time.sleep(settle_s)
            idle, used_s = held(up.pid), {pid: cpu_s(pid) for pid in tree(up.pid)}
            time.sleep(settle_s)
            used_s = {pid: cpu_s(pid) - used_s.get(pid, 0.0) for pid in tree(up.pid)}
            look_around(told["console"])
            time.sleep(settle_s)
            looked_at = held(up.pid)
            console = next(pid for pid in tree(up.pid) if part_of(pid) == "console")
            os.kill(console, signal.SIGTERM)
            time.sleep(settle_s)
            without = held(up.pid)
        finally:
            up.terminate()
            up.wait(60)
    result = {
        "conditions": conditions(load_before, began),
        "idle_mib": idle,
        "after_each_page_mib": looked_at,
        "without_console_mib": without,
        "idle_share_of_one_core": round(sum(used_s.values()) / settle_s, 3),
        "goal_mib": GOAL_MIB,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
