"""vla-eval's own LIBERO benchmark, unmodified, in this process, against our service: what it says of every episode.

python vla_eval_libero.py ADDRESS MAX_STEPS SUITES
SUITES: '{"libero_object": {"instructions": [...], "states": 1}, ...}', suite -> the sentences of its tasks, how many episodes of each
"""

from __future__ import annotations

import json
import sys
from tempfile import TemporaryDirectory
from typing import Any

import vla_eval

BENCHMARK = "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark"


def main(address: str, max_steps: int, suites: dict[str, dict[str, Any]]) -> None:
    for suite, chosen in suites.items():
        asked = {
            "benchmark": BENCHMARK,
            "tasks": chosen["instructions"],
            "episodes_per_task": chosen["states"],
            "params": {"suite": suite, "seed": 7, "max_steps": max_steps},
        }
        config = {"server": {"url": f"ws://{address}/vla-eval"}, "render": "cpu", "benchmarks": [asked]}
        with TemporaryDirectory() as folder:  # it makes one also where it saves nothing
            (result,) = vla_eval.run(config, docker=False, no_save=True, output_dir=folder)
        sys.stdout.write(json.dumps({"suite": suite, "result": result}, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
