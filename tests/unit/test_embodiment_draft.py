"""A draft finds what recorded numbers tell, and leaves open what they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.embodiments.document import EmbodimentDocument
from components.data.embodiments.draft import draft_of
from components.data.embodiments.evidence.recorded import RecordedSet
from components.data.embodiments.file import EmbodimentFile, read_file
from components.data.embodiments.writing import text_of
from tests.recorded_sets import JOINTS, recorded_set, without_names

DEGREES = 180 / np.pi
POSE = ("eef_x", "eef_y", "eef_z", "gripper")


def drafted(recorded: RecordedSet, folder: Path) -> EmbodimentFile:
    path = folder / "draft.yaml"
    path.write_text(text_of(draft_of(recorded)), encoding="utf-8")
    return read_file(path)


def arm_modes(document: EmbodimentDocument) -> list[str | None]:
    return [dim.mode or document.action.mode for dim in document.action.dims[:-1]]


def units(document: EmbodimentDocument, vector: str) -> list[str | None]:
    return [dim.unit for dim in getattr(document, vector).dims]


def open_at(file: EmbodimentFile) -> list[str]:
    return [item.place for item in file.questions]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("absolute", {}),
        ("absolute", {"unit": DEGREES, "gripper": (0.0, 100.0)}),
        ("absolute", {"action_unit": DEGREES}),
        ("absolute", {"fixed_start": True}),  # all begin at 0.6: relative actions would begin at 0
        ("delta", {}),
        ("delta", {"unit": DEGREES}),
        ("relative", {}),
        ("relative", {"chunk": 16}),
    ],
)
def test_a_mode_that_the_motion_shows_is_found_with_its_numbers(mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    file = drafted(recorded_set(mode, **options), tmp_path)
    assert arm_modes(file.document) == [mode] * 3
    assert "action, mode" not in open_at(file)
    assert f"{mode} 0.0" in file.evidence["action.dims[0].mode"] or "relative to the first state" in file.evidence["action.dims[0].mode"]


def test_a_gripper_of_another_mode_than_the_arm_states_its_own(tmp_path: Path) -> None:
    document = drafted(recorded_set("delta"), tmp_path).document
    assert (document.action.mode, document.action.dims[-1].mode) == ("delta", "absolute")


@pytest.mark.parametrize(
    ("recorded", "likely"),
    [
        # every episode begins at 0: absolute and relative to the first state are the same numbers
        (replace(recorded_set("absolute", fixed_start=True), name="both"), "absolute"),
        (recorded_set("velocity"), "velocity"),  # or steps in a unit of a twentieth
        (recorded_set("delta", action_unit=8.0), "delta"),  # or a speed in a unit of its own
    ],
)
def test_a_mode_that_two_readings_explain_is_asked_for_and_never_guessed(recorded: RecordedSet, likely: str, tmp_path: Path) -> None:
    if recorded.name == "both":
        recorded = replace(recorded, state_NP=_from_zero(recorded, recorded.state_NP), actions_NA=_from_zero(recorded, recorded.actions_NA))
    file = drafted(recorded, tmp_path)
    assert file.document.action.mode is None
    [item] = [one for one in file.questions if one.place == "action, mode"]
    assert item.likely == likely
    assert all(name in item.evidence for name in JOINTS)


def _from_zero(recorded: RecordedSet, values_ND: np.ndarray) -> np.ndarray:
    moved = values_ND.copy()
    for start, length in zip(recorded.starts_E, recorded.lengths_E, strict=True):
        moved[start : start + length, :-1] -= recorded.actions_NA[start, :-1]
    return moved


def test_an_arm_that_never_moves_has_no_mode(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    still = replace(recorded, state_NP=np.full_like(recorded.state_NP, 0.5), actions_NA=np.full_like(recorded.actions_NA, 0.5))
    file = drafted(still, tmp_path)
    assert file.document.action.mode is None
    assert file.document.action.dims[0].low is None
    assert "constant 0.5 in 720 rows" in next(item.evidence for item in file.questions if "low" in item.place)


@pytest.mark.parametrize(
    ("options", "state", "action"),
    [
        ({}, "rad", "rad"),
        ({"unit": DEGREES}, "deg", "deg"),
        ({"action_unit": DEGREES}, "rad", "deg"),
        ({"unit": DEGREES, "action_unit": 1.0}, "deg", "rad"),
        ({"unit": 0.3}, None, None),  # within -1..1: radians or normalised
        ({"unit": 0.3, "action_unit": 0.3 * DEGREES}, "rad", "deg"),  # the factor between the two decides both
        ({"unit": 20.0}, None, None),  # within -100..100: degrees or percent
    ],
)
def test_the_unit_of_joints(options: dict[str, Any], state: str | None, action: str | None, tmp_path: Path) -> None:
    document = drafted(recorded_set("absolute", **options), tmp_path).document
    assert units(document, "proprio")[:3] == [state] * 3
    assert units(document, "action")[:3] == [action] * 3


@pytest.mark.parametrize(
    ("options", "state", "action"),
    [({"unit": 0.3}, "m", "m"), ({"unit": 300.0}, None, None), ({"unit": 0.3, "action_unit": 300.0}, "m", "mm")],
)
def test_the_unit_of_positions(options: dict[str, Any], state: str | None, action: str | None, tmp_path: Path) -> None:
    document = drafted(recorded_set("absolute", names=POSE, **options), tmp_path).document
    assert units(document, "proprio")[:3] == [state] * 3
    assert units(document, "action")[:3] == [action] * 3


def test_normalised_steps_name_what_one_of_them_moves(tmp_path: Path) -> None:
    recorded = recorded_set("delta", names=POSE, action_unit=20.0)
    clipped = replace(recorded, actions_NA=np.clip(recorded.actions_NA, -1, 1))
    file = drafted(clipped, tmp_path)
    assert units(file.document, "action")[:3] == ["normalised"] * 3
    assert "exactly there" in file.evidence["action.dims[0].unit"]
    assert "frame" in " ".join(open_at(file))


@pytest.mark.parametrize(("bounds", "unit"), [((0.0, 1.0), "fraction"), ((0.0, 100.0), "percent"), ((-1.0, 1.0), "normalised")])
def test_the_gripper_is_found_with_its_range_and_its_polarity_stays_open(bounds: tuple[float, float], unit: str, tmp_path: Path) -> None:
    file = drafted(recorded_set("absolute", gripper=bounds), tmp_path)
    gripper = file.document.gripper
    assert (gripper.dim, gripper.values, gripper.open) == ("gripper.pos", bounds, None)
    assert gripper.threshold == sum(bounds) / 2
    assert file.document.action.dims[-1].unit == unit
    [item] = [one for one in file.questions if one.place == "gripper, open"]
    assert "8 of 8 episodes begin nearer to the larger value" in item.evidence


def test_a_gripper_that_takes_every_value_has_no_threshold_and_an_unknown_range_is_asked_for(tmp_path: Path) -> None:
    recorded = recorded_set("absolute", gripper=(12.0, 47.0))
    actions_NA = recorded.actions_NA.copy()
    actions_NA[:, -1] = recorded.state_NP[:, -1]  # passes through every value
    file = drafted(replace(recorded, actions_NA=actions_NA), tmp_path)
    assert (file.document.gripper.threshold, file.document.gripper.values) == (None, None)
    assert any(place == "gripper, values" for place in open_at(file))


def test_a_set_without_names_asks_which_number_is_the_gripper_and_what_the_numbers_are(tmp_path: Path) -> None:
    file = drafted(without_names(recorded_set("absolute")), tmp_path)
    assert [dim.name for dim in file.document.action.dims] == ["dim_0", "dim_1", "dim_2", "dim_3"]
    [item] = [one for one in file.questions if one.place == "gripper, dim"]
    assert item.likely == "dim_3"
    assert units(file.document, "action") == [None] * 4
    assert arm_modes(file.document) == ["absolute"] * 3  # this the motion shows without names


def test_two_grippers_are_not_chosen_between(tmp_path: Path) -> None:
    names = ("left_waist", "left_gripper", "right_waist", "right_gripper")
    file = drafted(recorded_set("absolute", names=names), tmp_path)
    [item] = [one for one in file.questions if one.place == "gripper, dim"]
    assert "left_gripper, right_gripper" in item.evidence


def test_limits_are_the_recorded_ones_rounded_outward_and_a_stray_value_is_asked_about(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    document = drafted(recorded, tmp_path).document
    low, high = recorded.actions_NA[:, 0].min(), recorded.actions_NA[:, 0].max()
    dim = document.action.dims[0]
    assert dim.low is not None
    assert dim.high is not None
    assert 0 <= low - dim.low < 0.02 * (high - low)
    assert 0 <= dim.high - high < 0.02 * (high - low)
    actions_NA = recorded.actions_NA.copy()
    actions_NA[400, 0] = 812.0
    file = drafted(replace(recorded, actions_NA=actions_NA), tmp_path)
    assert file.document.action.dims[0].high is None
    assert any("812" not in item.evidence and "beyond all others" in item.evidence for item in file.questions)
    assert "max 812" in file.evidence["action.dims[0].range"]


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    state_NP = recorded.state_NP.copy()
    state_NP[30:33, 1] = np.nan
    file = drafted(replace(recorded, state_NP=state_NP), tmp_path)
    assert "3 values are no numbers" in file.evidence["proprio.dims[1].range"]
    assert arm_modes(file.document) == ["absolute"] * 3


def test_a_rate_that_the_timestamps_deny_is_asked_for(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    assert drafted(recorded, tmp_path).document.control_hz == 20
    file = drafted(replace(recorded, times_N=recorded.times_N * 2), tmp_path)
    assert file.document.control_hz is None
    assert "100 ms" in next(item.evidence for item in file.questions if item.place == "control_hz")


def test_angles_that_jump_by_a_full_turn_are_followed_through_it(tmp_path: Path) -> None:
    recorded = recorded_set("absolute", unit=2.5)
    wrapped = replace(recorded, state_NP=_wrapped(recorded.state_NP), actions_NA=_wrapped(recorded.actions_NA))
    assert np.abs(np.diff(wrapped.state_NP[:, 0])).max() > 5
    assert arm_modes(drafted(wrapped, tmp_path).document) == ["absolute"] * 3


def _wrapped(values_ND: np.ndarray) -> np.ndarray:
    made = values_ND.copy()
    made[:, :-1] = (made[:, :-1] + np.pi) % (2 * np.pi) - np.pi
    return made


def test_cameras_have_the_sizes_that_the_set_states(tmp_path: Path) -> None:
    cameras = drafted(recorded_set("absolute"), tmp_path).document.cameras
    assert [(camera.name, camera.width, camera.height) for camera in cameras] == [("front", 64, 48), ("wrist", 64, 48)]
