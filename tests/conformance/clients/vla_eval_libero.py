"""vla-eval's own LIBERO benchmark, unmodified, in this process, against our service: what it says of every episode.

python vla_eval_libero.py ADDRESS MAX_STEPS '{"libero_object": [2, 1], ...}'   (suite -> how many tasks, how many episodes of each)
"""

from __future__ import annotations

import json
import sys
from tempfile import TemporaryDirectory

import vla_eval

BENCHMARK = "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark"


def main(address: str, max_steps: int, suites: dict[str, list[int]]) -> None:
    for suite, (tasks, episodes) in suites.items():
        asked = {
            "benchmark": BENCHMARK,
            "max_tasks": tasks,
            "episodes_per_task": episodes,
            "params": {"suite": suite, "seed": 7, "max_steps": max_steps},
        }
        config = {"server": {"url": f"ws://{address}/vla-eval"}, "render": "cpu", "benchmarks": [asked]}
        with TemporaryDirectory() as folder:  # it makes one also where it saves nothing
            (result,) = vla_eval.run(config, docker=False, no_save=True, output_dir=folder)
        sys.stdout.write(json.dumps({"suite": suite, "result": result}, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
