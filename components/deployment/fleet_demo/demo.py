"""The whole demonstration: site, controller, agents and cells, two rollouts, the proof, and one document of what happened (demo.json)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from components.adapters.processes import free_port
from components.config.records import Progress, Silent
from components.deployment.cell_process import SIMULATED_ROBOT
from components.deployment.fleet.controller import ControllerFiles, running_controller
from components.deployment.fleet_demo.cells import CellJob, RunningCells, running_cells
from components.deployment.fleet_demo.course import CANARY, GUARDS, Course, Sizes, plan_for
from components.deployment.fleet_demo.proof import FleetProof, prove
from components.deployment.fleet_demo.site import SITE, Site, serving_files
from components.deployment.fleet_demo.timeline import Sample
from components.deployment.fleet_demo.versions import Versions
from components.deployment.gateway_service import Listening
from components.release.bundle import find_packed
from components.release.fleet.create import Made
from model_core.spec.errors import JobError
from model_core.spec.files import atomic_write

DOCUMENT = "demo.json"
# times the episodes, of a release without the gate's verdict: 20 points less than 95 % are shown by 50 in half of the rollouts,
# by 100 nearly always
_UNJUDGED_CANARY = 2
_REPORT_EVERY_S = 2.0  # a report takes 20 ms of processor time of its agent


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """tasks: one a cell, in turn. minutes: of the rollouts, set-up included. guards: of both rollouts. robot, robot_options, realtime: of
    the cells."""

    cells: int = 8
    tasks: Sequence[str] = ()
    minutes: float = 30.0
    sizes: Sizes = field(default_factory=Sizes)
    guards: Mapping[str, float] = field(default_factory=lambda: dict(GUARDS))
    robot: str = SIMULATED_ROBOT
    robot_options: Mapping[str, object] = field(default_factory=dict[str, object])
    realtime: bool = False

    def jobs(self, site: Site) -> list[CellJob]:
        """One for each cell."""
        names = [f"cell-{number + 1}" for number in range(self.cells)]
        shared = {"robot": self.robot, "robot_options": self.robot_options, "realtime": self.realtime}
        return [
            CellJob(name=name, task=self.tasks[number % len(self.tasks)], folder=site.cell(name), number=number, **shared)
            for number, name in enumerate(names)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """document: as in demo.json. problem: why the course did not come to its end, "" where it did."""

    document: Mapping[str, Any]
    proof: FleetProof
    problem: str = ""


def run_demo(
    site: Site,
    versions: Versions,
    options: DemoOptions,
    *,
    progress: Progress | None = None,
    show: Callable[[Sample], None] = lambda sample: None,
) -> DemoResult:
    """Run it in the site's folder; what happened is written to demo.json there, also where the time was over before the end, or a person
    stopped it (Ctrl-C).

    Raises `JobError` where a process of it ends by itself or does not start.
    """
    until_s = time.monotonic() + 60.0 * options.minutes
    jobs = options.jobs(site)
    problem = ""
    site.offer(versions.first)
    with _started(site, jobs, progress or Silent()) as (url, running):
        course = Course(url=url, check=running.check, show=show, until_s=until_s)
        for job in jobs:
            course.enrol(job.name, SITE, site.public_key(job.name))
        running.start_agents()
        course.offer(versions.first)
        try:
            course.install(versions.first, len(jobs))
            running.start_cells()
            _roll_out(site, course, "version 2", versions.second, options)
            # what a person lets through is shown to a canary at once: the episodes of a bench would stop it before there is one
            _roll_out(site, course, "version 3", versions.worse, options, first=CANARY)
        except JobError as error:
            problem = str(error)
        except KeyboardInterrupt:
            problem = "it was stopped by hand; its cells ended their episodes first"
        finally:
            running.end_cells()
        course.look()
        _, *numbers = course.started or {0: 0.0}  # without the installation; one that is not over yet is told as it stands
        rollouts = [course.get(f"/v1/rollouts/{number}") for number in numbers]
        log = course.get("/v1/log")
    proof = prove({job.name: job.folder for job in jobs})
    document = _document(versions, course, rollouts, proof) | {
        "guards": options.guards,
        "log": log,
        "problem": problem,
        "tasks": {job.name: job.task for job in jobs},
    }
    atomic_write(site.folder / DOCUMENT, json.dumps(document, indent=1) + "\n")
    return DemoResult(document=document, proof=proof, problem=problem)


@contextmanager
def _started(site: Site, jobs: Sequence[CellJob], progress: Progress) -> Iterator[tuple[str, RunningCells]]:
    """Controller and repository listen, agents have their files; gives the controller's URL, and the processes of the cells."""
    files = ControllerFiles(
        database=f"sqlite:///{site.folder / 'fleet.db'}",
        key=site.controller_key,
        log=site.folder / "controller.log",
        report_every_s=_REPORT_EVERY_S,
    )
    with serving_files(site.repository) as repository, running_controller(files, Listening(), progress) as url:
        addresses, ports = {"controller": url, "repository": repository}, (free_port(), free_port())
        for job in jobs:
            site.prepare_agent(job.name, job.task, addresses, is_bench=job is jobs[-1], shared_ports=ports)
        with running_cells(jobs) as running:
            yield url, running


def _roll_out(site: Site, course: Course, name: str, made: Made, options: DemoOptions, *, first: str = "bench") -> None:
    """Publish, offer, start at the stage `first`, and wait for the end."""
    before = course.look()
    running = next(iter(before.cells.values())).running
    site.offer(made)
    course.offer(made)
    asked = options.sizes if made.release.judgement else replace(options.sizes, canary=_UNJUDGED_CANARY * options.sizes.canary)
    number = course.start(plan_for(name, made.release.digest, options.cells, asked, options.guards, first=first))
    course.finish(number, running)


def _document(versions: Versions, course: Course, rollouts: Sequence[Mapping[str, Any]], proof: FleetProof) -> dict[str, Any]:
    """What happened, in plain values; times in seconds from the first answer of the controller."""
    samples = course.timeline.samples
    zero, cells = samples[0].at_s, sorted(samples[-1].cells)
    reached = course.timeline.reached(versions.second.release.digest, course.started.get(rollouts[0]["id"], zero)) if rollouts else None
    return {
        "versions": [
            _version(number, made, proof) for number, made in enumerate((versions.first, versions.second, versions.worse), start=1)
        ],
        "rollouts": [
            {**one, "started_s": course.started[one["id"]] - zero, "stages_s": _stages(samples, one["id"], zero)} for one in rollouts
        ],
        "reached": asdict(reached) if reached else None,
        "cells": {
            name: [{**asdict(one), "from_s": one.from_s - zero, "to_s": one.to_s - zero} for one in course.timeline.stretches(name)]
            for name in cells
        },
        "seconds": samples[-1].at_s - zero,
        "proof": {"told": proof.told, "cut": list(proof.cut), "changed": list(proof.changed), "lost": list(proof.lost)},
    }


def _version(number: int, made: Made, proof: FleetProof) -> dict[str, Any]:
    release = made.release
    successes, episodes = proof.bundles.get(find_packed(made.folder / "bundle").digest, (0, 0))
    override = {"name": release.override.name, "reason": release.override.reason} if release.override else None
    told = {"number": number, "digest": release.digest, "model_version": release.model_version, "override": override}
    return told | {"successes": successes, "episodes": episodes}


def _stages(samples: Sequence[Sample], rollout: int, zero: float) -> list[dict[str, Any]]:
    """When each stage of a rollout began, and the end under its status."""
    found: list[dict[str, Any]] = []
    for one in samples:
        stage = one.stage if one.status == "running" else one.status
        if one.rollout == rollout and (not found or found[-1]["stage"] != stage):
            found.append({"stage": stage, "from_s": one.at_s - zero})
    return found
