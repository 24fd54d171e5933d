"""A check of an embodiment file against recorded numbers: it agrees where it is right, and contradicts what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.embodiments.check import check_embodiment
from components.data.embodiments.check_result import CheckResult
from components.data.embodiments.document import EmbodimentDocument
from components.data.embodiments.draft import draft_of
from components.data.embodiments.evidence.recorded import RecordedSet
from components.data.embodiments.file import read_file
from components.data.embodiments.writing import text_of
from tests.recorded_sets import recorded_set


def answered(recorded: RecordedSet, folder: Path) -> EmbodimentDocument:
    """A right file for `recorded`: its draft, with the gripper's polarity answered."""
    path = folder / "right.yaml"
    path.write_text(text_of(draft_of(recorded)), encoding="utf-8")
    document = read_file(path).document
    assert document.gripper.values is not None
    return replace(document, gripper=replace(document.gripper, open=document.gripper.values[1]))


def verdicts(document: EmbodimentDocument, recorded: RecordedSet) -> Mapping[tuple[str, str], CheckResult]:
    return {(result.check, result.where): result for result in check_embodiment(document, recorded)}


def contradictions(document: EmbodimentDocument, recorded: RecordedSet) -> list[tuple[str, str]]:
    return [key for key, result in verdicts(document, recorded).items() if result.verdict == "contradicts"]


def with_dims(document: EmbodimentDocument, vector: str, **changes: Any) -> EmbodimentDocument:
    """`document` with fields of all arm dimensions of one vector changed."""
    entry = getattr(document, vector)
    dims = (*(replace(dim, **changes) for dim in entry.dims[:-1]), entry.dims[-1])
    return replace(document, **{vector: replace(entry, dims=dims)})


@pytest.mark.parametrize(("mode", "options"), [("absolute", {}), ("delta", {}), ("relative", {"chunk": 16}), ("relative", {})])
def test_a_right_file_agrees(mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    recorded = recorded_set(mode, **options)
    results = verdicts(answered(recorded, tmp_path), recorded)
    assert not [result for result in results.values() if result.verdict == "contradicts"]
    assert results["motion", "action 'shoulder_pan.pos'"].verdict == "agrees"
    assert results["gripper opens", "gripper.open"].verdict == "agrees"
    assert results["rate", "control_hz"].verdict == "agrees"
    assert "0.00% of 720 rows outside" in results["range", "action 'shoulder_pan.pos'"].said


@pytest.mark.parametrize(
    ("stated", "true"),
    [("delta", "absolute"), ("absolute", "delta"), ("absolute", "relative"), ("relative", "absolute"), ("velocity", "absolute")],
)
def test_a_wrong_mode_is_contradicted_with_the_residuals_of_both(stated: str, true: str, tmp_path: Path) -> None:
    recorded = recorded_set(true)
    document = answered(recorded, tmp_path)
    wrong = replace(document, action=replace(document.action, mode=stated))
    found = contradictions(wrong, recorded)
    assert ("motion", "action 'elbow_flex.pos'") in found
    said = verdicts(wrong, recorded)["motion", "action 'elbow_flex.pos'"].said
    assert f"file {stated}" in said
    assert f"{true} 0." in said or "relative to the first state" in said


def test_a_gripper_that_is_turned_round_is_contradicted(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    document = answered(recorded, tmp_path)
    turned = replace(document, gripper=replace(document.gripper, open=0.0))
    # its own measured number follows it: what closes one closes the other, so a name alone decides which side is open
    opening = tuple(name.replace("gripper.pos", "gripper_opening") for name in recorded.state_names)
    named = replace(turned, proprio=_named(turned, opening))
    assert contradictions(named, replace(recorded, state_names=opening)) == [("gripper opens", "gripper.open")]
    right = replace(document, proprio=_named(document, opening))
    assert contradictions(right, replace(recorded, state_names=opening)) == []


def _named(document: EmbodimentDocument, names: tuple[str, ...]) -> Any:
    dims = tuple(replace(dim, name=name) for dim, name in zip(document.proprio.dims, names, strict=True))
    return replace(document.proprio, dims=dims)


def test_a_gripper_that_does_not_answer_is_contradicted_and_one_that_is_not_told_is_unknown(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    document = answered(recorded, tmp_path)
    state_NP = recorded.state_NP.copy()
    state_NP[:, -1] = np.random.default_rng(1).normal(0.5, 0.1, len(state_NP))
    broken = verdicts(document, replace(recorded, state_NP=state_NP))
    assert broken["gripper opens", "gripper.open"].verdict == "contradicts"
    actions_NA = recorded.actions_NA.copy()
    actions_NA[:, -1] = 1.0
    untold = verdicts(document, replace(recorded, actions_NA=actions_NA))
    assert untold["gripper opens", "gripper.open"].verdict == "unknown"
    assert untold["gripper values", "gripper.values"].verdict == "told"


def test_units_rate_ranges_and_cameras_that_differ_are_contradicted(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    right = answered(recorded, tmp_path)
    assert ("unit", "proprio 'shoulder_pan.pos'") in contradictions(with_dims(right, "proprio", unit="deg"), recorded)
    assert ("rate", "control_hz") in contradictions(replace(right, control_hz=30), recorded)
    assert ("rate", "control_hz") in contradictions(right, replace(recorded, times_N=recorded.times_N * 1.5))
    narrow = with_dims(right, "action", low=-0.2, high=0.2)
    assert ("range", "action 'elbow_flex.pos'") in contradictions(narrow, recorded)
    assert "% of 720 rows outside" in verdicts(narrow, recorded)["range", "action 'elbow_flex.pos'"].said
    wide = verdicts(with_dims(right, "action", low=-180.0, high=180.0), recorded)["range", "action 'elbow_flex.pos'"]
    assert (wide.verdict, "looks like another unit" in wide.said) == ("told", True)
    assert ("camera", "camera 'front'") in contradictions(right, replace(recorded, cameras=recorded.cameras[1:]))
    small = replace(recorded, cameras=(replace(recorded.cameras[0], width=32), recorded.cameras[1]))
    assert ("camera", "camera 'front'") in contradictions(right, small)


def test_steps_in_another_unit_than_stated_are_contradicted(tmp_path: Path) -> None:
    recorded = recorded_set("delta", action_unit=180 / np.pi)
    document = answered(recorded, tmp_path)
    assert contradictions(document, recorded) == []
    assert ("scale", "action 'elbow_flex.pos'") in contradictions(with_dims(document, "action", unit="rad"), recorded)


def test_names_in_another_order_and_another_width_are_contradicted(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    right = answered(recorded, tmp_path)
    names = tuple(reversed(recorded.action_names))
    assert ("names", "action") in contradictions(right, replace(recorded, action_names=names))
    fewer = replace(recorded, actions_NA=recorded.actions_NA[:, :3], action_names=recorded.action_names[:3])
    assert contradictions(right, fewer) == [("dims", "action")]


def test_the_lag_is_told_in_steps_and_milliseconds(tmp_path: Path) -> None:
    recorded = recorded_set("absolute", episodes=4)
    assert "0 steps (0 ms)" in verdicts(answered(recorded, tmp_path), recorded)["lag", "action"].said
    late = replace(recorded, actions_NA=np.concatenate([recorded.actions_NA[4:], recorded.actions_NA[-4:]]))
    result = verdicts(answered(recorded, tmp_path), late)["lag", "action"]
    assert (result.verdict, "4 steps (200 ms)" in result.said) == ("told", True)
    copied = replace(recorded, actions_NA=recorded.state_NP.copy())
    assert "actions are the state of their own row" in verdicts(answered(recorded, tmp_path), copied)["lag", "action"].said


def test_what_the_file_leaves_open_is_unknown_and_its_numbers_are_told(tmp_path: Path) -> None:
    recorded = recorded_set("absolute")
    document = answered(recorded, tmp_path)
    vague = with_dims(
        replace(document, action=replace(document.action, mode=None), control_hz=None), "action", low=None, high=None, mode=None
    )
    results = verdicts(replace(vague, gripper=replace(vague.gripper, open=None)), recorded)
    for key in (
        ("rate", "control_hz"),
        ("motion", "action 'elbow_flex.pos'"),
        ("range", "action 'elbow_flex.pos'"),
        ("gripper opens", "gripper.open"),
    ):
        assert results[key].verdict == "unknown", key
    assert "absolute 0.0" in results["motion", "action 'elbow_flex.pos'"].said
    assert "set -2.1" in results["range", "action 'elbow_flex.pos'"].said
