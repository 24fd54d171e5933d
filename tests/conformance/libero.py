"""vla-eval's LIBERO against our service, and our own suite on the same initial states: the same observations, decisions and ends.

Both sides run under one environment, so with the same mujoco and robosuite, and draw from a generator that is seeded once for each task,
as vla-eval seeds it (`libero_side.one_generator`). Our suite alone seeds it before every reset.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
OpenService = Callable[..., AbstractContextManager[str]]
Suites = Mapping[str, Mapping[str, Any]]  # suite -> the sentences of its tasks, how many initial states of each
CLIENT = Path(__file__).parent / "clients" / "vla_eval_libero.py"
SUITES: Suites = {
    "libero_object": {
        "instructions": ["pick up the alphabet soup and place it in the basket", "pick up the cream cheese and place it in the basket"],
        "states": 1,
    },
    "libero_spatial": {
        "instructions": [
            "pick up the black bowl between the plate and the ramekin and place it on the plate",
            "pick up the black bowl next to the ramekin and place it on the plate",
        ],
        "states": 1,
    },
}
MAX_STEPS = 32  # of 280 and 220: images take most of the time
ONE_BY_ONE: Suites = {"libero_object": SUITES["libero_object"]}
OBSERVATIONS = 500  # common ones: a decision at every control step of two episodes


def checks(python: Path, open_service: OpenService) -> Iterator[dict[str, Any]]:
    """Every check. open_service: as `tests.conformance.run.service`, with further options."""
    with TemporaryDirectory() as place:
        policy = Path(place) / "policy"
        _run([python, "-m", "tests.conformance.libero_side", "make", policy, json.dumps(SUITES), 8], ours=True)
        yield from compared(both_sides(python, open_service, policy, SUITES, MAX_STEPS), SUITES)
    with TemporaryDirectory() as place:
        policy = Path(place) / "policy"
        _run([python, "-m", "tests.conformance.libero_side", "make", policy, json.dumps(ONE_BY_ONE), 1], ours=True)
        sides = both_sides(python, open_service, policy, ONE_BY_ONE, OBSERVATIONS // 2)
    yield sides.same_decisions("asked at every control step: equal images, states and actions", at_least=OBSERVATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What came out. theirs, ours: episodes in order; answered, decided: decisions of the service and of our closed loop, in order."""

    theirs: Sequence[Mapping[str, Any]]
    ours: Sequence[Mapping[str, Any]]
    answered: Sequence[Mapping[str, Any]]
    decided: Sequence[Mapping[str, Any]]

    def same_decisions(self, name: str, *, at_least: int) -> dict[str, Any]:
        """Whether images, states and actions are equal, decision by decision."""
        pairs = list(zip(self.answered, self.decided, strict=False))
        equal = {part: sum(a[part] == b[part] for a, b in pairs) for part in ("images", "state", "actions")}
        there, here = len(self.answered), len(self.decided)
        passed = there == here >= at_least and set(equal.values()) == {there}
        return _check(name, passed, f"{there} decisions of the service and {here} of our suite; equal: {equal}")

    def same_ends(self) -> dict[str, Any]:
        """Whether every episode ends alike, after as many steps."""
        ends = [(one["instruction"], one["success"], one["steps"]) for one in self.ours]
        alike = sum(mine == (one["instruction"], one["success"], one["steps"]) for mine, one in zip(ends, self.theirs, strict=False))
        return _check("the same end of every episode", alike == len(ends) == len(self.theirs), f"{alike} of {len(self.theirs)}")


def both_sides(python: Path, open_service: OpenService, policy: Path, suites: Suites, max_steps: int) -> Sides:
    """vla-eval against a service of this checkpoint, and our suite with the checkpoint, on the same initial states."""
    with TemporaryDirectory() as place:
        logs = {side: Path(place) / f"{side}.jsonl" for side in ("theirs", "ours")}
        side = [python, "-m", "tests.conformance.libero_side", "run", policy, json.dumps(suites), max_steps, logs["ours"]]
        with open_service("vla-eval", "--checkpoint", str(policy), "--log", str(logs["theirs"])) as address, ThreadPoolExecutor() as pool:
            client = pool.submit(_run, [python, CLIENT, address, max_steps, json.dumps(suites)], ours=False)
            ours = _rows(_run(side, ours=True))
            theirs = list(episodes_of(_rows(client.result())))
        answered, decided = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs.values())
    asked = {sentence for chosen in suites.values() for sentence in chosen["instructions"]}
    answered = [one for one in answered if one["instruction"] in asked]  # without what the service asks itself when it starts
    return Sides(theirs=theirs, ours=ours, answered=answered, decided=decided)


def _rows(told: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.splitlines() if line.startswith('{"suite"')]


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


def compared(sides: Sides, suites: Suites) -> Iterator[dict[str, Any]]:
    """The checks of both sides on the same initial states."""
    expected = sum(len(chosen["instructions"]) * chosen["states"] for chosen in suites.values())
    failed = [episode for episode in sides.theirs if episode["failure"]]
    detail = f"{len(sides.theirs)} episodes, failed: {failed[:2]}"
    yield _check("vla-eval runs LIBERO to its end", len(sides.theirs) == expected and not failed, detail)
    answered = sides.answered
    refused = sum(bool(one["refusal"]) for one in answered)
    yield _check("every observation is answered", bool(answered) and not refused, f"{len(answered)} decisions, {refused} refused")
    actions = {one["actions"] for one in answered}
    yield _check("the policy acts on what it sees", len(actions) > 1, f"{len(actions)} different chunks of {len(answered)}")
    yield sides.same_decisions("our suite on the same states: equal images, states and actions, decision by decision", at_least=expected)
    yield sides.same_ends()


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
