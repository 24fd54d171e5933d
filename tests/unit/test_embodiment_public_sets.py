"""Drafts of data sets that the public writers wrote, whose meaning their README states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.data.embodiments.check import check_embodiment
from components.data.embodiments.draft import draft_of
from components.data.embodiments.evidence.recorded import read_recorded
from components.data.embodiments.file import EmbodimentFile, read_file
from components.data.embodiments.writing import text_of
from model_core.spec.errors import SpecError
from tests.road import ANSWERS, OF_BOTH, answer

SETS = Path(__file__).parents[1] / "data/public_writers"


def drafted(name: str, folder: Path) -> EmbodimentFile:
    path = folder / f"{name}.yaml"
    path.write_text(text_of(draft_of(read_recorded(SETS / name))), encoding="utf-8")
    return read_file(path)


def test_steps_in_metres_are_found_and_the_gripper_is_a_position(tmp_path: Path) -> None:
    """v30: actions are steps in metres and radians, executed exactly; the gripper is 1 open, 0 closed."""
    file = drafted("v30", tmp_path)
    document = file.document
    assert document.action.mode == "delta"
    [item] = [one for one in file.questions if one.place == "action, dims 'gripper', mode"]
    assert item.likely == ""  # the best reading, delta, leaves four fifths of the gripper's motion unexplained
    assert [dim.unit for dim in document.action.dims[:3]] == ["m"] * 3
    assert document.action.dims[-1].mode in ("absolute", None)
    assert (document.gripper.dim, document.gripper.values, document.gripper.threshold) == ("gripper", (0, 1), 0.5)
    assert [(camera.name, camera.width, camera.height) for camera in document.cameras] == [("front", 64, 48), ("side", 64, 48)]
    assert document.control_hz == 20


@pytest.mark.parametrize("name", ["v21", "v21_images"])
def test_parts_of_a_step_are_asked_about_with_what_one_of_them_moves(name: str, tmp_path: Path) -> None:
    """v21: an action of 1 moves 0.01 m or 0.08 rad."""
    file = drafted(name, tmp_path)
    [item] = [one for one in file.questions if one.place == "action, mode"]
    assert item.likely == "delta"
    assert "1 of the action is 0.01 of the state" in file.evidence["action.dims[0].mode"]
    assert "1 of the action is 0.08 of the state" in file.evidence["action.dims[3].mode"]
    assert file.document.gripper.values == (-1, 1)


@pytest.mark.parametrize(("name", "opens"), [("v30", 1), ("v21", -1)])
def test_a_right_answer_agrees_and_another_mode_does_not(name: str, opens: int, tmp_path: Path) -> None:
    recorded = read_recorded(SETS / name)
    document = drafted(name, tmp_path).document
    right = replace(document, gripper=replace(document.gripper, open=opens), action=replace(document.action, mode="delta"))
    results = check_embodiment(right, recorded)
    assert [str(result) for result in results if result.verdict == "contradicts"] == []
    assert {result.verdict for result in results if result.check == "motion" and "gripper" not in result.where} == {"agrees"}
    wrong = replace(right, action=replace(right.action, mode="absolute"))
    assert [result for result in check_embodiment(wrong, recorded) if result.check == "motion" and result.verdict == "contradicts"]


def test_a_step_that_only_ever_went_down_may_be_held(tmp_path: Path) -> None:
    """v30: the arm only descends, so every recorded step of z is below 0; a cell that holds sends 0."""
    file = drafted("v30", tmp_path)
    z = file.document.action.dims[2]
    assert (z.name, z.high) == ("z", 0)
    assert "widened to 0, which holds the robot" in " ".join(file.evidence["action.dims[2].range"].split())
    answer(file.path, {**OF_BOTH, **ANSWERS["v30"]})
    document = read_file(file.path).document
    assert document.spec().hold[2] == 0
    dims = (*document.action.dims[:2], replace(z, high=-0.0001), *document.action.dims[3:])
    with pytest.raises(SpecError, match=r"dimension 'z': 0 holds the robot, and is outside of its range .* Fix: widen the range"):
        replace(document, action=replace(document.action, dims=dims)).spec()
