"""LIBERO's four suites: official initial states, settle steps and horizons, in two views.

A policy of the embodiment `libero-panda` as `components.simulation.libero` describes it (cameras "front" and "wrist") sees what our
demonstrations show: upright images, rendered when it is asked. A policy of another body with eight state numbers, seven delta actions at
20 Hz and cameras of the roles front and wrist sees what published policies see: images turned by 180 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from components.evaluation.suite import Case
from components.evaluation.suites.benchmark import Benchmark, PublishedResult, SuiteTask, require_installed
from components.simulation.benchmarks.libero_published import PublishedLibero, is_published_body
from components.simulation.benchmarks.libero_states import (
    ENVIRONMENT_SEED,
    HORIZONS,
    SETTLE_STEPS,
    LiberoStates,
    suite_tasks,
)
from components.simulation.interface import FreeCamera, Simulator
from components.simulation.libero import CAMERAS, SIM_HZ, embodiment
from model_core.spec.contract import EmbodimentSpec

UPRIGHT, TURNED = "upright, not mirrored", "turned by 180 degrees"
_ORDER = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
_DIFFERS = (
    "trained on the benchmark's 50 human demonstrations a task; 50 trials a task; MuJoCo of another version, which moves trajectories"
)
_TABLE = {
    ("MolmoAct-7B-D", "MolmoAct (arXiv 2508.07917), table of LIBERO"): (87.0, 95.4, 87.6, 77.2),
    ("OpenVLA 7B", "MolmoAct (arXiv 2508.07917), table of LIBERO"): (84.7, 88.4, 79.2, 53.7),
    ("pi0-FAST", "MolmoAct (arXiv 2508.07917), table of LIBERO"): (96.4, 96.8, 88.6, 60.2),
    ("SmolVLA 0.45B", "SmolVLA (arXiv 2506.01844), table 2"): (90.0, 96.0, 92.0, 71.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiberoSuite(Benchmark):
    """One of LIBERO's suites. is_published: in the view of published policies."""

    is_published: bool = False

    def seen_by(self, body: EmbodimentSpec) -> LiberoSuite:
        """The view follows from the policy's cameras; their size is the policy's."""
        camera = body.cameras[0]
        if {one.name for one in body.cameras} != {*CAMERAS} and is_published_body(body):
            return replace(self, body=body, is_published=True, settings={**self.settings, "images": TURNED})
        steps = max(1, round(SIM_HZ / body.control_hz))
        return replace(self, body=embodiment(sim_steps_per_action=steps, size=camera.width))

    def open(self, case: Case) -> Simulator:
        """See `Benchmark.open`."""
        camera = self.body.cameras[0]
        given = {
            "suite": self.name,
            "sim_steps_per_action": round(SIM_HZ / self.body.control_hz),
            "horizon_sim_steps": self.horizon,
            "cameras": (FreeCamera(width=camera.width, height=camera.height),),
        }
        return PublishedLibero(body=self.body, **given) if self.is_published else LiberoStates(**given)


def _published(name: str) -> tuple[PublishedResult, ...]:
    place = _ORDER.index(name)
    return tuple(
        PublishedResult(model=model, scores={"": numbers[place]}, source=source, differs=_DIFFERS)
        for (model, source), numbers in _TABLE.items()
    )


def _suite(name: str) -> LiberoSuite:
    require_installed(name)
    tasks: Mapping[str, object] = suite_tasks(name)
    return LiberoSuite(
        name=name,
        edition="1",
        tasks=tuple(SuiteTask(name=task, instruction=str(suite_tasks(name)[task][1].language)) for task in tasks),
        states=50,
        horizon=HORIZONS[name],
        body=embodiment(),
        success_rule="the conjunction of the goal's conditions holds at some control step of the episode",
        progress_rule="the mean over the goal's conditions: 1 for one that holds, 0.5 for one whose object was lifted by 3 cm",
        settings={"settle_steps": SETTLE_STEPS, "environment_seed": ENVIRONMENT_SEED, "images": UPRIGHT},
        published=_published(name),
    )


def libero_spatial() -> LiberoSuite:
    """LIBERO-Spatial."""
    return _suite("libero_spatial")


def libero_object() -> LiberoSuite:
    """LIBERO-Object."""
    return _suite("libero_object")


def libero_goal() -> LiberoSuite:
    """LIBERO-Goal."""
    return _suite("libero_goal")


def libero_10() -> LiberoSuite:
    """LIBERO-10, also called LIBERO-Long."""
    return _suite("libero_10")
