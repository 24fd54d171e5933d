"""The course of the demonstration, by the controller's HTTP API alone: install version 1, roll out 2, roll out 3 and see it come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.deployment.fleet.controller import ask, order
from components.deployment.fleet_demo.site import BENCH
from components.deployment.fleet_demo.timeline import Sample, Timeline
from components.deployment.service_address import ServiceCredentials
from components.release.fleet.create import Made
from model_core.spec.documents import to_document
from model_core.spec.errors import JobError
from model_core.spec.fleet.release import NO_RELEASE, who_allows
from model_core.spec.fleet.rollout_plan import REFUSED, RolloutPlan, Stage

_LOOK_S = 0.5
CANARY = "canary"
# events -> the largest share of episodes that may have one: far above what a sound version shows on a machine that is busy
GUARDS: Mapping[str, float] = {"interventions": 0.1, "holds": 0.6, "refusals": 0.4, "deadline_misses": 0.4}
_OVER = ("passed", "rolled back", "aborted", "paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Episodes of the new version that each stage asks for. shadow: decisions."""

    bench: int = 5
    shadow: int = 20
    canary: int = 50
    cohort: int = 40
    fleet: int = 40


def plan_for(
    name: str, release: str, cells: int, sizes: Sizes, guards: Mapping[str, float] = GUARDS, *, first: str = "bench"
) -> RolloutPlan:
    """Bench, shadow, canary, cohort, fleet, from `first` on: on so many cells. No stage asks for a proof, which takes hundreds of episodes
    at margin 0.1. A version that refuses in shadow pauses nothing: there is no person to resume it, and the episodes of the bench bring it
    back."""
    canary = max(1, min(2, cells // 3))
    stages = (
        Stage(name="bench", labels=BENCH, minimum_episodes=sizes.bench),
        Stage(name="shadow", cells=1, shadow=True, minimum_decisions=sizes.shadow, distances={REFUSED: 1.0}),
        Stage(name=CANARY, cells=canary, minimum_episodes=sizes.canary),
        Stage(name="cohort", share=0.5, minimum_episodes=sizes.cohort),
        Stage(name="fleet", share=1.0, hold_out=0.0, minimum_episodes=sizes.fleet),
    )
    begun = [stage.name for stage in stages].index(first)
    return RolloutPlan(name=name, release=release, stages=stages[begun:], guards=guards, refusing_cells=cells)


@dataclass(slots=True)
class Course:
    """url: of the controller. check: raises where a process ended. show: is given every sample. until_s: when the time is over."""

    url: str
    check: Callable[[], None]
    show: Callable[[Sample], None]
    until_s: float
    timeline: Timeline = field(default_factory=Timeline)
    started: dict[int, float] = field(default_factory=dict[int, float])

    def look(self) -> Sample:
        """Ask once, and keep the answer."""
        self.check()
        sample = self.timeline.add(time.monotonic(), self.get("/v1/status"))
        self.show(sample)
        return sample

    def wait(self, what: str, is_so: Callable[[Sample], bool]) -> Sample:
        """Until a sample says so. Raises `JobError` when the time is over."""
        while not is_so(sample := self.look()):
            if time.monotonic() > self.until_s:
                raise JobError(
                    f"the time is over while waiting until {what}; last: {sample.told}. Fix: give more --minutes or fewer --cells"
                )
            time.sleep(_LOOK_S)
        return sample

    def get(self, path: str) -> Any:
        """What the controller tells."""
        return ask(self.url, path, ServiceCredentials())

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """An order."""
        return order(self.url, path, body, ServiceCredentials())

    def enrol(self, cell: str, site: str, public_key: str) -> None:
        """Let a cell report."""
        self.post(f"/v1/cells/{cell}/enrol", {"site": site, "public_key": public_key})

    def offer(self, made: Made) -> None:
        """Let rollouts name a release, with the person who overrides the gate where there is one."""
        release = made.release
        body = {"digest": release.digest, "model_version": release.model_version, "allowed_by": who_allows(release)}
        if release.override:
            body |= {"override_name": release.override.name, "override_reason": release.override.reason}
        self.post("/v1/releases", body)

    def install(self, made: Made, cells: int) -> None:
        """The first release on cells that run none: there is no evidence to wait for, so every stage is skipped, for a reason."""
        self.wait("every cell reports", lambda sample: sum(bool(cell.phase) for cell in sample.cells.values()) == cells)
        stages = (Stage(name="install", share=1.0, minimum_episodes=1),)
        number = self.start(
            RolloutPlan(name="version 1", release=made.release.digest, stages=stages, refusing_cells=cells), baseline=NO_RELEASE
        )
        self.post(f"/v1/rollouts/{number}/skip", {"reason": "the cells run nothing yet"})
        self.wait("every cell runs version 1", lambda sample: runs_everywhere(sample, made.release.digest))

    def start(self, plan: RolloutPlan, baseline: str = "") -> int:
        """Start a rollout; its number."""
        begun = time.monotonic()
        number = int(self.post("/v1/rollouts", {"plan": to_document(plan), "baseline": baseline})["id"])
        self.started[number] = begun
        return number

    def finish(self, number: int, then: str) -> None:
        """Wait until a rollout is over and every cell runs what it left behind: the new release where it passed, else `then`."""
        over = self.wait(f"rollout {number} is over", lambda sample: sample.rollout == number and sample.status in _OVER)
        left = self.get(f"/v1/rollouts/{number}")["release"] if over.status == "passed" else then
        if over.status in ("passed", "rolled back"):
            self.wait("every cell runs what is proposed", lambda sample: runs_everywhere(sample, left))


def runs_everywhere(sample: Sample, release: str) -> bool:
    """Every cell reports this release."""
    return bool(sample.cells) and all(cell.running == release for cell in sample.cells.values())
