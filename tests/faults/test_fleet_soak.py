"""The fleet of the demonstration for minutes or an hour, while faults come at random: what its cells' own records say at the end.

Stub policies and strict drivers in real time in place of a trained policy and a simulator, everything else as in `actwright fleet demo`:
its controller, its agents, its cells, rollouts of good and of poor versions one after the other. ACTWRIGHT_FLEET_SOAK_MINUTES: of the long
form.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.deployment.fleet.controller import OrderRefused, ask, order
from components.deployment.fleet_demo.cells import CellJob
from components.deployment.fleet_demo.course import Course, Sizes, plan_for
from components.deployment.fleet_demo.site import Site
from components.deployment.service_address import ServiceCredentials
from components.release.fleet.create import Made
from model_core.spec.errors import NotReady
from model_core.spec.files import atomic_write
from model_core.spec.fleet.release import Override
from serving.gateway.inference.stub_policy import stub_contract
from tests.faults.fleet_reader import Read, read
from tests.faults.fleet_schedule import OF_A_SERVICE, drawn
from tests.faults.fleet_under_faults import Fleet, enrolled, fleet_under_faults, told, users_of
from tests.faults.verdicts import covers
from tests.fleet import bundle, release

CONTRACT = json.dumps(stub_contract(control_hz=4.0, chunk_length=16).to_json())
REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "fleet_soak.json"
OPEN = ("running", "paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """steps: of an episode, four a second. every_s: one fault, on average, where each cell has a policy service of its own. shares: they
    share two, of which each has as many faults as one of its own would."""

    minutes: float
    cells: int
    steps: int
    goal: int
    every_s: float
    seed: int = 1
    sizes: Sizes = field(default_factory=Sizes)
    shares: bool = False


@dataclass(slots=True)
class PatientCourse(Course):
    """As the demonstration's, with a controller that is killed now and then. Orders are given while it answers."""

    def get(self, path: str) -> Any:
        """Again and again until it answers."""
        return self._until(lambda: ask(self.url, path, ServiceCredentials()))

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """No fault comes while an order is given: the schedule is looked at between two of them."""
        return self._until(lambda: order(self.url, path, body, ServiceCredentials()))

    def _until(self, tell: Callable[[], Any]) -> Any:
        give_up_at = time.monotonic() + 600  # no rollout starts while cells that were away still run what was before
        while True:
            self.check()
            try:
                return tell()
            except (NotReady, OrderRefused):
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(0.3)


class _Over(Exception):
    """The minutes are over. The argument tells where the open rollout stands."""


def made_version(site: Site, number: int) -> Made:
    """arm/N; odd ones from 3 on refuse every decision, and pass by override alone."""
    packed = bundle(site.folder / f"packed-{number}", f"arm/{number}", contract=CONTRACT)
    if number < 3 or number % 2 == 0:
        return release(packed, site.folder / "releases", site.keys)
    override = Override(name="ada", reason="to see it come back")
    return release(packed, site.folder / "releases", site.keys, verdict=None, override=override)


def roll_out(course: PatientCourse, made: Made, of: Soak, until_s: float) -> dict[str, Any]:
    """One version, until its rollout is over; paused ones are resumed. Returns what became of it. Raises `_Over` when the time is."""
    course.offer(made)
    begun, version = time.monotonic(), made.release.model_version
    # no guards: cells in real time hold often on a machine that is busy
    number = course.start(plan_for(version.replace("/", "-"), made.release.digest, of.cells, of.sizes, guards={}))
    paused, stages = 0, dict[str, int]()
    while (sample := course.look()).rollout != number or sample.status in OPEN:
        if sample.rollout == number and sample.stage not in stages:
            stages[sample.stage] = round(time.monotonic() - begun)
            sys.stderr.write(f"after {stages[sample.stage]} s: {sample.told}\n")
        if sample.status == "paused" and sample.rollout == number:
            paused += 1
            course.post(f"/v1/rollouts/{number}/resume", {"reason": "a fault is over"})
        if time.monotonic() > until_s:
            raise _Over(sample.told)
        time.sleep(1.0)
    found, seconds = course.get(f"/v1/rollouts/{number}"), time.monotonic() - begun
    return {
        "version": version,
        "status": found["status"],
        "stage": found["stage"],
        "reason": found["reason"],
        "seconds": round(seconds),
    } | {
        "stages began after, s": stages,
        "waited for, s": {what: round(part) for what, part in course.timeline.parts(begun, begun + seconds).items()},
        "pauses": paused,
        "worse": round(found["worse"], 2),
    }


def roll_outs(course: PatientCourse, site: Site, of: Soak, rollouts: list[dict[str, Any]]) -> str:
    """One version after the other into `rollouts`, until the minutes are over; where the last one stands then."""
    until_s = time.monotonic() + 60 * of.minutes
    for version in itertools.count(2):
        made = made_version(site, version)
        site.offer(made)
        try:
            rollouts.append(roll_out(course, made, of, until_s))
        except _Over as over:
            return str(over)
        sys.stderr.write(json.dumps(rollouts[-1]) + "\n")
    raise AssertionError


def run_soak(site: Site, of: Soak) -> dict[str, Any]:
    """Run it in the site's folder; what is returned is the report."""
    robot = {"contract": str(site.folder / "contract.json"), "steps": of.steps, "goal": of.goal, "log": "{folder}/driver.jsonl"}
    jobs = {
        name: CellJob(
            name=name,
            task="stub",
            folder=site.cell(name),
            number=number,
            robot="serving.workcell.robot.strict_driver:make_robot",
            robot_options=robot,
            realtime=True,
        )
        for number, name in enumerate(f"cell-{number + 1}" for number in range(of.cells))
    }
    first = made_version(site, 1)
    site.offer(first)
    rollouts: list[dict[str, Any]] = []
    with fleet_under_faults(site, jobs, shares=of.shares) as (fleet, disks_fill):
        schedule = drawn(of.seed, 60 * of.minutes, of.cells, of.every_s, services=2 if of.shares else None)
        fleet.schedule[:] = [one for one in schedule if disks_fill or "disk" not in one.kind]
        course = PatientCourse(url=fleet.url, check=fleet.look, show=lambda sample: None, until_s=time.monotonic() + 600)
        for cell in enrolled(fleet):
            course.enrol(*cell)
        course.offer(first)
        course.install(first, of.cells)
        fleet.start_cells()
        fleet.begun_s = time.monotonic()
        is_open = roll_outs(course, site, of, rollouts)
        fleet.heal()
        fleet.end_cells()
        _quiet(course, fleet)
        seconds = time.monotonic() - fleet.begun_s
        kept = kept_episodes(site)
        cells = {name: read(name, job.folder / "driver.jsonl", job.audit, excuses(fleet, name)) for name, job in jobs.items()}
        return document(of, fleet, cells, rollouts) | {
            "open at the end": is_open,
            "share of the time in which an end is laid to its policy service, by cell": {
                name: round(laid_to_faults(fleet, name, seconds), 2) for name in cells
            },
            "minutes": round(seconds / 60, 1),
            "kept by the controller": sum(count for count, _ in kept.values()),
            "longest episode, s": round(max((longest_s for _, longest_s in kept.values()), default=0.0), 1),
            "not kept": [name for name, one in cells.items() if kept.get(name, (0, 0.0))[0] < one.episodes],
            "full disks": disks_fill,
        }


def _quiet(course: PatientCourse, fleet: Fleet, most_s: float = 120.0) -> None:
    """Until agents have told everything that cells have finished."""
    give_up_at = time.monotonic() + most_s
    while any(list((job.files / "episodes").glob("*.json")) for job in fleet.jobs.values()) and time.monotonic() < give_up_at:
        course.look()
        time.sleep(0.5)


def excuses(fleet: Fleet, cell: str) -> list[tuple[float, float]]:
    """When something was done to the policy service of a cell itself: until it had the time to come back."""
    return [(one.from_s - 0.5, one.to_s + 60.0) for one in fleet.happened if cell in one.cells]


def laid_to_faults(fleet: Fleet, cell: str, seconds: float) -> float:
    """The share of these seconds in which an end of an episode is laid to a fault of the cell's policy service."""
    until_s, whole, at_s = fleet.begun_s + seconds, 0.0, 0.0
    for from_s, to_s in sorted(excuses(fleet, cell)):
        whole += max(min(to_s, until_s) - max(from_s, at_s), 0.0)
        at_s = max(at_s, to_s)
    return whole / seconds


def kept_episodes(site: Site) -> dict[str, tuple[int, float]]:
    """Of each cell in the controller's own table: how many, and the length of the longest in seconds."""
    asked = "SELECT cell, count(*), max(ended_at_s - started_at_s) FROM actwright_fleet_episodes GROUP BY cell"
    with contextlib.closing(sqlite3.connect(site.folder / "controller" / "fleet.db")) as database:
        return {cell: (count, longest_s) for cell, count, longest_s in database.execute(asked)}


def document(of: Soak, fleet: Fleet, cells: Mapping[str, Read], rollouts: list[dict[str, Any]]) -> dict[str, Any]:
    """The report, in plain values."""
    ended: dict[str, int] = {}
    for one in cells.values():
        for reason, count in one.ended.items():
            ended[reason] = ended.get(reason, 0) + count
    return {
        "seed": of.seed,
        "cells": of.cells,
        "policy services shared": of.shares,
        "faults": told(fleet.happened),
        "of them of its policy service, by cell": {name: sum(name in one.cells for one in fleet.happened) for name in cells},
        "ended by themselves and started again": dict(fleet.ended),
        "rollouts": rollouts,
        "episodes": sum(one.episodes for one in cells.values()),
        "ended": ended,
        "ended by a fault of their policy service": sum(one.faulted for one in cells.values()),
        "commands that the driver rejected, because they came after their time": sum(one.late for one in cells.values()),
        "commands in drivers' logs": sum(one.commands for one in cells.values()),
        "audit records": sum(one.records for one in cells.values()),
        "cut": [found for one in cells.values() for found in one.cut],
        "changed": [found for one in cells.values() for found in one.changed],
        "lost": [found for one in cells.values() for found in one.lost],
    }


def site_in(folder: Path) -> Site:
    words = ("{python}", "-m", "tests.faults.poor_service", "{bundle}", "{port}", "{candidate}", str(os.getpid()))
    site = Site(folder=folder, service=words)
    site.make()
    (folder / "contract.json").write_text(CONTRACT)
    return site


def check(report: Mapping[str, Any]) -> None:
    assert report["cut"] == []
    assert report["changed"] == []
    assert report["lost"] == []
    assert report["not kept"] == []
    assert report["episodes"] > 0
    assert report["longest episode, s"] < 600  # whatever was done to clocks


COVERED = covers(
    "F1",
    I5="agents, policy services and the controller killed at random, links cut, disks full, clocks off: no episode sees two versions",
    I6="every command in a driver's log is in the audit, by a reader of its own",
)


def test_a_policy_service_is_harmed_as_often_whether_cells_share_it_or_not() -> None:
    """And so is everything else: a cell that shares has its service harmed as often as one with its own, twice as often while all are on
    one."""
    own, shared = drawn(1, 60_000, 8, 10.0), drawn(1, 60_000, 8, 10.0, services=2)
    harmed, others = ([Counter(one.kind in OF_A_SERVICE for one in of)[which] for of in (own, shared)] for which in (True, False))
    assert harmed[0] / 8 == pytest.approx(harmed[1] / 2, rel=0.1)
    assert others[0] == pytest.approx(others[1], rel=0.05)


def test_a_fault_of_a_shared_service_is_that_of_all_cells_on_it_and_of_no_other(tmp_path: Path) -> None:
    for use in ("1/uses/cell-3.a", "1/uses/cell-2.a", "1/uses/.cell-1.b.new", "lock"):
        atomic_write(tmp_path / use, "0123")
    (tmp_path / "0" / "uses").mkdir(parents=True)
    assert users_of(tmp_path) == [(tmp_path / "1", {"cell-2", "cell-3"})]  # nothing runs in the other place
    for use in ("0/uses/cell-1.a", "0/uses/cell-2.b"):
        atomic_write(tmp_path / use, "0123")
    assert users_of(tmp_path) == [(tmp_path / "0", {"cell-1", "cell-2"}), (tmp_path / "1", {"cell-2", "cell-3"})]


@COVERED
def test_a_minute_of_faults_cuts_no_episode_and_loses_no_record(tmp_path: Path) -> None:
    """Short: one cell with services of its own, and every kind of fault once."""
    sizes = Sizes(bench=1, shadow=1, canary=1, cohort=1, fleet=1)
    report = run_soak(site_in(tmp_path), Soak(minutes=0.8, cells=1, steps=20, goal=12, every_s=4.0, sizes=sizes))
    check(report)


@COVERED
@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_an_hour_of_faults_cuts_no_episode_and_loses_no_record(tmp_path: Path) -> None:
    """Long: eight cells that share two services, as in the demonstration."""
    minutes = float(os.environ.get("ACTWRIGHT_FLEET_SOAK_MINUTES", "60"))
    sizes = Sizes(bench=2, shadow=4, canary=12, cohort=12, fleet=16)
    report = run_soak(site_in(tmp_path), Soak(minutes=minutes, cells=8, steps=80, goal=40, every_s=10.0, sizes=sizes, shares=True))
    machine = {"python": sys.version.split()[0], "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    atomic_write(REPORT, json.dumps({"run": "make soak", **machine, **report}, indent=1) + "\n")
    check(report)
    assert {one["status"] for one in report["rollouts"]} >= {"passed", "rolled back"}
