"""Meta-World on the goals that the benchmark itself draws: `metaworld.MT1(task, seed).train_tasks`, set by its own `set_task`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import StepOutcome
from components.simulation.metaworld import MetaWorld
from components.simulation.mujoco_renderer import import_mujoco
from model_core.spec.errors import SimulatorError
from model_core.spec.types import Observation

# in these the environment's "near_object" is down at first and up when the hand has come to the object (seen with the experts); in the
# other twenty it is a distance, constant, up from the beginning, or never up
STAGED = frozenset(
    (
        *("basketball-v3", "bin-picking-v3", "button-press-topdown-v3", "button-press-topdown-wall-v3", "button-press-wall-v3"),
        *("coffee-pull-v3", "coffee-push-v3", "door-open-v3", "door-unlock-v3", "drawer-open-v3"),
        *("hand-insert-v3", "handle-press-side-v3", "handle-pull-v3", "handle-pull-side-v3", "peg-insert-side-v3"),
        *("peg-unplug-side-v3", "pick-out-of-hole-v3", "pick-place-v3", "pick-place-wall-v3", "plate-slide-back-side-v3"),
        *("push-v3", "push-back-v3", "push-wall-v3", "shelf-place-v3", "stick-pull-v3"),
        *("stick-push-v3", "sweep-v3", "sweep-into-v3", "window-close-v3", "window-open-v3"),
    )
)
UP, AT_OBJECT = 0.99, 0.5


class MetaWorldStates(MetaWorld):
    """Meta-World whose `reset` lays out goal number `seed` of the benchmark, or, without a goal_seed, seed `seed` of the environment.

    progress: in the tasks of `STAGED`, 0.5 once the environment's own "near_object" was up; 1 with the success.
    """

    def __init__(self, *, goal_seed: int | None = None, **given: Any) -> None:
        super().__init__(**given)
        self._goal_seed = goal_seed
        self._near = 0.0

    @property
    def progress(self) -> float:
        """See the class."""
        if self._success:
            return 1.0
        return AT_OBJECT if self._near >= UP and self.task in STAGED else 0.0

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        """Lay out an initial state of `task`. Raises `SimulatorError` for a goal that the benchmark does not have."""
        self._near = 0.0
        if self._goal_seed is None:
            return super().reset(task, seed, render=render)
        self.instruction(task)
        goals = benchmark_goals(task, self._goal_seed)
        if not 0 <= seed < len(goals):
            raise SimulatorError(f"{task}: expected the number of a goal, 0 to {len(goals) - 1}, got {seed}")
        self._views.clear()
        self.env, self.task = self._env(task), task
        self.env.set_task(goals[seed])
        state_39, _ = self.env.reset()
        self._state_39 = np.asarray(state_39, np.float64)
        self._sim_steps, self._success = 0, False
        return self._observation(render=render)

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """See `MetaWorld.step`; the stages are measured at every simulator step."""
        self._ready()
        env = self.env
        self.env = _Watched(env, self._note)
        try:
            return super().step(action_A, render=render)
        finally:
            self.env = env

    def _note(self, info: dict[str, Any]) -> None:
        self._near = max(self._near, float(info.get("near_object", 0.0)))


class _Watched:
    """An environment, each of whose steps is told."""

    def __init__(self, env: Any, told: Any) -> None:
        self._env, self._told = env, told

    def step(self, action_A: NDArray[np.floating]) -> Any:
        answer = self._env.step(action_A)
        self._told(answer[4])
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


@cache
def benchmark_goals(task: str, seed: int) -> tuple[Any, ...]:
    """The goals of one task as the package draws them: `metaworld.Task` values, about a second of work a task."""
    import_mujoco()
    import metaworld

    return tuple(metaworld.MT1(task, seed=seed).train_tasks)
