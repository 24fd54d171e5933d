"""Holding still, for evaluation and for workcells alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_core.spec.errors import SpecError
from model_core.spec.execution.holding import hold_action
from tests.fakes import make_embodiment


def test_hold_stops_the_hand_and_repeats_the_gripper() -> None:
    last_A = np.array([0.3, 0.2, 0.1, 0.7], np.float32)
    assert hold_action(make_embodiment(), last_A).tolist() == pytest.approx([0, 0, 0, 0.7])


def test_before_the_first_action_the_gripper_opens() -> None:
    assert hold_action(make_embodiment(), None).tolist() == [0, 0, 0, -1]


def test_a_gripper_that_is_measured_is_not_opened_before_its_first_command() -> None:
    body = make_embodiment()
    gripper = replace(body.action.dims[3], mode="absolute")
    seen = replace(body.proprio.dims[0], name="gripper", unit=gripper.unit, frame=gripper.frame)
    body = replace(
        body,
        action=replace(body.action, dims=(*body.action.dims[:3], gripper)),
        proprio=replace(body.proprio, dims=(seen, *body.proprio.dims[1:3])),
        hold=(0.0, 0.0, 0.0, None),
    )
    proprio_P = np.array([0.4, 0.0, 0.0], np.float32)
    assert hold_action(body, None, proprio_P)[3] == pytest.approx(0.4)
    assert hold_action(body, np.array([0, 0, 0, 0.7], np.float32), proprio_P)[3] == pytest.approx(0.7)
    assert hold_action(body, None)[3] == -1.0


def test_what_is_repeated_stays_inside_the_limits() -> None:
    assert hold_action(make_embodiment(), np.array([0, 0, 0, 7], np.float32)).tolist() == [0, 0, 0, 1]


def test_an_absolute_target_is_never_made_up() -> None:
    body = make_embodiment()
    absolute = replace(body, action=replace(body.action, mode="absolute"), hold=(None, None, None, None))
    with pytest.raises(SpecError, match="dx"):
        hold_action(absolute, None)
    last_A = np.array([0.3, 0.2, 0.1, 0.7], np.float32)
    assert hold_action(absolute, last_A).tolist() == pytest.approx(last_A.tolist())
