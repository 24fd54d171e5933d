"""vla-eval's LIBERO against our service, and our own suite on the same initial states: the same observations, decisions and ends.

Both sides run under one environment, so with the same mujoco and robosuite. vla-eval seeds its generator once for each task and our suite
before every reset, so where furniture is placed at random (libero_spatial) only the first state of a task is laid out alike.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).parent / "clients" / "vla_eval_libero.py"
SUITES = {"libero_object": [2, 1], "libero_spatial": [2, 1]}  # suite -> tasks, initial states of each
MAX_STEPS = 32  # of 280 and 220: four decisions an episode say as much about agreement, and images take most of the time
OpenService = Callable[..., AbstractContextManager[str]]


def checks(python: Path, open_service: OpenService) -> Iterator[dict[str, Any]]:
    """Every check. open_service: as `tests.conformance.run.service`, with further options."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        policy, logs = folder / "policy", {side: folder / f"{side}.jsonl" for side in ("theirs", "ours")}
        _run([python, "-m", "tests.conformance.libero_side", "make", policy, json.dumps(SUITES)], ours=True)
        with open_service("vla-eval", "--checkpoint", str(policy), "--log", str(logs["theirs"])) as address:
            told = _run([python, CLIENT, address, MAX_STEPS, json.dumps(SUITES)], ours=False)
        theirs = list(episodes_of([json.loads(line) for line in told.splitlines() if line.startswith('{"suite"')]))
        side = [python, "-m", "tests.conformance.libero_side", "run", policy, json.dumps(SUITES), MAX_STEPS, logs["ours"]]
        told = _run(side, ours=True)
        ours = [json.loads(line) for line in told.splitlines() if line.startswith('{"suite"')]
        decisions = {side: [json.loads(line) for line in log.read_text().splitlines()] for side, log in logs.items()}
    yield from compared(theirs, ours, decisions["theirs"], decisions["ours"])


def episodes_of(results: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every episode that vla-eval tells of."""
    for one in results:
        for task in one["result"]["tasks"]:
            for episode in task["episodes"]:
                yield {
                    "suite": one["suite"],
                    "instruction": task["task"],
                    "success": bool(episode["metrics"].get("success")),
                    "steps": episode.get("steps"),
                    "failure": episode.get("failure_reason") or "",
                }


def compared(
    theirs: Sequence[Mapping[str, Any]],
    ours: Sequence[Mapping[str, Any]],
    answered: Sequence[Mapping[str, Any]],
    decided: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """theirs, ours: episodes in order; answered, decided: decisions of the service and of our closed loop, in order."""
    asked = {str(episode["instruction"]) for episode in ours}
    answered = [one for one in answered if one["instruction"] in asked]  # without what the service asks itself when it starts
    expected = sum(tasks * states for tasks, states in SUITES.values())
    failed = [episode for episode in theirs if episode["failure"]]
    yield _check("vla-eval runs LIBERO to its end", len(theirs) == expected and not failed, f"{len(theirs)} episodes, failed: {failed[:2]}")
    refused = sum(bool(one["refusal"]) for one in answered)
    yield _check("every observation is answered", bool(answered) and not refused, f"{len(answered)} decisions, {refused} refused")
    actions = {one["actions"] for one in answered}
    yield _check("the policy acts on what it sees", len(actions) > 1, f"{len(actions)} different chunks of {len(answered)}")
    equal = {name: sum(a[name] == b[name] for a, b in zip(answered, decided, strict=False)) for name in ("images", "state", "actions")}
    all_equal = len(answered) == len(decided) and set(equal.values()) == {len(answered)}
    yield _check(
        "our suite on the same states: equal images, states and actions, decision by decision",
        all_equal,
        f"{len(answered)} decisions here and {len(decided)} there; equal: {equal}",
    )
    ends = [(one["instruction"], one["success"], one["steps"]) for one in ours]
    alike = sum(mine == (one["instruction"], one["success"], one["steps"]) for mine, one in zip(ends, theirs, strict=False))
    yield _check("the same end of every episode", alike == len(ends) == len(theirs), f"{alike} of {len(theirs)}")


def _check(name: str, passed: bool, detail: str) -> dict[str, Any]:
    return {"check": name, "passed": passed, "detail": detail}


def _run(command: Sequence[object], *, ours: bool) -> str:
    """The output of a command in the shared environment. ours: our code is imported there too."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ACTWRIGHT"))} | {"MUJOCO_GL": "osmesa"}
    settings |= {"PYTHONPATH": str(ROOT)} if ours else {}
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=3_000, check=False, env=settings
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[1:4]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
