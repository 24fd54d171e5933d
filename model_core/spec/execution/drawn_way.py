"""What of a drawn line lies still before the gripper, in pixels of the image that it was drawn on.

A policy is taught lines that go from where the gripper is now to where the episode ends (MolmoAct release, `preprocess/line_utils.py`), so
of a drawing it is given what is still to come. Evaluation and cells run these very lines. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.spec.types import TRACE_MAX_POINTS

_SAMPLES = 257  # places on what is left of the line among which the nearest one is searched
_SLACK = 0.1  # of the line's length: of places about equally near the earliest counts, so that a loop is not skipped


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WayAhead:
    """points_N2: float32 (N, 2), N of at least five. passed: the share 0..1 of the line's length that lies behind the gripper."""

    points_N2: NDArray[np.float32]
    passed: float


def way_ahead(line_N2: NDArray[np.floating], gripper_2: NDArray[np.floating] | None, passed: float = 0.0) -> WayAhead:
    """What of `line_N2` (N, 2) lies before the gripper, given the share that it had passed before: that part never comes back.

    It begins at the gripper. A gripper beside the line joins it as far ahead as it is away, and one at or beyond the line's end is given
    the way to the end. gripper_2: None where the camera does not see it; the way then begins where it had come to.
    """
    line_N2 = np.asarray(line_N2, np.float64)
    along_N = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line_N2, axis=0), axis=1))])
    length = float(along_N[-1])
    joins = passed
    if gripper_2 is not None:
        passed, away = _nearest(line_N2, along_N, np.asarray(gripper_2, np.float64), passed)
        joins = min(1.0, passed + away / length) if length else 1.0
    rest_N2 = np.concatenate([_at(line_N2, along_N, np.array([joins])), line_N2[along_N > joins * length]])
    begun_N2 = rest_N2 if gripper_2 is None else np.concatenate([np.asarray(gripper_2, np.float64)[None], rest_N2])
    return WayAhead(points_N2=_with_points(begun_N2, TRACE_MAX_POINTS).astype(np.float32), passed=passed)


def _nearest(
    line_N2: NDArray[np.float64], along_N: NDArray[np.float64], gripper_2: NDArray[np.float64], passed: float
) -> tuple[float, float]:
    """The share of the line at its place nearest to the gripper, not before `passed`, and how far away that is."""
    shares_S = np.linspace(passed, 1.0, _SAMPLES)
    away_S = np.linalg.norm(_at(line_N2, along_N, shares_S) - gripper_2, axis=1)
    first = int(np.argmax(away_S <= away_S.min() + _SLACK * along_N[-1]))
    farther_R = np.flatnonzero(np.diff(away_S[first:]) > 0)
    nearest = first + int(farther_R[0]) if len(farther_R) else _SAMPLES - 1
    return float(shares_S[nearest]), float(away_S[nearest])


def _at(line_N2: NDArray[np.float64], along_N: NDArray[np.float64], shares_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places on a line by their share of its length, (S, 2)."""
    at_S = shares_S * float(along_N[-1])
    return np.stack([np.interp(at_S, along_N, line_N2[:, axis]) for axis in range(2)], axis=1)


def _with_points(points_N2: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The same line with at least `count` points: its longest parts are halved."""
    while len(points_N2) < count:
        longest = 0 if len(points_N2) < 2 else int(np.argmax(np.linalg.norm(np.diff(points_N2, axis=0), axis=1)))
        middle_2 = points_N2[longest : longest + 2].mean(axis=0)
        points_N2 = np.insert(points_N2, longest + 1, middle_2, axis=0)
    return points_N2
