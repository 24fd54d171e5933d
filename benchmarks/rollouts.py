"""Simulated rollouts through the controller's own rules: how soon a worse version is rolled back, how often an equal one passes.

A fleet of 40 cells, two sites, two tasks; the old version succeeds in 80 % of the episodes. A success lasts about one unit of time, a
failure twice as long, so the order of ends depends on outcomes as it does on robots. The plan: one cell (50 episodes), a quarter of the
fleet (50), three quarters with a proof that the new version is not worse by 10 points (alpha 0.05, at most 3,000 episodes).

The peer is a fixed window: the canary cell's first 50 episodes, and the old version comes back if their success rate is below 80 % by the
margin (or more than the margin). It takes 50 episodes whatever happens. Both are compared on the same episodes at the peer's own rate of
false rollbacks, by moving the threshold of the sequential test; a rollout that was not rolled back within the window counts as 50.

Run: python benchmarks/rollouts.py [--rollouts 1000]     writes benchmarks/results/rollouts.json
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, written  # noqa: E402
from model_core.spec.fleet.rollout_plan import ProofRequired, RolloutPlan, Stage  # noqa: E402
from serving.fleet.controller.rollout.cohorts import CellView  # noqa: E402
from serving.fleet.controller.rollout.evidence import Tally, before_evidence, closed_blocks, with_blocks  # noqa: E402
from serving.fleet.controller.rollout.machine import Surroundings, advance  # noqa: E402
from serving.fleet.controller.rollout.state import RolloutState, Status, assignments  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "rollouts.json"
CELLS, RATE, MARGIN, WINDOW, BEFORE = 40, 0.8, 0.1, 50, 20.0
LONGEST = 2.4  # units of time of the longest episode
NEW, OLD = "a" * 64, "b" * 64
PLAN = RolloutPlan(
    name="simulated",
    release=NEW,
    stages=(
        Stage(name="one cell", cells=1, minimum_episodes=WINDOW),
        Stage(name="cohort", share=0.25, minimum_episodes=50),
        Stage(name="fleet", share=0.75, hold_out=0.25, minimum_episodes=50, proof=ProofRequired(margin=MARGIN, maximum_episodes=3_000)),
    ),
)

NEVER = replace(PLAN, rollback_alpha=1e-12)  # nothing is rolled back by the test


class Fleet:
    """Cells that run episodes one after the other; a new release takes effect when the running episode has ended."""

    def __init__(self, seed, difference, cells=CELLS):
        self.rng = np.random.default_rng(seed)
        self.rate = {NEW: RATE + difference, OLD: RATE}
        self.views = [CellView(name=f"cell-{n}", site=("lab", "plant")[n % 2]) for n in range(cells)]
        self.wanted = dict.fromkeys((view.name for view in self.views), OLD)
        self.running = {view.name: (0.0, 0.0, OLD, True, "") for view in self.views}  # ends at, begun at, release, success, stratum
        self.number = 0

    def ended(self, now):
        """(begun, release, success, stratum) of every episode that ended until `now`, in the order of ends."""
        done = []
        for view in self.views:
            while self.running[view.name][0] <= now:
                ends, *rest = self.running[view.name]
                if rest[-1]:
                    done.append((ends, *rest))
                self.running[view.name] = self._begun(view, ends)
        return [row[1:] for row in sorted(done, key=lambda row: row[0])]

    def _begun(self, view, now):
        self.number += 1
        release = self.wanted[view.name]
        success = bool(self.rng.random() < self.rate[release])
        lasts = self.rng.uniform(0.8, 1.2) * (1.0 if success else 2.0)
        return now + lasts, now, release, success, f"{('pick', 'place')[self.number % 2]}@{view.site}"


def rollout(seed, difference, plan=PLAN, stop_after=None):
    """One rollout to its end: status, stage, episodes of the new version, its outcomes, and the evidence of "worse" after each of them.

    stop_after: end when so many episodes of the new version have finished.
    """
    fleet, pending, path, outcomes, waiting = Fleet(seed, difference), {}, [], [], []
    for _, _, success, stratum in fleet.ended(now := BEFORE):
        add(pending, stratum, "old", success)
    evidence, pending = before_evidence(plan, {stratum: sides["old"] for stratum, sides in pending.items()}), {}
    state = RolloutState(started_at_s=now, stage_since_s=now)
    while state.status.is_open and len(outcomes) < (stop_after or math.inf):
        now += 1.0
        ended = fleet.ended(now)
        outcomes += [success for _, release, success, _ in ended if release == NEW]
        waiting += [episode for episode in ended if episode[0] >= BEFORE]
        for _, release, success, stratum in (episode for episode in waiting if episode[0] <= now - LONGEST):
            add(pending, stratum, "new" if release == NEW else "old", success)
        waiting = [episode for episode in waiting if episode[0] > now - LONGEST]
        blocks = closed_blocks(pending)
        for block in blocks:
            del pending[block.stratum]
        evidence = replace(with_blocks(evidence, blocks), finished=len(outcomes))
        path += [evidence.worse.best] * (len(outcomes) - len(path))
        state = advance(plan, state, evidence, Surroundings(cells=fleet.views, now_s=now, salt=str(seed)))
        fleet.wanted.update({name: one.release for name, one in assignments(plan, OLD, state, fleet.views).items()})
    return {"status": state.status, "stage": state.stage, "episodes": len(outcomes), "path": path, "outcomes": outcomes}


def add(pending, stratum, side, success):
    sides = pending.setdefault(stratum, {})
    sides[side] = sides.get(side, Tally()).plus(Tally(successes=int(success), trials=1))


def canary(rollouts):
    """The one canary cell, sequential and by the window, on the same episodes; nothing is rolled back, so every threshold can be read."""
    plan = replace(NEVER, stages=(Stage(name="one cell", cells=1, minimum_episodes=10 * WINDOW),))
    runs = {d: [rollout(seed + offset, d, plan, WINDOW) for seed in range(rollouts)] for d, offset in ((0.0, 0), (-0.2, 10**6))}
    paths = {d: np.array([run["path"][:WINDOW] for run in found]) for d, found in runs.items()}
    won = {d: np.array([sum(run["outcomes"][:WINDOW]) for run in found]) for d, found in runs.items()}
    table = []
    for rule, most in (("more than 10 points below", 34), ("10 points or more below", 35)):
        false = float((won[0.0] <= most).mean())
        tops = np.sort(paths[0.0].max(axis=1))[::-1]
        threshold = float(np.nextafter(tops[min(int(false * rollouts), rollouts - 1)], np.inf))
        table.append(
            {
                "window": {"rule": rule, "false_rollbacks": false, "worse_found": float((won[-0.2] <= most).mean()), "episodes": WINDOW},
                "sequential": at(threshold, paths),
            }
        )
    return {"beside_the_window": table, "at_the_default": at(math.log(1.0 / PLAN.rollback_alpha), paths)}


def at(threshold, paths):
    crossed = paths[-0.2] >= threshold
    after = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, WINDOW)
    return {
        "alpha": round(math.exp(-threshold), 4),
        "false_rollbacks": float((paths[0.0] >= threshold).any(axis=1).mean()),
        "worse_found": float(crossed.any(axis=1).mean()),
        "mean_episodes": float(after.mean()),
        "median_episodes": float(np.median(after)),
        "mean_episodes_of_those_found": float(after[crossed.any(axis=1)].mean()),
    }


def least_mean(false):
    """Mean episodes that any test of one canary needs at this rate of false rollbacks, where the old rate is known exactly: by backward
    induction over all stopping rules of at most WINDOW episodes, for 60 against 80 %."""
    best = None
    low, high = 1.0, 5_000.0
    for _ in range(40):
        price = math.sqrt(low * high)
        rate, mean = stopping_rule(price)
        if rate > false:
            low = price
        else:
            high, best = price, mean
    return best


def stopping_rule(price, better=RATE, worse=RATE - 0.2):
    value, stops = np.zeros((WINDOW + 1, WINDOW + 2)), np.zeros((WINDOW + 1, WINDOW + 1), bool)
    for n in range(WINDOW - 1, 0, -1):
        x = np.arange(n + 1)
        goes_on = 1.0 + worse * value[n + 1, x + 1] + (1.0 - worse) * value[n + 1, x]
        stop = price * (better / worse) ** x * ((1.0 - better) / (1.0 - worse)) ** (n - x)
        value[n, x], stops[n, x] = np.minimum(stop, goes_on), stop < goes_on
    found = []
    for rate in (better, worse):
        alive, stopped, mean = np.array([1.0]), 0.0, 0.0
        for n in range(1, WINDOW + 1):
            alive = np.append(alive * (1.0 - rate), 0.0) + np.append(0.0, alive * rate)
            ends = stops[n, : n + 1] if n < WINDOW else np.ones(n + 1, bool)
            mean += n * alive[ends].sum()
            stopped += alive[ends].sum() if n < WINDOW else 0.0
            alive = np.where(ends, 0.0, alive)
        found.append((stopped, mean))
    return found[0][0], found[1][1]


def whole(rollouts):
    """Whole rollouts: equal versions without a rollback, so that the share that passes is read at any alpha; worse ones by the rules."""
    equal = [rollout(seed + 2 * 10**6, 0.0, NEVER) for seed in range(rollouts)]
    passed = np.array([run["status"] is Status.PASSED for run in equal])
    top, episodes = np.array([max(run["path"]) for run in equal]), np.array([run["episodes"] for run in equal])
    worse = [rollout(seed + 3 * 10**6, -0.2) for seed in range(rollouts // 5)]
    back = np.array([run["status"] is Status.ROLLED_BACK for run in worse])
    needed = np.array([run["episodes"] for run in worse])
    return {
        "equal": {
            "rollouts": rollouts,
            "passed": {f"{alpha:g}": float((passed & (top < math.log(1.0 / alpha))).mean()) for alpha in (0.02, 0.05, 0.07, 0.1)},
            "episodes_of_the_new_version": {"median": float(np.median(episodes)), "95_percent": float(np.quantile(episodes, 0.95))},
        },
        "20_points_worse": {
            "rollouts": len(worse),
            "rolled_back": float(back.mean()),
            "in_the_one_cell": float(np.mean([run["stage"] == 0 for run in worse])),
            "episodes_of_the_new_version": {"mean": float(needed.mean()), "median": float(np.median(needed))},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1_000)
    options = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()
    beside = canary(options.rollouts)
    for row in beside["beside_the_window"]:
        row["least_mean_of_any_test"] = round(least_mean(row["sequential"]["false_rollbacks"]), 1)
    result = {
        "base_rate": RATE,
        "margin": MARGIN,
        "cap_episodes": 3_000,
        "default_rollback_alpha": PLAN.rollback_alpha,
        "canary": beside,
        "rollouts": whole(options.rollouts),
        **conditions(load, started),
    }
    written(result, RESULT)


if __name__ == "__main__":
    main()
