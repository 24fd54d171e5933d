"""Two buttons in view as a suite: does a sentence or a drawn trace choose the goal? The scene: `components.simulation.two_buttons`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from components.config.data_config import TWO_BUTTONS_CAMERA
from components.evaluation.suite import Case
from components.evaluation.suites.benchmark import Benchmark, SuiteTask, require_installed
from components.simulation.interface import FreeCamera, Simulator
from components.simulation.metaworld import OFFICIAL_HORIZON, SIM_HZ, embodiment
from components.simulation.two_buttons import SENTENCES, TwoButtons
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import to_document

FIRST_SEED = 930_000  # demonstrations begin at 10,000


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoButtonsSuite(Benchmark):
    """Every task on the same seeds, so that sentences and traces are compared on equal scenes."""

    def seen_by(self, body: EmbodimentSpec) -> TwoButtonsSuite:
        """Image size and control rate are the policy's; where the camera stands is the suite's."""
        camera, steps = body.cameras[0], round(SIM_HZ / body.control_hz)
        return replace(self, body=embodiment(sim_steps_per_action=max(1, steps), cameras=(_view(camera.width, camera.height),)))

    def open(self, case: Case) -> Simulator:
        """See `Benchmark.open`."""
        camera = self.body.cameras[0]
        return TwoButtons(
            sim_steps_per_action=round(SIM_HZ / self.body.control_hz),
            horizon_sim_steps=self.horizon,
            cameras=(_view(camera.width, camera.height),),
        )


def two_buttons() -> TwoButtonsSuite:
    """A sentence that names the box, one that leaves it open, and one that names the other box."""
    require_installed("two_buttons")
    return TwoButtonsSuite(
        name="two_buttons",
        edition="1",
        tasks=tuple(SuiteTask(name=task, instruction=sentence) for task, sentence in SENTENCES.items()),
        states=1_000,
        horizon=OFFICIAL_HORIZON,
        body=embodiment(cameras=(_view(80, 80),)),
        success_rule="the task's own button is down, by Meta-World's rule; an episode ends when either button is down",
        progress_rule="1 with the success",
        settings={"seeds": f"env.seed, from {FIRST_SEED}"},
        first_seed=FIRST_SEED,
    )


def _view(width: int, height: int) -> FreeCamera:
    return FreeCamera(**to_document(TWO_BUTTONS_CAMERA), width=width, height=height)
