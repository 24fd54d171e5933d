"""The line that a person who knows the way would draw on a scene's first image: where the scripted expert's gripper goes.

It stands for a person's drawing in evaluations with `evaluate.steering`: it depends on the scene alone, so that trials can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.simulation.interface import Simulator
from model_core.spec.errors import SimulatorError
from model_core.spec.execution.drawn_way import way_ahead
from model_core.spec.types import TRACE_MAX_POINTS, Trace
from model_core.tokenization.trace import resampled, to_range

Steering = Literal["none", "whole", "ahead"]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnLine:
    """Pixels (x, y) on the first camera's image, from where the gripper stands to where it ends."""

    points_N2: NDArray[np.float64]
    width: int
    height: int

    def whole(self) -> Trace:
        """All of it, in points at equal distances, as the policy service reads a drawing."""
        return self._trace(self.points_N2)

    def ahead(self, gripper_2: NDArray[np.floating], passed: float) -> tuple[Trace, float]:
        """What of it lies before the gripper at the pixel `gripper_2`, as a cell sends it; and the share that is passed now."""
        is_seen = bool(((gripper_2 >= 0) & (gripper_2 <= (self.width - 1, self.height - 1))).all())
        way = way_ahead(self.points_N2, gripper_2 if is_seen else None, passed)
        return self._trace(way.points_N2.astype(np.float64)), way.passed

    def _trace(self, points_N2: NDArray[np.float64]) -> Trace:
        return Trace(points_N2=to_range(resampled(points_N2, TRACE_MAX_POINTS), width=self.width, height=self.height))


def draw_line(sim: Simulator, task: str, seed: int) -> DrawnLine:
    """Lay out the scene, let the scripted expert act, and keep where its gripper was seen. The scene must be laid out again afterwards.

    Raises `SimulatorError` where the expert does not solve the scene, or its gripper is hardly in view: no person could draw its way then.
    """
    sim.reset(task, seed, render=False)
    tips, done, success = [sim.tcp_3()], False, False
    while not done:
        outcome = sim.step(sim.expert_action_A())
        tips.append(sim.tcp_3())
        done, success = outcome.done, outcome.success
    if not success:
        raise SimulatorError(f"{task}, seed {seed}: the expert does not solve it, so no line can be drawn. Fix: leave this seed out")
    camera = next(iter(sim.geometry().values()))
    projected_N3 = camera.project(np.stack(tips))
    seen_N = camera.in_view(projected_N3)
    if seen_N.sum() < 2:
        raise SimulatorError(f"{task}, seed {seed}: the camera does not see the gripper's way. Fix: place the camera farther away")
    return DrawnLine(projected_N3[seen_N, :2], camera.width, camera.height)


def steered(sim: Simulator, line: DrawnLine, steering: Steering, passed: float) -> tuple[Trace, float]:
    """The trace that goes with the observation that is made now, and the share of the line that is passed; `passed`: before."""
    if steering == "whole":
        return line.whole(), passed
    camera = next(iter(sim.geometry().values()))
    return line.ahead(camera.project(sim.tcp_3()[None])[0, :2], passed)
