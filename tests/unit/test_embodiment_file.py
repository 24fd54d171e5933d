"""An embodiment file: what a person writes is read strictly, and nothing open or unsigned is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.data.embodiments.draft import draft_of
from components.data.embodiments.file import read_embodiment, read_file
from components.data.embodiments.writing import text_of
from model_core.spec.errors import SpecError
from tests.recorded_sets import recorded_set

SIGNED = """\
format: 1
name: my_arm
control_hz: 20
cameras:
  - {name: front, width: 64, height: 48, role: front}
proprio:
  unit: m
  frame: base
  dims:
    - {name: x, low: -0.5, high: 0.5}
    - {name: width, unit: m, frame: gripper, low: 0, high: 0.08, source: finger encoder}
action:
  mode: {value: delta, evidence: "delta 0.01, absolute 0.9"}
  frame: base
  dims:
    - {name: dx, unit: m, low: -0.05, high: 0.05}
    - {name: grip, unit: normalised, frame: gripper, mode: absolute, low: -1, high: 1}
gripper: {dim: grip, values: [-1, 1], open: -1, threshold: 0}
confirmed: {by: Ada Lovelace, on: 2026-11-29}
"""


def written(folder: Path, text: str = SIGNED) -> Path:
    path = folder / "my_arm.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_embodiment(written(folder, text))
    return str(caught.value)


def test_a_signed_file_is_an_embodiment(tmp_path: Path) -> None:
    body = read_embodiment(written(tmp_path))
    assert (body.name, body.control_hz, body.gripper_dim, body.gripper_open) == ("my_arm", 20, "grip", -1)
    assert body.gripper_range == (1, -1)  # closed, open
    assert body.gripper_threshold == 0
    assert body.hold == (0.0, None)
    assert body.action.modes == ("delta", "absolute")
    assert [(dim.unit, dim.frame) for dim in body.proprio.dims] == [("m", "base"), ("m", "gripper")]
    assert body.proprio.dims[1].source == "finger encoder"


def test_every_open_item_is_listed_with_its_line_and_how_to_answer(tmp_path: Path) -> None:
    text = SIGNED.replace("open: -1", "open: {confirm: which value opens it?, likely: -1, evidence: 8 of 8 begin there}")
    text = text.replace("  frame: base\n  dims:\n    - {name: dx", "  frame:\n    confirm: in which frame?\n  dims:\n    - {name: dx")
    said = refusal(tmp_path, text)
    assert "2 items are still to be confirmed" in said
    assert "line 15, action, frame: in which frame?" in said
    assert "line 19, gripper, open: which value opens it? Likely: -1. Evidence: 8 of 8 begin there." in said
    assert "write `value: ANSWER` in place of the line `confirm: ...`" in said


def test_an_answer_in_place_of_the_question_closes_it(tmp_path: Path) -> None:
    text = SIGNED.replace("open: -1", "open: {value: -1, evidence: seen on the robot}")
    assert read_embodiment(written(tmp_path, text)).gripper_open == -1
    both = SIGNED.replace("open: -1", "open: {value: -1, confirm: which?}")
    assert "line 18, gripper, open: has both `value` and `confirm`" in refusal(tmp_path, both)


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("", "no person has confirmed it"),
        ("confirmed: {by: Ada}", "no person has confirmed it"),
        ("confirmed: {by: {confirm: who?}, on: {confirm: when?}}", "no person has confirmed it"),
        ("confirmed: {by: Ada, on: last week}", "expected a day such as 2026-11-29"),
    ],
)
def test_a_file_that_nobody_signed_is_refused(signature: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, SIGNED.replace("confirmed: {by: Ada Lovelace, on: 2026-11-29}", signature))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("control_hz: 20", "control_hz: 20\ncontrol_hz: 30", "not YAML"),  # the second would win without a word
        ("control_hz: 20", "control_hz: twenty", "control_hz"),
        ("control_hz: 20", "control_hertz: 20", "control_hertz"),
        ("format: 1", "format: 7", "format is 7, expected 1"),
        ("open: -1", "open: 0", "gripper.open is 0, expected one of gripper.values, -1 or 1"),
        ("dim: grip,", "dim: hand,", "gripper.dim is 'hand'"),
        ("low: -0.05, high: 0.05", "low: 0.05, high: -0.05", "low must be below high"),
        ("unit: m, low: -0.05", "low: -0.05", "unit is missing"),
        ("mode: absolute, low", "mode: sideways, low", "mode must be one of"),
        ("on: 2026-11-29}", "on: 2026-11-29, title: Dr}", "title"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in SIGNED
    assert said in refusal(tmp_path, SIGNED.replace(old, new))


def test_text_that_makes_objects_or_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        read_file(written(tmp_path, SIGNED.replace("name: my_arm", "name: !!python/object/apply:os.getcwd []")))
    with pytest.raises(SpecError, match="bytes"):
        read_file(written(tmp_path, SIGNED + "#" * 1_000_001))
    with pytest.raises(SpecError, match="expected an embodiment file"):
        read_file(written(tmp_path, "- 1\n- 2\n"))


def test_a_draft_that_a_person_answered_and_signed_is_an_embodiment(tmp_path: Path) -> None:
    """The whole way: draft, put an answer in place of the line of each question."""
    path = written(tmp_path, text_of(draft_of(recorded_set("absolute"))))
    file = read_file(path)
    assert [item.place for item in file.questions] == ["gripper, open"]
    lines = path.read_text(encoding="utf-8").splitlines()
    answers = {"gripper, open": "1.0", "confirmed, by": "Ada", "confirmed, on": "2026-11-29"}
    for item in file.open_items:
        at = item.line - 1
        assert lines[at].strip().startswith("confirm:")
        lines[at] = f"{lines[at].split('confirm:')[0]}value: {answers[item.place]}"
    body = read_embodiment(written(tmp_path, "\n".join(lines)))
    assert (body.gripper_open, body.gripper_range, body.control_hz) == (1.0, (0.0, 1.0), 20)
    assert body.action.modes == ("absolute",) * 4
    assert [camera.name for camera in body.cameras] == ["front", "wrist"]
