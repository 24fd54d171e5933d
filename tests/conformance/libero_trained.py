"""A trained policy of LIBERO, judged by vla-eval and by our own suite on the same initial states under the same mujoco and robosuite.

python -m tests.conformance.libero_trained CHECKPOINT --suite libero_object --instruction "pick up the butter and ..." --states 20

CHECKPOINT: the folder that `actwright run libero_object` trained. vla-eval, unmodified, drives the service of this checkpoint; our suite
runs it in closed loop. Written to benchmarks/results/libero_trained.json: every episode of both sides, and whether all decisions are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.artifacts.step_manifest import checkpoint_digest
from components.simulation.benchmarks.libero_states import HORIZONS
from model_core.statistics.intervals import clopper_pearson
from tests.conformance.libero import Sides, both_sides, compared
from tests.conformance.run import CLIENTS_OF, ROOT, environment, interpreter, service

REPORT = ROOT / "benchmarks" / "results" / "libero_trained.json"


def judged(checkpoint: Path, python: Path, chosen: Mapping[str, Any], suite: str) -> dict[str, Any]:
    """Both sides on the same initial states, as the report holds it."""
    suites = {suite: chosen}
    sides = both_sides(python, service, checkpoint, suites, HORIZONS[suite])
    return {
        "checkpoint": checkpoint_digest(checkpoint)[:16],
        "suite": suite,
        **chosen,
        "decisions": len(sides.decided),
        "our suite": _summary(sides.ours),
        "vla-eval": _summary(sides.theirs),
        "checks": list(compared(sides, suites)),
        "first difference": _first_difference(sides),
    }


def _summary(episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    solved = sum(bool(one["success"]) for one in episodes)
    low, high = clopper_pearson(solved, len(episodes), 0.95)
    ends = [{"solved": bool(one["success"]), "steps": one["steps"]} for one in episodes]
    return {"solved": solved, "of": len(episodes), "interval": [round(low, 3), round(high, 3)], "episodes": ends}


def _first_difference(sides: Sides) -> dict[str, Any] | None:
    """The first decision that is not equal on both sides, with what it did."""
    for number, (theirs, ours) in enumerate(zip(sides.answered, sides.decided, strict=False)):
        unlike = [part for part in ("images", "state", "actions") if theirs[part] != ours[part]]
        if unlike:
            return {"decision": number, "unlike": unlike, "service": theirs["first"], "our suite": ours["first"]}
    return None


def main() -> int:
    """Returns 0 where every check passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--instruction", default="pick up the butter and place it in the basket")
    parser.add_argument("--states", type=int, default=20)
    args = parser.parse_args()
    group = CLIENTS_OF["vla-eval-libero"]
    found = interpreter(group)
    if found is None:
        raise SystemExit(f"needs Python {' or '.join(group.versions)}, which this machine does not have")
    chosen = {"instructions": [args.instruction], "states": args.states}
    result = judged(args.checkpoint.resolve(), environment(group, found), chosen, args.suite)
    ours = {"machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    packages = list(group.packages["vla-eval-libero"])
    REPORT.write_text(json.dumps({**ours, "packages": packages, **result}, indent=1) + "\n")
    for check in result["checks"]:
        print(f"{'ok    ' if check['passed'] else 'FAILED'} {check['check']}: {check['detail']}")  # noqa: T201
    print(f"our suite {result['our suite']['solved']}, vla-eval {result['vla-eval']['solved']} of {args.states}; {REPORT.name}")  # noqa: T201
    return 0 if all(check["passed"] for check in result["checks"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
