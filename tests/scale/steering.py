"""What chooses between two goals in view: a sentence, or a drawn trace? Success of each with an interval, paired by scene.

Run: python -m tests.scale.steering [--cases 20] [--set FIELD=VALUE ...]     writes benchmarks/results/steering.json

The recipe `steering` is trained in this home (ACTWRIGHT_HOME) where it is missing; --set changes it. The paper (MolmoAct, arXiv 2508.07917,
section 5.6) reports 75 % with a trace, 33 points above language.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.scale.gate_outcomes import ROOT, environment, trained

RESULT = ROOT / "benchmarks" / "results" / "steering.json"
GOALS = ("yellow", "blue")
PAIRS = (("trace", "sentence"), ("trace", "open sentence"), ("what lies ahead", "trace"))


@dataclass(frozen=True, slots=True)
class Arm:
    """What the policy is told. tasks: of the suite, by goal."""

    name: str
    prefix: str
    steering: str

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.prefix + goal for goal in GOALS)


ARMS = (
    Arm("sentence", "", "none"),
    Arm("open sentence", "either-", "none"),
    Arm("trace", "either-", "whole"),
    Arm("what lies ahead", "either-", "ahead"),
    Arm("trace against the sentence", "contrary-", "whole"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=20, help="scenes of each goal")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes of the recipe")
    parser.add_argument("--checkpoint", default="", help="a finished one of `steering`, in place of a training")
    asked = parser.parse_args()
    checkpoint = Path(asked.checkpoint or trained(tuple(asked.set), (), recipe="steering"))
    found = {arm.name: scenes_of(arm, checkpoint, asked.cases) for arm in ARMS}
    document = {
        "arms": {name: counted(scenes) for name, scenes in found.items()},
        "differences": {f"{one} - {other}": difference(found[one], found[other]) for one, other in PAIRS},
        "published": "trace 75 %, 33 points above language (arXiv 2508.07917, section 5.6; real robot)",
        "changes": asked.set,
        "environment": environment(),
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(document["arms"]) + "\n" + json.dumps(document["differences"]) + "\n")


def scenes_of(arm: Arm, checkpoint: Path, cases: int) -> dict[tuple[str, int], str]:
    """Goal and seed -> "right", "wrong" (the other button was pressed) or "neither"; what was void is left out."""
    from components.artifacts.step_manifest import checkpoint_digest
    from components.config.data_config import CollectConfig
    from components.config.recipe import EvalConfig
    from components.config.records import EvalReport
    from components.evaluation.evaluate import evaluate
    from components.evaluation.suite import open_suite
    from flows.platform.settings import load_settings, prepare_process
    from model_core.spec.documents import from_document

    settings = load_settings()
    prepare_process(settings)
    cfg = EvalConfig(
        suite="two_buttons",
        tasks=arm.tasks,
        seeds_per_task=cases,
        reasoning="trace+action",
        steering=arm.steering,  # type: ignore[arg-type]
        image_swap_frames=0,
        films_per_task=2,
    )
    suite = open_suite(cfg, CollectConfig())
    out = settings.home.resolve() / "steering" / checkpoint_digest(checkpoint)[:12] / f"{arm.name.replace(' ', '-')}-{cases}"
    report = from_document(
        EvalReport, {k: v for k, v in evaluate(cfg, checkpoint, out, Lines(arm.name), suite=suite).items() if k != "undigested"}
    )
    trials = [row for row in report.episodes if row.stop_reason != "env_error"]
    return {(row.task.rpartition("-")[2], row.seed): outcome(row.success, row.steps) for row in trials}


def outcome(success: bool, steps: int) -> str:
    """An episode that ends early without success was ended by the other button; 125 control steps are the horizon."""
    return "right" if success else "wrong" if steps < 125 else "neither"


def counted(scenes: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """Successes with their exact interval, and what the others did."""
    from model_core.statistics.intervals import clopper_pearson

    values = list(scenes.values())
    low, high = clopper_pearson(values.count("right"), len(values))
    told = {name: values.count(name) for name in ("right", "wrong", "neither")}
    return {
        **told,
        "trials": len(values),
        "rate": round(told["right"] / max(1, len(values)), 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def difference(one: Mapping[tuple[str, int], str], other: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """Of success rates on the scenes that both have, with Tango's interval of pairs and McNemar's exact two-sided p value."""
    from model_core.statistics.intervals import PairCounts, mcnemar, tango

    both = [(one[scene] == "right", other[scene] == "right") for scene in sorted(one.keys() & other.keys())]
    counts = PairCounts(
        both=both.count((True, True)), wins=both.count((True, False)), losses=both.count((False, True)), neither=both.count((False, False))
    )
    swapped = PairCounts(both=counts.both, wins=counts.losses, losses=counts.wins, neither=counts.neither)
    low, high = tango(counts)
    p_value = min(1.0, 2 * min(mcnemar(counts), mcnemar(swapped)))
    return {
        "pairs": counts.pairs,
        "difference": round(counts.difference, 4),
        "interval": [round(low, 4), round(high, 4)],
        "p_value": p_value,
    }


class Lines:
    """Progress as lines."""

    def __init__(self, arm: str) -> None:
        self.arm = arm

    def update(self, done: int, total: int, message: str = "") -> None:
        sys.stderr.write(f"{self.arm}: {done}/{total} {message}\n")


if __name__ == "__main__":
    main()
