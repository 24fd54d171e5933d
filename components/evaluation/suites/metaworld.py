"""Meta-World v3 as suites: horizon, goals and tiers are the benchmark's; the sentences are ours, for the package has none.

The tiers (28 easy, 11 medium, 6 hard, 5 very hard) are those of Seo et al., Masked World Models for Visual Control (arXiv 2206.14244), as
LeRobot's `envs/metaworld_config.json` (Apache-2.0) lists them. The package draws 50 goals a task from a seed and publishes none, so the
seed is stated: GOAL_SEED. Task by task, so that a task has the same goals in every suite; `metaworld.MT50(seed)` draws all from one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.evaluation.suite import Case
from components.evaluation.suites.benchmark import Benchmark, PublishedResult, SuiteTask, require_installed
from components.simulation.benchmarks.metaworld_states import MetaWorldStates
from components.simulation.interface import FreeCamera, Simulator
from components.simulation.metaworld import OFFICIAL_HORIZON, SCENE_CAMERAS, SIM_HZ, MetaWorld, embodiment
from components.simulation.metaworld_tasks import INSTRUCTIONS
from model_core.spec.contract import EmbodimentSpec

GOAL_SEED = 42
LOOP_TASKS = ("coffee-button-v3", "drawer-close-v3")
LOOP_SEED = 930_000  # demonstrations begin at 10,000
MT10 = (
    *("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3"),
    *("drawer-close-v3", "button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "window-close-v3"),
)
EASY, MEDIUM, HARD, VERY_HARD = "easy", "medium", "hard", "very hard"
_TIERS = {
    MEDIUM: "basketball bin-picking box-close coffee-pull coffee-push hammer peg-insert-side push-wall soccer sweep sweep-into",
    HARD: "assembly hand-insert pick-out-of-hole pick-place push push-back",
    VERY_HARD: "shelf-place disassemble stick-pull stick-push pick-place-wall",
}
TIER_OF = {f"{name}-v3": tier for tier, names in _TIERS.items() for name in names.split()}

_SMOLVLA = "Shukor et al., SmolVLA (arXiv 2506.01844), table 2"
_EVO = "Evo-1 (arXiv 2511.04555), table 1"
_DIFFERS = (
    "10 trials a task, one camera of 480x480 from another place, 80 actions a second, trained on 50 demonstrations a task of the same "
    "experts; the mean is that of the four tiers"
)


def _published(model: str, numbers: Sequence[float], source: str) -> PublishedResult:
    tiers: dict[str, float] = dict(zip((EASY, MEDIUM, HARD, VERY_HARD, "mean of tiers"), numbers, strict=True))
    return PublishedResult(model=model, scores=tiers, source=source, differs=_DIFFERS)


PUBLISHED_MT50 = (
    _published("TinyVLA-H 1.3B", (77.6, 21.5, 11.4, 15.8, 31.6), _SMOLVLA),
    _published("pi0 3.5B", (71.8, 48.2, 41.7, 30.0, 47.9), _SMOLVLA),
    _published("SmolVLA 0.45B", (82.5, 41.8, 45.0, 60.0, 57.3), _SMOLVLA),
    _published("SmolVLA 2.25B", (87.14, 51.82, 70.0, 64.0, 68.24), _SMOLVLA),
    _published("Evo-1 0.77B", (89.2, 76.8, 77.2, 79.2, 80.6), _EVO),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaWorldSuite(Benchmark):
    """Tasks of Meta-World. goal_seed: of the benchmark's goals; None: states are seeds of the environment."""

    goal_seed: int | None = GOAL_SEED

    def seen_by(self, body: EmbodimentSpec) -> MetaWorldSuite:
        """Image size and control rate are the policy's: the simulator has none of its own. Where the camera stands is the suite's."""
        return replace(self, body=MetaWorld(**_seen(body)).embodiment)

    def open(self, case: Case) -> Simulator:
        """See `Benchmark.open`."""
        return MetaWorldStates(goal_seed=self.goal_seed, horizon_sim_steps=self.horizon, **_seen(self.body))


def _seen(body: EmbodimentSpec) -> dict[str, Any]:
    """How the simulator is opened for a policy of `body`. A camera that no scene holds is left out: it is missed where policy and suite are
    compared."""
    first, *others = body.cameras
    return {
        "sim_steps_per_action": max(1, round(SIM_HZ / body.control_hz)),
        "cameras": (FreeCamera(width=first.width, height=first.height),),
        "scene_cameras": [camera.name for camera in others if camera.name in SCENE_CAMERAS],
    }


def _suite(name: str, tasks: Sequence[str]) -> MetaWorldSuite:
    require_installed(name)
    is_ranked = name == "metaworld_mt50"
    return MetaWorldSuite(
        name=name,
        edition="1",
        tasks=tuple(
            SuiteTask(name=task, instruction=INSTRUCTIONS[task], tier=TIER_OF.get(task, EASY) if is_ranked else "") for task in tasks
        ),
        states=50,
        horizon=OFFICIAL_HORIZON,
        body=embodiment(),
        success_rule="the environment's own success flag at some simulator step of the episode (it may go down again)",
        progress_rule="1 with the success; before it 0.5 once the hand came to the object, in the 30 tasks whose environment tells it",
        settings={"goals": f"metaworld.MT1(task, seed={GOAL_SEED})"},
        published=PUBLISHED_MT50 if is_ranked else (),
        tiers=(EASY, MEDIUM, HARD, VERY_HARD) if is_ranked else (),
    )


def metaworld_loop() -> MetaWorldSuite:
    """The tasks of the recipe `loop` on seeds that are never demonstrated."""
    whole = _suite("metaworld_loop", LOOP_TASKS)
    return replace(whole, states=1_000, goal_seed=None, first_seed=LOOP_SEED, settings={"seeds": f"env.seed, from {LOOP_SEED}"})


def metaworld_mt10() -> MetaWorldSuite:
    """The ten tasks of MT10."""
    return _suite("metaworld_mt10", MT10)


def metaworld_mt50() -> MetaWorldSuite:
    """All fifty tasks, in four tiers."""
    return _suite("metaworld_mt50", sorted(INSTRUCTIONS))
