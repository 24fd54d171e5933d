"""Rules about movement: images that stand still while the arm moves, and episodes in which hardly anything happens.

What a command to move is depends on what the action means. A difference or a speed commands movement by its size, a position by its
change. The gripper's number always counts by its change: one that is held closed moves nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.rule import EPISODES, InspectionRule
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode

MOVING = 0.05  # a difference, a speed or a change of the gripper above this share of its largest value is a command to move
MOVING_TARGET = 0.005  # a position that changes by more than this share of its range within a step is one too
MOVED = 0.001  # a state that changes by more than this share of its range within a step has moved
PLAINLY_MOVED = 0.005  # and by more than this, a camera has to show it
SIZES = ("delta", "velocity")
_ONE = np.zeros(1, np.int64)  # where one episode begins


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` with 0 for what is no number: themselves where every one is, which is cheaper than a copy."""
    return values if np.isfinite(values).all() else np.nan_to_num(values)


def commanded_T(episode: Episode, body: EmbodimentSpec | None) -> NDArray[np.bool_]:
    """`commanded_rows_T` of what was executed."""
    return commanded_rows_T(episode.executed_TA, body)


def commanded_rows_T(
    executed_TA: NDArray[np.floating], body: EmbodimentSpec | None, starts_E: NDArray[np.int64] = _ONE
) -> NDArray[np.bool_]:
    """Per step, whether what was executed commands the arm or its gripper to move. Without a body the meaning of numbers is unknown:
    then each of them counts by its size. starts_E: the rows at which an episode begins, of several one after the other.
    """
    actions_TA = finite(np.asarray(executed_TA, np.float64))
    if body is None or actions_TA.shape[1] != len(body.action):
        return np.abs(actions_TA).max(axis=1, initial=0.0) > MOVING
    is_size_A = np.array(
        [mode in SIZES and dim.name != body.gripper_dim for mode, dim in zip(body.action.modes, body.action.dims, strict=True)]
    )
    is_gripper_A = np.array([dim.name == body.gripper_dim for dim in body.action.dims])
    low_A, high_A = body.action.low.astype(np.float64), body.action.high.astype(np.float64)
    limit_A = np.where(is_gripper_A, MOVING, MOVING_TARGET) * (high_A - low_A)
    limit_A = np.where(is_size_A, MOVING * np.maximum(np.abs(low_A), np.abs(high_A)), limit_A)
    value_TA = np.where(is_size_A, np.abs(actions_TA), _changes(actions_TA, starts_E))
    return np.any(value_TA > limit_A, axis=1)


def moved_T(episode: Episode, body: EmbodimentSpec | None, share: float) -> NDArray[np.bool_]:
    """`moved_rows_T` of the state."""
    return moved_rows_T(episode.proprio_TP, body, share)


def moved_rows_T(
    proprio_TP: NDArray[np.floating], body: EmbodimentSpec | None, share: float, starts_E: NDArray[np.int64] = _ONE
) -> NDArray[np.bool_]:
    """Per step, whether the state changes until the next one by more than `share` of a dimension's range; the last of an episode is as the
    one before. starts_E: the rows at which an episode begins, of several one after the other.
    """
    state_TP = finite(np.asarray(proprio_TP, np.float64))
    is_known = body is not None and state_TP.shape[1] == len(body.proprio)
    limit_P = share * (body.proprio.high - body.proprio.low) if body is not None and is_known else np.zeros(state_TP.shape[1])
    ahead_TP = np.abs(np.diff(state_TP, axis=0))
    if not len(state_TP):
        return np.zeros(0, np.bool_)
    moved_T = np.append(np.any(ahead_TP > limit_P, axis=1), False)
    ends_E = np.append(starts_E[1:], len(state_TP)) - 1
    moved_T[ends_E] = np.where(ends_E > starts_E, moved_T[ends_E - 1], False)
    return moved_T


def _changes(values_TD: NDArray[np.float64], starts_E: NDArray[np.int64]) -> NDArray[np.float64]:
    """The change of each row from the one before; 0 where an episode begins."""
    changes = np.abs(np.diff(values_TD, axis=0, prepend=values_TD[:1]))
    changes[starts_E[: len(values_TD)]] = 0.0
    return changes


def not_frozen(cfg: ValidateConfig, camera: str, body: EmbodimentSpec | None = None) -> InspectionRule:
    """The longest run of images that equal the one before, counted only while the arm is commanded to move or plainly moves."""

    def measure(episode: Episode) -> int:
        frames_THW3 = episode.images[camera]
        moving_T = commanded_T(episode, body)
        if body is not None:
            moving_T = moving_T | moved_T(episode, body, PLAINLY_MOVED)
        same_T = (frames_THW3[1:] == frames_THW3[:-1]).all(axis=(1, 2, 3)) & moving_T[:-1]
        changes = np.flatnonzero(np.r_[True, ~same_T, True])
        return int(np.diff(changes).max() - 1)

    return InspectionRule(
        check="frozen_frames",
        column=f"frozen_frames.{camera}",
        table=EPISODES,
        meaning=f"images of {camera} change while the arm is commanded to move",
        measure=measure,
        low=0,
        high=cfg.frozen_frames_limit,
    )


def not_idle(cfg: ValidateConfig, body: EmbodimentSpec | None) -> InspectionRule:
    """Nothing is commanded and nothing moves in at most a share of the steps: a policy that learns from the rest learns to wait."""

    def measure(episode: Episode) -> float:
        return float((~commanded_T(episode, body) & ~moved_T(episode, body, MOVED)).mean())

    meaning = f"the robot stands still in at most {cfg.max_idle_fraction:.0%} of the steps"
    high = cfg.max_idle_fraction
    return InspectionRule(check="idle", column="idle", table=EPISODES, meaning=meaning, measure=measure, low=0.0, high=high)
