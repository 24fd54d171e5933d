"""The checks behind the gate, one by one: each passes on good data and names what is wrong with bad data.

Run: .venv/bin/python -m pytest tests/unit/test_validate_checks.py
"""

import json
import shutil
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from components.adapters.great_expectations import _make_readable_offline
from components.config.data_config import ValidateConfig
from components.config.stages import INGEST, JOIN, stage_named
from components.data.inspection.rules import gripper_in_view, inspect_episode, not_clipped, not_frozen, rules_of
from components.data.lerobot.reader import DatasetReader
from components.data.validate import dataset_findings, rules
from tests.episodes import BODY, episode, write_dataset

GOOD = episode(0)


def changed(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


def test_a_good_episode_passes():
    assert inspect_episode(GOOD, BODY) == []


@pytest.mark.parametrize(
    ("bad", "check", "said"),
    [
        (replace(GOOD, instruction="  "), "instruction_missing", "empty"),
        (replace(GOOD, embodiment="other"), "embodiment_differs", "'other'"),
        (replace(GOOD, images={}), "camera_missing", "'front'"),
        (replace(GOOD, images={"front": GOOD.images["front"][:, :16]}), "camera_shape", "(12, 16, 32, 3)"),
        (replace(GOOD, proprio_TP=GOOD.proprio_TP[:, :3]), "shape", "proprio is (12, 3)"),
        (
            replace(GOOD, actions_TA=changed(GOOD.actions_TA, (5, 2), np.nan)),
            "not_finite",
            "action dz is a number in every frame; got in 1 of 12 frames, first nan",
        ),
        (
            replace(GOOD, executed_TA=changed(GOOD.executed_TA, (1, 0), np.inf)),
            "not_finite",
            "executed dx is a number in every frame",
        ),
        (
            replace(GOOD, actions_TA=changed(GOOD.actions_TA, (4, 1), 1.5)),
            "out_of_range",
            "step; got in 1 of 12 frames, first 1.5 at step 4",
        ),
        (
            replace(GOOD, proprio_TP=changed(GOOD.proprio_TP, (0, 2), -0.4)),
            "out_of_range",
            "state hand_z is within 0..0.55 m",
        ),
        (replace(GOOD, images={"front": changed(GOOD.images["front"], 3, 0)}), "black_frames", "got in 1 of 12 frames, first 0 at step 3"),
        (replace(GOOD, timestamps_T=changed(GOOD.timestamps_T, 6, 0.0)), "timestamps", "at step 6"),
        (replace(GOOD, depth_m={"front": changed(GOOD.depth_m["front"], 0, np.nan)}), "not_finite", "depth of camera 'front'"),
        (episode(0, length=1), "too_short", "1 frames"),
    ],
)
def test_each_fault_is_named(bad, check, said):
    findings = inspect_episode(bad, BODY)
    assert check in [f.check for f in findings]
    assert any(said in f.reason for f in findings)
    assert all(f.where == bad.episode_id for f in findings)


def test_the_thresholds_are_chosen():
    late = replace(GOOD, timestamps_T=changed(GOOD.timestamps_T, 6, GOOD.timestamps_T[6] + 0.002))
    exact = ValidateConfig(max_period_error=0.0)  # what is allowed in seconds and in shares of the period adds up
    assert [f.check for f in inspect_episode(late, BODY, exact)] == ["timestamps"]
    assert inspect_episode(late, BODY, replace(exact, max_timestamp_jitter_s=0.003)) == []
    later = replace(GOOD, timestamps_T=changed(GOOD.timestamps_T, 6, GOOD.timestamps_T[6] + 0.012))
    assert [f.check for f in inspect_episode(later, BODY)] == ["timestamps"]
    assert inspect_episode(later, BODY, ValidateConfig(max_period_error=0.3)) == []


def another(value):
    """Another value of a threshold; of a section, with every one of its own changed."""
    if is_dataclass(value):
        return replace(value, **{field.name: another(getattr(value, field.name)) for field in fields(value)})
    return not value if isinstance(value, bool) else value / 2


def test_the_keys_of_collect_and_ingest_hold_every_threshold_that_they_apply():
    """A basic rule that reads another field of `ValidateConfig` would find the result of an old threshold."""

    def limits(cfg):
        made = rules_of(cfg, control_hz=20, cameras=["front"], embodiment=BODY)
        return [(rule.check, rule.column, rule.low, rule.high) for rule in made if rule.is_basic]

    default = ValidateConfig()
    deciding = set()
    for field in fields(ValidateConfig):
        value = getattr(default, field.name)
        if limits(replace(default, **{field.name: another(value)})) != limits(default):
            deciding.add(f"validate.{field.name}")
    for stage in (stage_named("collect"), INGEST, JOIN):
        assert {path for path in stage.config if path.startswith("validate.")} == deciding, stage.title


def longest_frozen(frames, moves):
    """What the rule measures of ten frames, while the arm is told to move or not."""
    executed = np.full((10, 4), 0.5 if moves else 0.0, np.float32)
    return not_frozen(ValidateConfig(), "front").measure(replace(episode(0, length=10), images={"front": frames}, executed_TA=executed))


def test_frozen_images_count_only_while_told_to_move():
    frames = np.zeros((10, 4, 4, 3), np.uint8)
    frames[:4] = np.arange(4)[:, None, None, None]
    assert longest_frozen(frames, True) == 5
    assert longest_frozen(frames, False) == 0
    moving = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    assert longest_frozen(moving, True) == 0


def test_gripper_visibility_is_by_projection():
    visible = gripper_in_view(ValidateConfig()).measure
    assert visible(GOOD) == 1.0
    behind = replace(GOOD, tcp_T3=np.full((12, 3), 5.0, np.float32))
    assert visible(behind) == 0.0
    half = GOOD.tcp_T3.copy()
    half[:6] = (0.0, 0.74, 3.0)
    assert visible(replace(GOOD, tcp_T3=half)) == 0.5
    assert visible(replace(GOOD, tcp_T3=None)) == 1.0


def clipped(actions, spec):
    return not_clipped(ValidateConfig(), spec).measure(replace(GOOD, actions_TA=actions))


def test_clipping_needs_every_dimension_at_a_limit():
    bang = np.sign(np.random.default_rng(0).normal(size=(8, 4))).astype(np.float32)
    assert clipped(bang, BODY.action) == 1.0
    assert clipped(changed(bang, (slice(0, 4), 0), 0.2), BODY.action) == 0.5
    assert clipped(GOOD.actions_TA, BODY.action) == 0.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("checks") / "set", [episode(i) for i in range(4)])


def test_a_good_set_has_no_findings(dataset):
    assert dataset_findings(DatasetReader(dataset)) == []


def test_a_missing_data_file_is_a_count_that_is_wrong(dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_frames": 60}))
    (finding,) = dataset_findings(DatasetReader(root))
    assert finding.check == "counts"
    assert "48 frames" in finding.reason


def test_state_written_in_place_of_action_is_seen(tmp_path):
    aliased = [replace(e, actions_TA=np.clip(e.proprio_TP, -1, 1)) for e in (episode(0), episode(1))]
    (finding,) = dataset_findings(DatasetReader(write_dataset(tmp_path / "set", aliased)))
    assert finding.check == "column_aliasing"
    assert "action and observation.state" in finding.reason


def test_every_dimension_and_camera_has_its_rules(dataset):
    made = rules(ValidateConfig(), DatasetReader(dataset))
    checks = {r.check for r in made}
    assert {"timestamps", "unknown_task", "not_finite", "out_of_range", "black_frames", "frozen_frames"} <= checks
    assert {"episode_length", "gripper_visibility", "action_clipping", "duplicate_id"} <= checks
    assert len([r for r in made if r.check == "out_of_range"]) == 12
    assert len({(r.table, r.check, r.kind, r.column) for r in made}) == len(made)


def test_pages_lose_every_remote_address(tmp_path):
    page = tmp_path / "validations" / "run" / "a.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        '<html><head><link rel="stylesheet" href="https://cdn.example/x.css"><style>a{background:url(\'https://x.example/y.png\')}</style>'
        '<script src="https://cdn.example/z.js"></script></head><body><img src="https://x.example/l.png"><a href="https://x.example">said</a>'
        '<a href="../other.html">near</a><p>kept</p></body></html>'
    )
    _make_readable_offline(tmp_path)
    text = page.read_text()
    assert "https://" not in text
    assert "<script" not in text
    assert all(word in text for word in ("said", "near", "kept", "../other.html", "<style>"))
    assert "validations/run/a.html" in (tmp_path / "index.html").read_text()
