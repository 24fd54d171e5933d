"""What counts as movement, frozen images and standing still, for differences, positions and grippers.

Run: .venv/bin/python -m pytest tests/unit/test_motion_rules.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.motion import commanded_T, not_frozen, not_idle
from components.data.inspection.rule import fault_of
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode
from tests.episodes import BODY, episode

STEPS = 40
REST = slice(5, 35)  # 30 of 40 steps


def absolute(body: EmbodimentSpec) -> EmbodimentSpec:
    return replace(body, action=replace(body.action, mode="absolute"))


def resting(gripper: float, rest_A: NDArray[Any] | None = None) -> Episode:
    """Nothing moves during `REST`, while the gripper is told `gripper` and the other numbers `rest_A`."""
    one = episode(1, length=STEPS)
    actions, state, images = one.actions_TA.copy(), one.proprio_TP.copy(), one.images["front"].copy()
    actions[REST, :3] = 0 if rest_A is None else rest_A
    actions[REST, 3] = gripper
    state[REST], images[REST] = state[5], images[5]
    return replace(one, actions_TA=actions, executed_TA=actions, proprio_TP=state, images={"front": images})


@pytest.mark.parametrize("gripper", [0.0, 0.5, -1.0, 1.0])
def test_standing_still_is_noticed_and_a_closed_gripper_is_no_movement(gripper: float) -> None:
    made, cfg = resting(gripper), ValidateConfig()
    assert fault_of(not_frozen(cfg, "front", BODY), made) == ""
    fault = fault_of(not_idle(cfg, BODY), made)
    assert "the robot stands still in at most 50% of the steps; got 0.7" in fault
    assert fault_of(not_idle(ValidateConfig(max_idle_fraction=0.8), BODY), made) == ""


def test_a_camera_that_stands_still_is_noticed_while_the_arm_is_commanded() -> None:
    one = episode(1, length=STEPS)
    still = replace(one, images={"front": one.images["front"][:1].repeat(STEPS, axis=0)})
    assert "images of front change" in fault_of(not_frozen(ValidateConfig(), "front", BODY), still)
    assert fault_of(not_idle(ValidateConfig(), BODY), still) == ""


@pytest.mark.parametrize(("held", "is_idle"), [((0.4, -0.2, 0.3), True), ((0.0, 0.0, 0.0), True)])
def test_a_position_that_is_held_is_no_command_to_move(held: tuple[float, ...], is_idle: bool) -> None:
    made = resting(0.5, np.array(held, np.float32))
    assert bool(fault_of(not_idle(ValidateConfig(), absolute(BODY)), made)) is is_idle
    assert fault_of(not_frozen(ValidateConfig(), "front", absolute(BODY)), made) == ""


def test_a_camera_that_stands_still_is_noticed_while_positions_change() -> None:
    one = episode(1, length=STEPS)
    path_TA = np.concatenate([np.linspace(-0.5, 0.5, STEPS)[:, None].repeat(3, axis=1), np.full((STEPS, 1), 0.2)], axis=1).astype(
        np.float32
    )
    still = replace(one, executed_TA=path_TA, images={"front": one.images["front"][:1].repeat(STEPS, axis=0)})
    assert fault_of(not_frozen(ValidateConfig(), "front", absolute(BODY)), still)


def test_a_gripper_that_opens_is_a_command() -> None:
    actions = np.zeros((STEPS, 4), np.float32)
    actions[20:, 3] = -1.0
    commanded = commanded_T(replace(episode(1, length=STEPS), executed_TA=actions), BODY)
    assert np.flatnonzero(commanded).tolist() == [20]


def test_sizes_are_judged_by_the_range_of_their_dimension() -> None:
    dims = tuple(replace(d, unit="mm", low=-20.0, high=20.0) for d in BODY.action.dims[:3])
    body = replace(BODY, action=replace(BODY.action, dims=(*dims, BODY.action.dims[3])))
    one = replace(episode(1, length=STEPS), executed_TA=np.tile(np.array([0.5, 0, 0, 0], np.float32), (STEPS, 1)))
    assert not commanded_T(one, body).any(), "half a millimetre of twenty is rest"
    assert commanded_T(one, BODY).all(), "half of the range is not"
