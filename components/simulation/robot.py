"""A simulated arm as a workcell's robot: any simulator with one task. `serving.workcell` loads it by import string."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import CollectConfig
from components.config.stages import SIMULATION_FIELDS
from components.simulation.interface import Simulator, StepOutcome
from components.simulation.open import open_simulator
from model_core.spec.documents import from_document, to_document
from model_core.spec.episode import CameraGeometry
from model_core.spec.execution.cell_options import FIRST_SEED
from model_core.spec.types import Observation

HORIZON_SIM_STEPS = 500
# Fields of a recipe's `collect` that decide what the simulation looks like and how it moves; the rest concerns recording only.
ROBOT_FIELDS = tuple(name for name in SIMULATION_FIELDS if name != "tasks")


class SimulatedRobot:
    """One workcell's robot: a simulator in which one task is done again and again."""

    def __init__(self, sim: Simulator, task: str, seed: int) -> None:
        self._sim = sim
        self.embodiment = sim.embodiment
        self.task = task
        self.instruction = sim.instruction(task)
        self.versions = dict(sim.versions)
        self.render_flags = dict(sim.render_flags)
        self.seed = seed
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Lay out another initial state."""
        self.seed = seed
        self._sim.reset(self.task, seed, render=False)

    def observe(self) -> Observation:
        """A fresh observation."""
        return self._sim.observe()

    def act(self, action_A: NDArray[np.floating]) -> StepOutcome:
        """Execute one action for one control step."""
        return self._sim.step(action_A)

    def proprio_P(self) -> NDArray[np.float32]:
        """Measured now, without an image."""
        return self._sim.proprio_P()

    def depth_m(self) -> dict[str, NDArray[np.float32]]:
        """What the cell's depth camera sees now."""
        return self._sim.depth_m()

    def tcp_3(self) -> NDArray[np.float32]:
        """Gripper tip by forward kinematics, for the recording only."""
        return self._sim.tcp_3()

    def geometry(self) -> dict[str, CameraGeometry]:
        """Calibration of the cell's cameras."""
        return self._sim.geometry()

    def close(self) -> None:
        """Free the simulator."""
        self._sim.close()


def make_robot(task: str, seed: int = FIRST_SEED, **options: Any) -> SimulatedRobot:
    """The robot factory of every simulator, `components.simulation.robot:make_robot` on a cell's command line.

    options: fields of `CollectConfig` that differ from their defaults, such as those of `robot_options`; the horizon is 500 simulator
    steps unless it is given. Raises `SpecError` for a field that does not exist.
    """
    document = {"tasks": [task], "horizon_sim_steps": HORIZON_SIM_STEPS, "settle_steps": 0, **options}
    return SimulatedRobot(open_simulator(from_document(CollectConfig, document, where="robot options")), task, seed)


def robot_options(collect: CollectConfig) -> dict[str, Any]:
    """The simulation settings of a recipe as options of `make_robot`: plain JSON values."""
    document = to_document(collect)
    return {name: document[name] for name in ROBOT_FIELDS}
