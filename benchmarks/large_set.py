"""A LeRobot set of 1,000,000 rows, its films links to one, opened by a fresh process: seconds, and the most memory that it took.

Opened means: every episode is listed and compared with rows and films; then the set is named by its contents, and the last episode is
decoded. The limit of time is one of processor time, of all of that together: wall time feels what else the machine does. The limit of
memory is that of the test of large sets (tests/integration/test_large_sets.py), which makes the same set.

Run: python benchmarks/large_set.py [--rows N]     writes benchmarks/results/large_set.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, timed, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "large_set.json"
MOST_MIB, MOST_CPU_S = 2048, 10.0


def main() -> None:
    from tests.integration.test_large_sets import LENGTH, OPEN, write_large_set

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory() as work:
        root = write_large_set(Path(work) / "large", options.rows // LENGTH)
        run = timed([sys.executable, "-c", OPEN, str(root)], PYTHONPATH=str(ROOT))
    found = json.loads(run["printed"].splitlines()[-1])
    result = {
        "what": "seconds and peak memory of opening a large set in a fresh process, imports included",
        **{name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()},
        "cpu_s": round(run["cpu_s"], 2),
        "most_mib": MOST_MIB,
        "most_cpu_s": MOST_CPU_S,
        "is_goal_reached": found["peak_mib"] < MOST_MIB and run["cpu_s"] < MOST_CPU_S,
        "conditions": conditions(load, started, pyarrow=version("pyarrow"), av=version("av")),
    }
    written(result, RESULT)
    raise SystemExit(0 if found["peak_mib"] < MOST_MIB else 1)


if __name__ == "__main__":
    main()
