"""How much worse a policy acts with noise on its output head: what `actwright fleet demo --noise` makes of version 3.

The same initial states for every level, by the evaluation of the loop (full reasoning); no version of the demonstration is told of it.

Run: python benchmarks/fleet_demo_noise.py CHECKPOINT [--levels 0 5 7] [--seeds 20]     writes benchmarks/results/fleet_demo_noise.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, written  # noqa: E402
from components.config.recipe import EvalConfig  # noqa: E402
from components.config.records import Silent  # noqa: E402
from components.deployment.fleet_demo.versions import add_noise  # noqa: E402
from components.evaluation.evaluate import evaluate  # noqa: E402
from components.evaluation.suite import open_suite  # noqa: E402
from flows.pipeline.recipes import get_recipe  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "fleet_demo_noise.json"


def solved(checkpoint: Path, noise: float, seeds: int, folder: Path) -> dict[str, str]:
    """Successes of each task with this much noise."""
    noisy = add_noise(checkpoint, folder / "checkpoint", noise) if noise else checkpoint
    cfg = EvalConfig(seeds_per_task=seeds, first_seed=970_000, image_swap_frames=0, films_per_task=0, workers=1, batch=10)
    suite = open_suite(cfg, get_recipe("loop").collect)
    report = evaluate(cfg, noisy, folder / "evaluated", Silent(), suite=suite)
    return {task: f"{one['successes']} of {one['trials']}" for task, one in report["per_task"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.0, 5.0, 7.0])
    parser.add_argument("--seeds", type=int, default=20, help="initial states of each task")
    arguments = parser.parse_args()
    load, began = os.getloadavg(), time.perf_counter()
    table: dict[str, dict[str, str]] = {}
    for level in arguments.levels:
        with tempfile.TemporaryDirectory() as folder:
            table[f"{level:g}"] = solved(arguments.checkpoint, level, arguments.seeds, Path(folder))
        print(f"noise {level:g}: {json.dumps(table[f'{level:g}'])}", flush=True)
    written({"conditions": conditions(load, began), "solved": table}, RESULT)


if __name__ == "__main__":
    main()
