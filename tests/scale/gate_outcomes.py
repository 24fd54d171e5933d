"""Each outcome of the gate with real rollouts of `loop`'s checkpoints: PROMOTE, REJECT, NOT ENOUGH and INVALID.

Run: python -m tests.scale.gate_outcomes [--start FOLDER] [--set FIELD=VALUE ...]     writes benchmarks/results/gate_outcomes.json

`loop` is run in this home (ACTWRIGHT_HOME) where it is not finished; --set changes it, --start lets its training go on from a checkpoint of
`loop`. Two further checkpoints are trained on its data: an early one, of few steps from scratch, and one near it: the finished one, trained
on for some steps at a hundredth of the learning rate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "gate_outcomes.json"
EXIT = {"promote": 0, "reject": 3, "not enough": 4, "invalid": 5}
EARLY = ("train.init_from=", "train.steps=10", "train.warmup_steps=2", "train.learning_rate=1e-3")
NEAR = ("train.steps=5", "train.warmup_steps=1", "train.learning_rate=1e-5")
FEW_PAIRS = ("gate.margin=0.05", "gate.max_pairs=10")  # ten pairs, even if all are ties, cannot show a margin of 0.05
OTHER_RULES = ("evaluate.horizon_sim_steps=400",)  # the champion was judged with 500


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of checkpoints, and what the gate must say of it. shown: the command, with names in place of folders."""

    wanted: str
    why: str
    words: tuple[str, ...]
    shown: str


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="what `loop` is run with")
    parser.add_argument("--start", default="", metavar="FOLDER", help="a checkpoint of `loop` that its training goes on from")
    asked = parser.parse_args()
    base = (*begun_from(asked.start), *asked.set)
    finished(base)
    good = trained(base, ())
    folders = {"GOOD": good, "EARLY": trained(base, EARLY), "NEAR": trained(base, (f"train.init_from={good}", *NEAR))}
    folders |= {"START": asked.start} if asked.start else {}
    changes = [named(change, folders) for change in base]
    document = {"loop": changes, "early": list(EARLY), "near": list(NEAR), "environment": environment()}
    rows = list[dict[str, Any]]()
    for case in cases(base, folders):
        rows.append(judged(case, folders))
        RESULT.write_text(json.dumps({"outcomes": rows, **document}, indent=1) + "\n", encoding="utf-8")
    wrong = [row for row in rows if row["outcome"] != row["wanted"] or row["exit_code"] != EXIT[row["wanted"]]]
    for row in wrong:
        sys.stderr.write(f"wanted {row['wanted']}, got {row['outcome']} (exit {row['exit_code']}): {row['command']}\n")
    return 1 if wrong else 0


def cases(base: tuple[str, ...], folders: dict[str, str]) -> list[Case]:
    """One for each outcome."""
    changes = sets(base)
    study = ("study", "run", "loop", *changes)
    few, other = sets(FEW_PAIRS), sets((*NEAR, *OTHER_RULES))

    def versus(candidate: str, champion: str, *more: str) -> tuple[tuple[str, ...], str]:
        words = (*study, *more, "--candidate", folders[candidate], "--champion", folders[champion])
        return words, named(f"actwright {' '.join((*study, *more))} --candidate {candidate} --champion {champion}", folders)

    near = ("run", "loop", *changes, "--set", f"train.init_from={folders['GOOD']}", *other)
    return [
        Case("promote", "the finished checkpoint against the early one", *versus("GOOD", "EARLY")),
        Case("reject", "the early checkpoint against the finished one", *versus("EARLY", "GOOD")),
        Case("not enough", "a near-equal pair, ten pairs of a task, a margin of 0.05", *versus("NEAR", "GOOD", *few)),
        Case(
            "invalid",
            "the champion was judged with another horizon",
            near,
            named(f"actwright {' '.join(near)}", folders),
        ),
    ]


def sets(changes: tuple[str, ...]) -> tuple[str, ...]:
    """As options of a command."""
    return tuple(word for change in changes for word in ("--set", change))


def begun_from(start: str) -> tuple[str, ...]:
    """What lets a training go on from a checkpoint: its weights, and the statistics and codebook that its words were made with."""
    if not start:
        return ()
    return f"train.init_from={start}", f"freeze.statistics={start}", f"annotate.codebook={start}/vqvae"


def finished(base: tuple[str, ...]) -> None:
    """Run `loop` where it is not finished, so that its policy is champion."""
    code, told = called(("run", "loop", *sets(base)))
    if code:
        raise SystemExit(f"`actwright run loop` ended with {code} ({told.get('outcome', 'no outcome')}): no champion to judge against")


def trained(base: tuple[str, ...], further: tuple[str, ...], recipe: str = "loop") -> str:
    """The folder of a checkpoint of the recipe, trained where it is missing."""
    code, told = called(("train", recipe, *sets((*base, *further))))
    if code:
        raise SystemExit(f"training with {further} ended with {code}")
    return str(told["checkpoint"])


def judged(case: Case, folders: dict[str, str]) -> dict[str, Any]:
    """What the gate said of a case."""
    began = time.monotonic()
    code, told = called(case.words)
    verdict = Path(told.get("gate") or told["verdict"]).read_text(encoding="utf-8")  # of `run`, of `study run`
    return {
        "wanted": case.wanted,
        "outcome": told.get("outcome", ""),
        "exit_code": code,
        "why": case.why,
        "command": case.shown,
        "trials": told.get("trials"),
        "wall_s": round(time.monotonic() - began),
        "criteria": [line for line in named(verdict, folders).splitlines() if line.startswith(("| ", "- "))],
    }


def named(text: str, folders: dict[str, str]) -> str:
    """Names in place of folders."""
    return reduce(lambda told, name: told.replace(folders[name], name), folders, text)


def called(words: tuple[str, ...]) -> tuple[int, dict[str, Any]]:
    """A command's exit code, and its result line."""
    done = subprocess.run([sys.executable, "-m", "flows.commands.main", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}


def environment() -> dict[str, Any]:
    """What decides the figures."""
    packages = {name: version(name) for name in ("metaworld", "mujoco", "torch", "numpy")}
    return {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(), **packages}


if __name__ == "__main__":
    sys.exit(main())
