"""What it costs a cell's control thread to be shown in the console: processor time of one control step, shown and not.

The real control loop on a virtual clock, two cameras of 640 x 480, a chunk every few steps. Blocks alternate in one run; counted is the
time of the control thread alone (`time.thread_time`), so other work on the machine hardly enters. The peer is the same cell without a view.
Both sides must execute the same commands.

Run: python benchmarks/console_cost.py [--steps 400] [--blocks 6]      writes benchmarks/results/console_cost.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "console_cost.json"


def block(steps: int, folder: Path | None) -> tuple[float, list[tuple[str, int]]]:
    """Microseconds of the control thread for a step (the median), and the commands. folder: where the cell is shown; None: it is not."""
    from model_core.spec.contract import CameraSpec
    from serving.workcell.audit.interface import NullAudit
    from serving.workcell.audit.live_view import LiveView
    from tests.fakes import make_contract, make_embodiment
    from tests.virtual_world import make_world

    cameras = tuple(CameraSpec(name=name, width=640, height=480) for name in ("front", "wrist"))
    contract = make_contract(replace(make_embodiment(), cameras=cameras))
    audit = NullAudit() if folder is None else LiveView(NullAudit(), folder, "cell-v")
    world = make_world(audit=audit, contract=contract)
    took_us = []
    for _ in range(steps):
        for _ in range(5):
            world.clock.now += world.period_s / 5
            world.link.pump()
        began = time.thread_time()
        assert world.cell.tick() is None
        took_us.append(1e6 * (time.thread_time() - began))
        time.sleep(0.01)  # the writing thread gets its turn, as between two steps of a robot
    audit.close()
    return median(took_us), [(tag.chunk_id, tag.row) for tag in world.robot.tags]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=6)
    args = parser.parse_args()
    found: dict[str, list[float]] = {"not shown": [], "shown": []}
    for _ in range(args.blocks):
        with tempfile.TemporaryDirectory() as name:
            plain_us, commands = block(args.steps, None)
            shown_us, same = block(args.steps, Path(name))
        assert commands == same
        found["not shown"].append(round(plain_us, 1))
        found["shown"].append(round(shown_us, 1))
    plain_us, shown_us = (median(found[side]) for side in ("not shown", "shown"))
    result = {"steps": args.steps, "step_us": found, "ratio": round(shown_us / plain_us, 3), "more_us": round(shown_us - plain_us, 1)}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
