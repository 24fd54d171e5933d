"""Two workcells at once on Meta-World through the real packaged service, against in-process evaluation on the same seeds.

The checkpoint is packed into a Bento, BentoML serves it in its own process, two cells (processes without torch) drive one task each at
the same time, in lock step. Then the same checkpoint is evaluated in process on exactly those scenes. What must be seen: the rate
through the service is not below the other (Newcombe's interval of the difference), and on how many seeds they agree.

Run: python benchmarks/closed_loop_service.py --checkpoint FOLDER [--episodes 20]      writes benchmarks/results/closed_loop_service.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "closed_loop_service.json"


def main() -> None:
    """Both ways, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a trained checkpoint (default: the champion that `actwright run` left)")
    parser.add_argument("--tasks", nargs=2, default=["coffee-button-v3", "drawer-close-v3"], help="one a cell")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each cell (default 20)")
    parser.add_argument("--reasoning", default="full")
    parser.add_argument("--deadline-ms", type=float, default=5000.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.checkpoint is None:
        found = sorted((ROOT / ".actwright" / "store" / "train").glob("*/checkpoint"), key=lambda p: p.stat().st_mtime)
        if not found:
            print("no trained checkpoint here: run `actwright run loop` first, or give --checkpoint")
            return
        args.checkpoint = found[-1]

    from components.config.data_config import CollectConfig
    from components.config.recipe import EvalConfig, PackageConfig, WorkcellsConfig
    from components.config.records import Silent
    from components.deployment.simulated_cells import run_workcells
    from components.evaluation.evaluate import evaluate
    from components.evaluation.intervals import wilson
    from components.evaluation.suite import open_suite
    from components.release.package import package
    from model_core.statistics.intervals import newcombe

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        packed = package(PackageConfig(reasoning=args.reasoning), args.checkpoint, "closed-loop/1", work / "package")
        cells = WorkcellsConfig(
            cells=2, tasks=tuple(args.tasks), episodes_per_cell=args.episodes, deadline_ms=args.deadline_ms, record=False, audit=False
        )
        began = time.monotonic()
        served = run_workcells(cells, work / "package" / "bento", work / "cells", Silent())
        served_s = time.monotonic() - began
        reports = [json.loads((work / "cells" / "undigested" / f"cell-{i + 1:02d}.json").read_text()) for i in range(2)]
        began = time.monotonic()
        alone = []
        for index, task in enumerate(args.tasks):
            cfg = EvalConfig(
                seeds_per_task=args.episodes,
                first_seed=cells.first_seed + 1000 * index,
                execute_horizon=cells.execute_horizon,
                reasoning=args.reasoning,
                films_per_task=0,
            )
            scenes = CollectConfig(tasks=(task,))
            alone.append(evaluate(cfg, args.checkpoint, work / f"eval-{index}", Silent(), suite=open_suite(cfg, scenes)))
        alone_s = time.monotonic() - began

    outcome = {"served": {}, "alone": {}}
    for index, task in enumerate(args.tasks):
        outcome["served"] |= {(task, row["seed"]): row["success"] for row in reports[index]["rows"]}
        outcome["alone"] |= {(row["task"], row["seed"]): row["success"] for row in alone[index]["episodes"]}
    counts = {way: (sum(rows.values()), len(rows)) for way, rows in outcome.items()}
    low, high = newcombe(*counts["served"], *counts["alone"])
    both = outcome["served"].keys() & outcome["alone"].keys()
    result = {
        "tasks": args.tasks,
        "episodes_per_cell": args.episodes,
        "contract_id": packed["contract_id"],
        "service": {
            **dict(zip(("successes", "trials"), counts["served"], strict=True)),
            "interval_95": [round(v, 3) for v in wilson(*counts["served"])],
            "per_cell": {row["task"]: [row["successes"], row["episodes"]] for row in served["rows"]},
            "p50_ms": [round(r["p50_ms"], 1) for r in reports],
            "p99_ms": [round(r["p99_ms"], 1) for r in reports],
            "holds": [r["holds"] for r in reports],
            "refusals": [r["refusals_by_code"] for r in reports],
            "seconds": round(served_s, 1),
        },
        "in_process": {
            **dict(zip(("successes", "trials"), counts["alone"], strict=True)),
            "interval_95": [round(v, 3) for v in wilson(*counts["alone"])],
            "per_task": {task: [a["successes"], a["trials"]] for task, a in zip(args.tasks, alone, strict=True)},
            "seconds": round(alone_s, 1),
        },
        "difference_95": [round(low, 3), round(high, 3)],
        "not_below": counts["served"][0] / counts["served"][1] >= counts["alone"][0] / counts["alone"][1] or low <= 0 <= high,
        "same_outcome_on": f"{sum(outcome['served'][k] == outcome['alone'][k] for k in both)} of {len(both)} scenes",
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
