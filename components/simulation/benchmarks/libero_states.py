"""LIBERO's suites from their official initial states: the states that come with the package, settled, for evaluation only.

Facts that decide this file, each seen in the package: an initial state sets joints alone, so where furniture stands comes from numpy's
global generator at the reset before it; objects fall some centimetres after it; the success flag follows the present state and may go down
again.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import AlreadySolvedError, StepOutcome
from components.simulation.libero import Libero
from components.simulation.libero_expert import PickAndPlace
from components.simulation.libero_layouts import draw_layout
from components.simulation.mujoco_renderer import import_mujoco
from model_core.spec.errors import SimulatorError
from model_core.spec.types import Observation

HORIZONS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
SETTLE_STEPS = 10
ENVIRONMENT_SEED = 7  # before every reset; vla-eval sets it once for each task
LIFTED_M = 0.03


class LiberoStates(Libero):
    """One of LIBERO's suites, whose `reset` lays out official initial state number `seed`.

    progress: the mean over the conditions of the goal: 1 for one that holds, 0.5 for one whose object was lifted by 3 cm.
    """

    def __init__(self, *, suite: str, **given: Any) -> None:
        super().__init__(instructions={}, **given)
        self._suite = suite
        self._progress = 0.0
        self._rests_m: Mapping[str, float] = {}

    @property
    def progress(self) -> float:
        """See the class; the best of this episode."""
        return 1.0 if self._success else self._progress

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the suite, in its order."""
        return tuple(suite_tasks(self._suite))

    def instruction(self, task: str) -> str:
        """The benchmark's sentence for `task`; raises `SimulatorError` for an unknown name."""
        return str(self._described(task)[1].language)

    def reset(self, task: str, seed: int, *, render: bool = True) -> Observation:
        """Lay out official state `seed`, and let its objects settle. Raises `SimulatorError` for one that is not there."""
        number, _ = self._described(task)
        states_ND = initial_states(self._suite, number)
        if not 0 <= seed < len(states_ND):
            raise SimulatorError(f"{task}: expected the number of an official initial state, 0 to {len(states_ND) - 1}, got {seed}")
        if task != self.task:
            self._open(task)
        inner = self.env.env
        draw_layout(inner, task, ENVIRONMENT_SEED)
        self._take(self.env.set_init_state(states_ND[seed]))
        self._settle(SETTLE_STEPS)
        if inner._check_success():
            raise AlreadySolvedError(f"LIBERO: official state {seed} of {task!r} is solved before the arm moves. Fix: leave this state out")
        self._sim_steps, self._success, self._progress, self._expert = 0, False, 0.0, None
        self._rests_m = {name: float(inner.sim.data.body_xpos[inner.obj_body_id[name]][2]) for name in inner.objects_dict}
        return self._observation(render=render)

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """Hold `action_A` (clipped to -1..1) for one control step, or until the suite's horizon."""
        inner = self._ready()
        held = self._command(np.clip(np.asarray(action_A, np.float64), -1.0, 1.0))
        limit = min(self._horizon, HORIZONS[self._suite])
        for _ in range(min(self._hold_steps, limit - self._sim_steps)):
            self._take(inner.step(held)[0])
            self._sim_steps += 1
            self._success = self._success or bool(inner._check_success())
        self._progress = max(self._progress, self._measured())
        done = self._success or self._sim_steps >= limit
        seen = self._observation(render=True) if render else None
        return StepOutcome(success=self._success, done=done, sim_steps=self._sim_steps, observation=seen)

    def expert_action_A(self) -> NDArray[np.float32]:
        """What the scripted expert would do now: it puts the first object of the goal where the second is, and can do nothing else."""
        inner = self._ready()
        if self._expert is None:
            carried, goal = (inner.obj_body_id[name] for name in inner.obj_of_interest[:2])
            others = [i for name, i in inner.obj_body_id.items() if name in inner.objects_dict and i not in (carried, goal)]
            self._expert = PickAndPlace(inner.sim, carried, goal, others)
        return self._expert.action_7()

    def _described(self, task: str) -> tuple[int, Any]:
        found = suite_tasks(self._suite)
        if task not in found:
            raise SimulatorError(f"{self._suite} has no task {task!r}; it has {', '.join(found)}")
        return found[task]

    def _description(self, task: str) -> Any:
        return self._described(task)[1]

    def _measured(self) -> float:
        inner = self._ready()
        scores = []
        for state in inner.parsed_problem["goal_state"]:
            body = inner.obj_body_id.get(state[1])
            rest = self._rests_m.get(state[1])
            is_lifted = rest is not None and body is not None and inner.sim.data.body_xpos[body][2] > rest + LIFTED_M
            scores.append(1.0 if inner._eval_predicate(state) else 0.5 if is_lifted else 0.0)
        return float(np.mean(scores))


@cache
def suite_tasks(suite: str) -> dict[str, tuple[int, Any]]:
    """Task -> its number in the suite, and LIBERO's description. Raises `SimulatorError` where LIBERO is not installed."""
    return {task.name: (number, task) for number, task in enumerate(_benchmark(suite).tasks)}


@cache
def initial_states(suite: str, number: int) -> NDArray[np.float64]:
    """The official initial states of one task: (states, numbers of a state)."""
    return np.asarray(_benchmark(suite).get_task_init_states(number))


@cache
def _benchmark(suite: str) -> Any:
    import_mujoco()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from libero.libero.benchmark import get_benchmark  # pyright: ignore[reportMissingImports]

            return get_benchmark(suite)()
    except ImportError as error:
        raise SimulatorError(f"LIBERO is not installed here ({error}). Fix: pip install 'actwright[libero]'") from error
