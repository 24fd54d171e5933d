"""The bridge to LeRobot's `Robot` interface: numbers in the contract's units, and a refusal for whatever that interface cannot say."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model_core.spec.embodiment import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.errors import NotReady, SpecError
from serving.workcell.robot.interface import Robot
from serving.workcell.robot.lerobot_bridge import StatedRobot, bridge, make_robot
from tests.fakes import make_contract
from tests.lerobot_mock import JOINTS, MockArm

DIMS = (*(DimSpec(name=name, unit="rad", low=-2, high=2) for name in JOINTS), DimSpec(name="gripper", unit="fraction", low=0, high=1))
BODY = EmbodimentSpec(
    name="mock",
    cameras=(CameraSpec(name="front", width=64, height=48),),
    proprio=VectorSpec(dims=DIMS),
    action=VectorSpec(dims=DIMS, mode="absolute"),
    control_hz=20,
    gripper_dim="gripper",
    gripper_open=1,
    hold=(None, None, None),
)
STATED = StatedRobot(unit="deg", gripper_unit="percent", gripper_open=100, steps=3)


def arm(robot: MockArm | None = None, body: EmbodimentSpec = BODY, stated: StatedRobot = STATED):
    return bridge(robot or MockArm(), body, stated, task="t", instruction="push")


def test_numbers_are_converted_both_ways_and_images_are_copies():
    robot = MockArm()
    robot.connect(calibrate=False)
    made = arm(robot)
    assert isinstance(made, Robot)
    first, second = made.observe(), made.observe()
    np.testing.assert_allclose(first.proprio_P, [math.radians(10), math.radians(-20), 0.5], rtol=1e-6)
    assert (first.images["front"].max(), second.images["front"].max()) == (1, 2)
    made.act(np.array([0.5, -1.0, 1.0], np.float32))
    assert robot.sent[-1] == pytest.approx({"shoulder.pos": math.degrees(0.5), "elbow.pos": math.degrees(-1), "gripper.pos": 100.0})
    np.testing.assert_allclose(made.observe().proprio_P, [0.5, -1.0, 1.0], rtol=1e-6)
    assert [made.act(np.zeros(3, np.float32)).done for _ in range(2)] == [False, True]
    made.close()
    made.close()
    assert not robot.is_connected


def test_a_command_that_the_robot_changed_is_told(caplog):
    robot = MockArm()
    robot.connect(calibrate=False)
    made = arm(robot)
    with caplog.at_level(logging.WARNING):
        made.act(np.array([0.1, 0.1, 0.5], np.float32))
        assert made.clipped == 0
        made.act(np.array([2.0, 0.1, 0.5], np.float32))
    assert made.clipped == 1
    assert "shoulder.pos 114.59 -> 100" in caplog.text


def changed(**changes: Any) -> EmbodimentSpec:
    return replace(BODY, **changes)


def dims(place: int, **changes: Any) -> VectorSpec:
    return VectorSpec(dims=tuple(replace(dim, **changes) if n == place else dim for n, dim in enumerate(DIMS)), mode="absolute")


@pytest.mark.parametrize(
    ("robot", "body", "stated", "reason"),
    [
        ({}, changed(gripper_open=0), STATED, "a turned polarity"),
        ({}, BODY, replace(STATED, gripper_open=0), "a turned polarity"),
        ({}, changed(gripper_dim=""), STATED, "no gripper dimension"),
        ({}, BODY, replace(STATED, unit="range_100"), "not the same measure"),
        ({}, changed(action=dims(0, unit="m")), STATED, "not the same measure"),
        ({}, changed(action=dims(0, unit="deg")), STATED, "in two units"),
        ({}, changed(action=dims(1, mode="delta")), STATED, "is delta"),
        ({}, changed(action=dims(1, name="wrist")), STATED, "no 'wrist' or 'wrist.pos'"),
        ({"more": ("wrist.pos",)}, BODY, STATED, "also wants wrist.pos"),
        ({}, changed(cameras=(CameraSpec(name="front", width=32, height=48),)), STATED, "images of"),
        ({}, changed(cameras=(CameraSpec(name="shoulder", width=64, height=48),)), STATED, "is a number"),
        ({"config": SimpleNamespace(use_degrees=False)}, BODY, STATED, "use_degrees is False"),
        ({"config": SimpleNamespace(cameras={"front": SimpleNamespace(color_mode="bgr")})}, BODY, STATED, "gives bgr images"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_connected(robot, body, stated, reason):
    with pytest.raises(SpecError, match=reason):
        arm(MockArm(**robot), body, stated)


def test_units_are_never_guessed_and_a_cell_never_calibrates(tmp_path):
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(make_contract(BODY).to_json()))
    options = {"robot": "tests.lerobot_mock:make_arm", "contract": str(path), "instruction": "push"}
    with pytest.raises(SpecError, match="does not say unit, gripper_unit, gripper_open"):
        make_robot("t", 0, **options)
    stated = {"unit": "deg", "gripper_unit": "percent", "gripper_open": 100}
    with pytest.raises(NotReady, match="not calibrated"):
        make_robot("t", 0, **options, **stated, options={"is_calibrated": False})
    with pytest.raises(SpecError, match="unit 'degrees'"):
        make_robot("t", 0, **options, **{**stated, "unit": "degrees"})
    with pytest.raises(SpecError, match="module:function"):
        make_robot("t", 0, **{**options, "robot": "tests.lerobot_mock:absent"}, **stated)
    made = make_robot("t", 0, **options, **stated)
    assert made.robot.is_connected
    made.reset(0)
    made.close()
