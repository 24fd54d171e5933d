"""`actwright embodiment`: draft, check and ready on a data set on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.data.embodiments.file import read_embodiment
from flows.commands.data.embodiment import embodiment_app
from model_core.spec.errors import GateError
from tests.plain_set import PlainEpisode, PlainLayout, change_data, change_info, marked_frames, write_plain_set
from tests.recorded_sets import recorded_set

NAMES = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "gripper.pos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of a plain LeRobot set whose actions are absolute joint angles."""
    recorded = recorded_set("absolute", episodes=4, length=60)
    episodes = [
        PlainEpisode(
            state_TP=recorded.state_NP[start : start + length],
            actions_TA=recorded.actions_NA[start : start + length],
            frames_THW3=marked_frames(number, int(length), 32),
            tasks=("pick it up",) * int(length),
        )
        for number, (start, length) in enumerate(zip(recorded.starts_E, recorded.lengths_E, strict=True))
    ]
    root = write_plain_set(tmp_path_factory.mktemp("set") / "arm", episodes, PlainLayout(robot_type="my_arm"))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    for name in ("observation.state", "action"):
        features[name]["names"] = {"motors": list(NAMES)}
    change_info(root, features=features)
    return root


def run(*arguments: object) -> Any:
    return CliRunner().invoke(embodiment_app, [str(argument) for argument in arguments])


def test_draft_answer_sign_check(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "arm.yaml"
    drafted = run("draft", folder, "--out", path)
    assert drafted.exit_code == 0, drafted.output
    assert json.loads(drafted.stdout) == {"open": 1, "path": str(path)}
    assert "which of the two values opens the gripper?" in drafted.stderr
    text = path.read_text(encoding="utf-8")
    question = next(line for line in text.splitlines() if "which of the two values" in line)
    text = text.replace(question, question.split("confirm:")[0] + "value: 1.0")
    path.write_text(text.rsplit("\nconfirmed:", 1)[0] + "\nconfirmed: {by: Ada, on: 2026-11-29}\n", encoding="utf-8")
    body = read_embodiment(path)
    assert (body.name, body.control_hz, body.action.mode, body.gripper_open) == ("my_arm", 20, "absolute", 1.0)
    assert [(camera.name, camera.width, camera.height) for camera in body.cameras] == [("front", 32, 32)]
    checked = run("check", path, folder)
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["contradictions"] == []


def test_a_contradiction_ends_the_check_with_the_gate_and_its_numbers(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "arm.yaml"
    run("draft", folder, "--out", path)
    path.write_text(path.read_text(encoding="utf-8").replace("value: absolute", "value: delta"), encoding="utf-8")
    checked = run("check", path, folder)
    assert isinstance(checked.exception, GateError)  # exit code 3 of the console script
    assert "not as delta" in str(checked.exception)
    assert json.loads(checked.stdout)["contradictions"]


def test_a_ready_file_is_checked_by_its_name_and_written_once(folder: Path, tmp_path: Path) -> None:
    checked = run("check", "droid", folder)
    assert isinstance(checked.exception, GateError)
    assert "file 8 dimensions, set 4" in str(checked.exception)
    path = tmp_path / "mine.yaml"
    assert json.loads(run("ready", "so101", "--out", path).stdout)["open"] > 0
    again = run("ready", "so101", "--out", path)
    assert again.exit_code == 2
    assert "there already" in " ".join(again.stderr.split())
    assert "droid" in json.loads(run("ready").stdout)["ready"]


def test_a_draft_never_replaces_what_a_person_answered(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "arm.yaml"
    path.write_text("answered")
    assert run("draft", folder, "--out", path).exit_code == 2
    assert path.read_text() == "answered"
    assert run("draft", tmp_path / "nowhere").exit_code == 2


def test_a_set_without_state_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "bare"))
    change_data(copy, lambda table: table.drop_columns(["observation.state"]))
    ended = run("draft", copy, "--out", tmp_path / "bare.yaml")
    assert "has no column 'observation.state'" in str(ended.exception)
    assert not (tmp_path / "bare.yaml").exists()
