"""A thousand simulated cells and one real controller: signed reports over its HTTP API, a good release, a bad one, kills, its latency.

Run: python -m tests.scale.fleet_controller [--cells 1000] [--kills 3] [--real-s 60]     writes benchmarks/results/fleet_controller.json
(--real-s 0: on virtual time alone, whatever else the machine does; writes fleet_controller_rollouts.json there)

The controller is a process of its own on a SQLite file. Each cell has a key, runs episodes at given success rates, reports each of them,
loses answers, falls silent for some rounds, and may have a clock that is two hours off. Version 2, as good as version 1, is rolled out to
all cells; version 3, 20 points worse, is rolled back (--real-only leaves both out). In the first rounds the controller is killed with
SIGKILL in the midst of the reports. Then reports arrive in real time, on a schedule, in a running rollout.

What is checked, in the database and not by the controller: every episode of every cell is there exactly once, the blocks hold the episodes
that are marked with them, the kept sums are those of the episodes, and no cell ran anything but what it was offered.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.fleet_simulation import STARTED_S, V1, V2, V3, Clock, Simulation, stages
from tests.scale.gate_outcomes import ROOT

RESULT = ROOT / "benchmarks" / "results" / "fleet_controller.json"
ON_VIRTUAL_TIME = RESULT.with_name("fleet_controller_rollouts.json")
THREADS, PER_S = 16, 100
_EVENTS = ("interventions", "clips", "holds", "deadline_misses", "refusals")
_KEPT = ", ".join(("episodes", "trials", "successes", *_EVENTS))
_SUMS = ", ".join(
    ("count(*)", "count(success)", "sum(coalesce(success, 0))", *(f"sum(case when {name} > 0 then 1 else 0 end)" for name in _EVENTS))
)


def serve(folder: Path, port: int) -> None:
    """The controller's process: the real one, but for its clock."""
    import uvicorn

    from model_core.spec.fleet.signatures import read_private
    from serving.fleet.controller.__main__ import settle_memory
    from serving.fleet.controller.app import create_app
    from serving.fleet.controller.service import Controller
    from serving.fleet.controller.store.database import Database

    database, key = Database(f"sqlite:///{folder / 'fleet.db'}"), read_private(folder / "controller.pem")
    controller = Controller(database, key, clock=Clock(folder / "clock"), report_every_s=600.0)
    settle_memory()
    uvicorn.run(create_app(controller, None, look_every_s=0.5), host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=600)


def run(cells: int, folder: Path, *, kills: int, real_s: float, real_only: bool = False, seed: int = 7) -> dict[str, Any]:
    """The whole simulation; raises `AssertionError` where something was lost, counted twice, or ran what it must not."""
    simulation = Simulation(cells, folder, seed)
    service = simulation.service
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            begun = time.perf_counter()
            simulation.settle(pool, V1)
            done = {} if real_only else both_rollouts(simulation, pool, kills)
            rate = simulation.reports / (time.perf_counter() - begun)
        simulation.offer(V3)
        real_time = on_schedule(simulation, real_s) if real_s else {}
    finally:
        service.end()
    return {
        "cells": cells,
        "virtual_days": round((simulation.clock() - STARTED_S) / 86_400.0, 2),
        "reports": simulation.reports,
        "answers_lost": simulation.unanswered,
        "controller_killed": service.kills,
        "reports_per_s_of_the_simulation": round(rate),
        **done,
        "real_time": real_time,
        "peak_memory_bytes": service.peak_bytes,
        **checked(folder / "fleet.db", simulation),
    }


def both_rollouts(simulation: Simulation, pool: Executor, kills: int) -> dict[str, Any]:
    """A good release reaches every cell, a bad one is rolled back. Raises `AssertionError` where they do not."""
    good = simulation.rollout_of(V2, pool, kills=kills)
    good["rounds_to_all_after_it"] = simulation.settle(pool, V2)
    bad = simulation.rollout_of(V3, pool)
    simulation.settle(pool, V2)
    assert (good["status"], bad["status"]) == ("passed", "rolled back"), (good, bad)
    assert simulation.seen == {V1, V2, V3}
    return {"good_release": good, "bad_release": bad}


def on_schedule(simulation: Simulation, seconds: float) -> dict[str, Any]:
    """Reports at fixed moments, whatever the answers take, in a rollout that goes on. Latency is measured from the planned moment on, or
    from when one of our own threads was free."""
    late: list[float] = []
    plan = {"name": "again-3", "release": V3, "rollback_alpha": 1e-9, "stages": [{**stages()[0], "minimum_episodes": 10**6}]}
    simulation.service.order("/v1/rollouts", {"plan": plan})

    def send(number: int, due: float, message: bytes) -> None:
        cell = simulation.cells[number % len(simulation.cells)]
        begun = max(due, time.perf_counter() - 0.002)
        status, content = simulation.service.ask("POST", f"/v1/cells/{cell.name}/report", message)
        late.append((time.perf_counter() - begun) * 1e3)
        assert status == 200
        cell.answered(content, simulation.controller_key)

    processor_s, load = simulation.service.processor_s, os.getloadavg()[0]
    with ThreadPoolExecutor(THREADS) as pool:
        start, sent = time.perf_counter(), []
        for number in range(int(PER_S * seconds)):
            cell = simulation.cells[number % len(simulation.cells)]
            simulation.clock.set(simulation.clock() + 1.0 / PER_S)
            cell.episode(simulation.clock(), simulation.rng, lasts_s=0.005)
            message = cell.report(simulation.clock())
            due = start + number / PER_S
            time.sleep(max(0.0, due - time.perf_counter()))
            sent.append(pool.submit(send, number, due, message))
        for one in sent:
            one.result()
    took_s, used_s = time.perf_counter() - start, simulation.service.processor_s - processor_s
    return {
        "reports_per_s": round(len(late) / took_s, 1),
        "seconds": round(took_s),
        **{f"p{share}_ms": round(float(np.quantile(late, share / 100)), 1) for share in (50, 95, 99)},
        "max_ms": round(max(late), 1),
        "processor_ms_per_report": round(used_s * 1e3 / len(late), 2),
        "processor_share_of_one_core": round(used_s / took_s, 3),
        "load_average_before": round(load, 1),
    }


def checked(path: Path, simulation: Simulation) -> dict[str, int]:
    """What the database holds, beside what the cells did. Raises `AssertionError` where they differ."""
    with sqlite3.connect(path) as db:
        counts = dict(db.execute("select cell, count(*) from actwright_fleet_episodes group by cell order by cell").fetchall())
        ran = {row[0] for row in db.execute("select distinct release from actwright_fleet_episodes")}
        assert_consistent(lambda query: [tuple(row) for row in db.execute(query)])
    for cell in simulation.cells:
        acknowledged = cell.number - len(cell.waiting)
        assert acknowledged <= counts[cell.name] <= cell.number, f"episodes of {cell.name} were lost, or counted twice"
    assert simulation.seen <= ran <= {V1, V2, V3}
    return {"episodes": sum(counts.values()), "episodes_lost": 0, "episodes_counted_twice": 0}


def assert_consistent(rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
    """The blocks hold the episodes that are marked with them, and the kept sums are those of the episodes. rows: those of a query."""
    episodes = "from actwright_fleet_episodes"
    marked = rows(f"select rollout, block, count(*), sum(success) {episodes} where block is not null group by 1, 2 order by 1, 2")
    totals = "new_trials + old_trials, new_successes + old_successes"
    assert marked == rows(f"select rollout, number, {totals} from actwright_fleet_blocks order by 1, 2"), "blocks and episodes differ"
    counted = rows(f"select coalesce(rollout, 0), release, task, site, {_SUMS} {episodes} group by 1, 2, 3, 4 order by 1, 2, 3, 4")
    kept = rows(f"select rollout, release, task, site, {_KEPT} from actwright_fleet_tallies order by 1, 2, 3, 4")
    assert counted == kept, "the kept sums are not those of the episodes"


def measured(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks.measuring import conditions

    started, load = time.perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="fleet-controller-") as folder:
        found = run(options.cells, Path(folder), kills=options.kills, real_s=options.real_s, real_only=options.real_only)
    return {**found, **conditions(load, started)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=3, help="of the controller, in the first rollout")
    parser.add_argument("--real-s", type=float, default=60.0, help="seconds of reports in real time, 0 for none")
    parser.add_argument("--real-only", action="store_true", help="no rollouts to their ends, only the reports in real time")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
        return
    result = measured(options)
    (RESULT if options.real_s else ON_VIRTUAL_TIME).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
