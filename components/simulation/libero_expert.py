"""A scripted expert of LIBERO's pick-and-place tasks that sees the simulator's state: grasp, lift, carry, release, and again if it slips.

What is named first in the task's goal is put where the second is. Objects that fit between the fingers are grasped across their narrowest
side, wider ones (bowls) by the rim. Every action is computed from the state as it is now, so that it also answers pushes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OPEN, CLOSE = -1.0, 1.0
GAIN_PER_M, GAIN_PER_RAD = 14.0, 2.5
FITS_M = 0.07  # widest side between the fingers, of 0.08 m
FINGER_M = 0.012  # how far beside the rim's wall the tool centre stands
HOVER_M, NEAR_M = 0.12, 0.012
GRASP_STEPS, RELEASE_STEPS = 8, 6
_ANGLES = np.deg2rad(np.arange(-90, 90, 15))


class PickAndPlace:
    """The expert of one layout; make another one after each reset."""

    def __init__(self, sim: Any, carried: int, goal: int, others: list[int]) -> None:
        """sim: robosuite's. carried, goal, others: body ids."""
        self._model, self._data = sim.model._model, sim.data._data
        self._carried, self._goal, self._others = carried, goal, others
        self._upright_33 = self._tool_33()
        left_3, right_3 = (np.array(self._data.body(f"gripper0_{side}finger").xpos) for side in ("left", "right"))
        self._closes_2 = (left_3 - right_3)[:2]
        self._phase, self._steps = "approach", 0
        self._yaw, self._offset_3 = self._plan()
        self._carry_z = float(max(self._points(goal)[:, 2].max(), self._points(carried)[:, 2].max())) + HOVER_M

    def action_7(self) -> NDArray[np.float32]:
        """What to do now."""
        tool_3 = self._tool_3()
        self._advance(tool_3)
        target_3, grip = self._target(tool_3)
        move_3 = np.clip(GAIN_PER_M * (target_3 - tool_3), -1.0, 1.0)
        turn_3 = np.clip(GAIN_PER_RAD * self._turn_3(), -1.0, 1.0)
        return np.concatenate([move_3, turn_3, [grip]]).astype(np.float32)

    def _plan(self) -> tuple[float, NDArray[np.float64]]:
        """The turn about the vertical, and where the tool centre stands from the object's middle when it grasps."""
        points_N3, middle_3 = self._points(self._carried), self._middle(self._carried)
        low, high = points_N3[:, 2].min(), points_N3[:, 2].max()
        widths = [np.ptp(points_N3[:, :2] @ self._closing_2(angle)) for angle in _ANGLES]
        best = int(np.argmin(np.array(widths) + 0.004 * np.abs(_ANGLES)))  # the smaller turn of two that are about as narrow
        if widths[best] < FITS_M:
            return float(_ANGLES[best]), np.array([0.0, 0.0, max(low + 0.012, high - 0.03) - middle_3[2]])
        across_2 = self._closing_2(0.0)
        sides = [sign * across_2 * (np.abs((points_N3[:, :2] - middle_3[:2]) @ across_2).max() - FINGER_M) for sign in (1, -1)]
        free = [min((np.hypot(*(self._middle(o)[:2] - middle_3[:2] - 1.5 * side)) for o in self._others), default=1.0) for side in sides]
        side_2 = sides[int(np.argmax(free))]
        return 0.0, np.array([*side_2, high - 0.018 - middle_3[2]])

    def _advance(self, tool_3: NDArray[np.float64]) -> None:
        self._steps += 1
        grasp_3 = self._middle(self._carried) + self._offset_3
        beside = np.hypot(*(tool_3 - grasp_3)[:2])
        if self._phase == "approach" and beside < NEAR_M and np.linalg.norm(self._turn_3()) < 0.15:
            self._enter("descend")
        elif self._phase == "descend":
            if beside > 3 * NEAR_M:
                self._enter("approach")
            elif abs(tool_3[2] - grasp_3[2]) < NEAR_M:
                self._enter("grasp")
        elif self._phase == "grasp" and self._steps > GRASP_STEPS:
            self._enter("lift")
        elif self._phase in ("lift", "carry", "lower"):
            self._carrying(tool_3)
        elif self._phase == "release" and self._steps > RELEASE_STEPS:
            self._enter("retreat")
        elif self._phase == "retreat" and self._steps > 15:
            self._again()

    def _carrying(self, tool_3: NDArray[np.float64]) -> None:
        held_3 = self._middle(self._carried) - tool_3
        if np.linalg.norm(held_3 + self._offset_3) > 0.06:
            self._again()  # it slipped out
            return
        goal_3 = self._middle(self._goal)
        beside = np.hypot(*(self._middle(self._carried) - goal_3)[:2])
        if self._phase == "lift" and tool_3[2] > self._carry_z - 0.04:
            self._enter("carry")
        elif self._phase == "carry" and beside < 1.5 * NEAR_M:
            self._enter("lower")
        elif self._phase == "lower" and (self._bottom(self._carried) < self._support() + 0.02 or self._steps > 25):
            self._enter("release")

    def _target(self, tool_3: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        grasp_3 = self._middle(self._carried) + self._offset_3
        if self._phase == "approach":
            high = self._carry_z - 0.02 if np.hypot(*(tool_3 - grasp_3)[:2]) > 0.05 else grasp_3[2] + 0.08
            return np.array([*grasp_3[:2], high]), OPEN
        if self._phase == "descend":
            return grasp_3, OPEN
        if self._phase == "grasp":
            return tool_3, CLOSE
        if self._phase == "lift":
            return np.array([*tool_3[:2], self._carry_z]), CLOSE
        to_goal_2 = (self._middle(self._goal) - self._middle(self._carried))[:2]
        if self._phase == "carry":
            return np.array([*(tool_3[:2] + to_goal_2), self._carry_z]), CLOSE
        if self._phase == "lower":
            return np.array([*(tool_3[:2] + to_goal_2), tool_3[2] - 0.04]), CLOSE
        if self._phase == "release":
            return tool_3, OPEN
        return np.array([*tool_3[:2], self._carry_z]), OPEN

    def _support(self) -> float:
        """Where the carried object comes to rest: on a flat goal, or inside of a high one, over whose edge it is let go."""
        points_N3 = self._points(self._goal)
        low, high = points_N3[:, 2].min(), points_N3[:, 2].max()
        return float(high - 0.03 if high - low > 0.06 else high - 0.01)

    def _enter(self, phase: str) -> None:
        self._phase, self._steps = phase, 0

    def _again(self) -> None:
        self._yaw, self._offset_3 = self._plan()
        self._enter("approach")

    # --- what is seen of the simulator's state -------------------------------------------------------------------

    def _tool_3(self) -> NDArray[np.float64]:
        return np.array(self._data.site("gripper0_grip_site").xpos)

    def _tool_33(self) -> NDArray[np.float64]:
        return np.array(self._data.site("gripper0_grip_site").xmat).reshape(3, 3)

    def _closing_2(self, angle: float) -> NDArray[np.float64]:
        """Direction in which the fingers close, after a turn by `angle` about the vertical."""
        x, y = self._closes_2
        turned_2 = np.array([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y])
        return turned_2 / np.linalg.norm(turned_2)

    def _turn_3(self) -> NDArray[np.float64]:
        """Rotation vector from the tool as it stands to how it should."""
        c, s = np.cos(self._yaw), np.sin(self._yaw)
        wanted_33 = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ self._upright_33
        left_33 = wanted_33 @ self._tool_33().T
        axis_3 = 0.5 * np.array([left_33[2, 1] - left_33[1, 2], left_33[0, 2] - left_33[2, 0], left_33[1, 0] - left_33[0, 1]])
        sine, cosine = np.linalg.norm(axis_3), 0.5 * (np.trace(left_33) - 1.0)
        return axis_3 * (np.arctan2(sine, cosine) / sine if sine > 1e-9 else 0.0)

    def _middle(self, body: int) -> NDArray[np.float64]:
        points_N3 = self._points(body)
        return 0.5 * (points_N3.min(axis=0) + points_N3.max(axis=0))

    def _bottom(self, body: int) -> float:
        return float(self._points(body)[:, 2].min())

    def _points(self, body: int) -> NDArray[np.float64]:
        """World points (N, 3) of the shapes that a body touches with."""
        m, d = self._model, self._data
        found = []
        for geom in np.flatnonzero((m.body_rootid[m.geom_bodyid] == m.body_rootid[body]) & (m.geom_contype > 0)):
            if m.geom_type[geom] == 7:  # a mesh: its vertices
                mesh = m.geom_dataid[geom]
                first = m.mesh_vertadr[mesh]
                local_N3 = m.mesh_vert[first : first + m.mesh_vertnum[mesh]]
            else:  # the corners of its box
                half_3 = np.where(m.geom_size[geom] > 0, m.geom_size[geom], m.geom_size[geom, 0])
                local_N3 = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half_3
            found.append(local_N3 @ d.geom_xmat[geom].reshape(3, 3).T + d.geom_xpos[geom])
        return np.concatenate(found)
