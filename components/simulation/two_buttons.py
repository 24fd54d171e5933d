"""Two goals in view: a yellow and a blue button box on Meta-World's table, in an order that the seed draws.

The sentence tells what is to be pressed ("yellow", "blue"), leaves it open ("either-yellow", "either-blue": one sentence for both), or
names the other box ("contrary-yellow", "contrary-blue": for evaluations with a drawn trace). Equal seeds give equal images whatever the
task, so only the sentence or a trace tells a policy which goal is meant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import StepOutcome
from components.simulation.metaworld import MetaWorld
from components.simulation.mujoco_renderer import import_mujoco
from model_core.spec.errors import SimulatorError

GOALS = ("yellow", "blue")
SENTENCES = {
    **{goal: f"press the button of the {goal} box" for goal in GOALS},
    **{f"either-{goal}": "press a button" for goal in GOALS},
    **{f"contrary-{goal}": f"press the button of the {other} box" for goal, other in zip(GOALS, reversed(GOALS), strict=True)},
}


class TwoButtons(MetaWorld):
    """Two button boxes behind the `Simulator` port. An episode ends when either button is down; only the task's own is a success."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._instructions = {**SENTENCES, **(given.get("instructions") or {})}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of this scene."""
        return tuple(SENTENCES)

    def instruction(self, task: str) -> str:
        """The sentence for `task`; raises `SimulatorError` for an unknown name."""
        if task not in SENTENCES:
            raise SimulatorError(f"two_buttons has no task {task!r}. Fix: name one of {', '.join(SENTENCES)}")
        return self._instructions[task]

    def step(self, action_A: NDArray[np.floating], *, render: bool = False) -> StepOutcome:
        """See `MetaWorld.step`."""
        outcome = super().step(action_A, render=render)
        is_over = outcome.done or self.env.pressed_wrong
        return StepOutcome(success=outcome.success, done=is_over, sim_steps=outcome.sim_steps, observation=outcome.observation)

    def _env(self, task: str) -> Any:
        import_mujoco()
        from components.simulation.two_buttons_scene import OTHER, make_environment, make_expert

        if task not in self._envs:
            self._envs[task] = make_environment("" if task.endswith(GOALS[0]) else OTHER)
        self._expert = make_expert()
        return self._envs[task]
