"""A simulated arm whose episodes end by a count of steps alone, and which tells where its gripper was seen at their ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import StepOutcome
from components.simulation.robot import HORIZON_SIM_STEPS, SimulatedRobot
from components.simulation.robot import make_robot as make_simulated
from model_core.spec.episode import CameraGeometry

STEPS_WHEN_DRAWN = 250  # control steps, 12.5 s: on a busy machine the cell holds in a part of them


class EndlessArm:
    """As `inner`, but a task that is solved ends nothing. told: a line of JSON for each episode: its seed, and the gripper's pixel at its
    begin and at its end. drawn: a file that a person's drawing makes; the episode lasts `STEPS_WHEN_DRAWN` from then on, however long the
    person took. None: it lasts as long as the simulator's."""

    def __init__(self, inner: SimulatedRobot, told: Path, drawn: Path | None) -> None:
        self._inner, self._told, self._drawn = inner, told, drawn
        self._begin_2, self._left = self._pixel_2(), STEPS_WHEN_DRAWN

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def tcp_3(self) -> NDArray[np.float32]:
        """Gripper tip, from which a cell knows what of a drawn line lies ahead."""
        return self._inner.tcp_3()

    def geometry(self) -> Mapping[str, CameraGeometry]:
        """Calibration of the cameras."""
        return self._inner.geometry()

    def reset(self, seed: int) -> None:
        """Lay out another initial state."""
        self._inner.reset(seed)
        self._begin_2, self._left = self._pixel_2(), STEPS_WHEN_DRAWN

    def act(self, action_A: NDArray[np.floating]) -> StepOutcome:
        """Execute one action for one control step."""
        outcome = self._inner.act(action_A)
        if self._drawn is None:
            is_over = outcome.sim_steps >= HORIZON_SIM_STEPS
        else:
            self._go_on()
            self._left -= self._drawn.exists()
            is_over = self._left <= 0
        if is_over:
            with self._told.open("a", encoding="utf-8") as file:
                ends = {"begin": self._begin_2.tolist(), "end": self._pixel_2().tolist()}
                file.write(json.dumps({"seed": self._inner.seed, **ends}) + "\n")
        return replace(outcome, success=False, done=is_over)

    def _go_on(self) -> None:
        """Meta-World takes 500 simulator steps after a reset and refuses the next one; a scene in which a person draws has no such end."""
        sim: Any = self._inner._sim
        sim._sim_steps = 1  # not 0: a scene that is solved then would be no scene
        sim.env.curr_path_length = 0

    def _pixel_2(self) -> NDArray[np.float64]:
        return next(iter(self._inner.geometry().values())).project(self._inner.tcp_3()[None])[0, :2]


def make_robot(task: str, seed: int, *, told: str, drawn: str = "", **options: Any) -> EndlessArm:
    """The factory for a cell's command line. options: as of `components.simulation.robot:make_robot`."""
    return EndlessArm(make_simulated(task, seed, **options), Path(told), Path(drawn) if drawn else None)
