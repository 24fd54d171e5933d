"""The account of the data: counted by source, bounded, and the same in the terminal, the report and the tracker."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from components.artifacts.stage_log import log_account
from components.config.data_config import AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.records import AccountRow, Dropped
from components.config.train_config import TrainConfig
from components.data.accounting.included import check_included, labelling_notes
from components.data.accounting.rejections import Rejections
from components.data.accounting.stages import inspected, recorded, taken_in
from components.data.accounting.tally import Tally
from components.data.accounting.trained import trained_on
from components.data.action_dims import action_notes, check_passed_through
from components.data.freeze import freeze
from components.training.plan import drawn_samples
from flows.pipeline.run_summary import account_table
from model_core.spec.documents import from_document
from model_core.spec.episode import Provenance
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.stats import UnnormStats
from tests.episodes import BODY, episode, write_dataset
from tests.episodes import Tally as NoProgress
from tests.unit.test_freeze import label

TELEOP = Provenance(producer="teleop:bench", cell="bench", seed=0)
EXPERT = "expert:test"


def of_another(number, **changes):
    """An episode of a person at the bench: no depth, no gripper position."""
    return replace(episode(number), provenance=TELEOP, depth_m={}, tcp_T3=None, geometry={}, **changes)


def rows_of(document):
    return [from_document(AccountRow, row) for row in document]


def test_reasons_are_ordered_and_nothing_is_counted_for_nothing():
    tally = Tally("validate")
    tally.keep("a", 10)
    tally.drop("a", "rare", 3)
    tally.drop("a", "often", 2)
    tally.drop("a", "often", 2)
    tally.drop("b", "never", episodes=0)
    lost = (Dropped(reason="often", episodes=2, frames=4), Dropped(reason="rare", episodes=1, frames=3))
    assert rows_of(tally.rows()) == [AccountRow(stage="validate", source="a", episodes=1, frames=10, dropped=lost)]


def test_the_bound_is_of_each_source_and_tells_what_to_do():
    tally = Tally("annotate")
    tally.keep("many", 10, episodes=99)
    tally.keep("few", 10, episodes=3)
    tally.drop("few", "no depth", 10, episodes=2)
    tally.check(0.4, setting="x", advice="y")
    with pytest.raises(
        GateError, match=r"annotate: at least 2 of 5 episodes of few fall away, at most 20% may \(x\)\. Reason: no depth \(2x\)"
    ):
        tally.check(0.2, setting="x", advice="y")


def test_labelling_stops_as_soon_as_too_many_of_a_source_cannot_be_labelled():
    frames = {f"e{n}": 10 for n in range(20)} | {f"t{n}": 10 for n in range(5)}
    sources = {name: "expert" if name.startswith("e") else "teleop:bench" for name in frames}
    rejected = Rejections(most=0.2, frames=frames, sources=sources)
    for name in ("e0", "e1", "e2", "e3", "t0"):
        rejected.add(name, "no depth was recorded")
    with pytest.raises(
        GateError, match=r"2 of 5 episodes of teleop:bench.*annotate\.max_rejected_fraction.*no depth was recorded \(2x\)\. Fix: "
    ):
        rejected.add("t1", "no depth was recorded")


def test_included_recordings_that_cannot_join_or_be_labelled_are_refused_before_any_work(tmp_path):
    tasks = ("drawer-close-v3", "coffee-button-v3")
    folder = write_dataset(tmp_path / "set", [of_another(n) for n in range(5)])
    with pytest.raises(
        GateError, match=r"5 of 5 episodes of teleop:bench fall away.*no depth was recorded.*depth_annotator=depth_anything"
    ):
        check_included({"abc": folder}, tasks, AnnotateConfig())
    (note,) = labelling_notes(folder, AnnotateConfig())
    assert note.startswith("5 of 5 episodes of teleop:bench cannot be labelled by this recipe's annotators")
    half = replace(AnnotateConfig(), depth_annotator="depth_anything")
    with pytest.raises(GateError, match="no gripper tip or camera calibration was recorded"):
        check_included({"abc": folder}, tasks, half)
    check_included({"abc": folder}, tasks, replace(half, point_annotator="pointing"))
    with pytest.raises(GateError, match=r"include abc: none of its 5 episodes would join.*drawer-close-v3"):
        check_included({"abc": folder}, ("reach-v3",), replace(half, point_annotator="pointing"))
    whole = write_dataset(tmp_path / "whole", [episode(n) for n in range(3)])
    check_included({"abc": whole}, tasks, AnnotateConfig())
    assert labelling_notes(whole, AnnotateConfig()) == []


def test_a_source_that_validation_sets_aside_as_a_whole_stops_the_run(tmp_path):
    folder = write_dataset(tmp_path / "set", [*(episode(n) for n in range(12)), *(of_another(20 + n) for n in range(2))])
    verdicts = {f"square-{n:04d}": True for n in range(12)} | {"square-0020": True, "square-0021": False}
    (tmp_path / "valid.json").write_text(json.dumps(verdicts))
    (tmp_path / "quarantine").mkdir()
    found = {"episode_id": "square-0021", "findings": [{"check": "black", "where": "front", "reason": "dark"}]}
    (tmp_path / "quarantine" / "square-0021.json").write_text(json.dumps(found))
    with pytest.raises(
        GateError, match=r"validate: at least 1 of 2 episodes of teleop:bench.*\(validate\.max_bad_fraction\)\. Reason: black"
    ):
        inspected(ValidateConfig(), folder, tmp_path)
    expert, teleop = rows_of(inspected(ValidateConfig(max_bad_fraction=0.5), folder, tmp_path))
    assert (expert.source, expert.episodes, expert.frames, expert.dropped) == (EXPERT, 12, 144, ())
    assert (teleop.episodes, teleop.dropped) == (1, (Dropped(reason="black", episodes=1, frames=12),))


def test_what_was_recorded_and_taken_in_is_counted_with_what_was_not(tmp_path):
    folder = write_dataset(tmp_path / "dataset", [episode(n) for n in range(3)])
    (row,) = rows_of(recorded({"failed": 4, "rejected": {"square-0009": "too dark"}}, folder, EXPERT))
    assert (row.stage, row.episodes, row.frames) == ("collect", 3, 36)
    assert row.dropped == (Dropped(reason="did not solve its task", episodes=4), Dropped(reason="too dark", episodes=1))
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "torn.json").write_text(json.dumps({"recording": "torn.episode", "findings": [{"check": "unreadable"}]}))
    lost, kept = rows_of(taken_in({"not_successful": 2, "copies": 1}, tmp_path, "ingest"))
    assert (kept.source, kept.episodes) == (EXPERT, 3)
    assert {one.reason: one.episodes for one in lost.dropped} == {
        "did not solve its task": 2,
        "there already": 1,
        "set aside: unreadable": 1,
    }


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    root = tmp_path_factory.mktemp("frozen")
    episodes = [*(episode(n, length=9) for n in range(6)), *(replace(episode(10 + n, length=9), provenance=TELEOP) for n in range(4))]
    dataset = write_dataset(root / "dataset", episodes)
    label(root, episodes)
    cfg = FreezeConfig(chunk_length=4, execute_horizon=4, validation_fraction=0.3, frame_stride=2)
    return root / "out", freeze(cfg, dataset, root, root / "out", NoProgress())


def test_frozen_and_trained_frames_are_counted_by_source(frozen):
    folder, record = frozen
    expert, teleop = rows_of(record["account"])
    assert (expert.source, expert.episodes, expert.frames) == (EXPERT, 6, 30)
    assert expert.dropped == (Dropped(reason="between the frames of freeze.frame_stride 2", episodes=0, frames=24),)
    assert (teleop.source, teleop.episodes, teleop.frames) == ("teleop:bench", 4, 20)
    whole = rows_of(trained_on(folder, lambda count: np.arange(count)))
    assert sum(row.frames for row in whole) == record["train_frames"]
    assert sum(lost.frames for row in whole for lost in row.dropped) == record["validation_frames"]
    assert sum(row.episodes + sum(lost.episodes for lost in row.dropped) for row in whole) == 10


def test_a_training_shorter_than_an_epoch_tells_what_it_never_drew(frozen):
    folder, record = frozen
    config = TrainConfig(steps=2, warmup_steps=1, global_batch=2, micro_batch=2)
    rows = rows_of(trained_on(folder, lambda count: drawn_samples(config, count)))
    assert sum(row.frames for row in rows) == 4
    never = sum(lost.frames for row in rows for lost in row.dropped if lost.reason == "drawn by no step")
    assert never == record["train_frames"] - 4
    assert len(drawn_samples(replace(config, steps=1000), 50)) == 50


def test_terminal_and_tracker_show_the_same_rows(frozen):
    rows = rows_of(frozen[1]["account"])
    console = Console(file=StringIO(), width=160)
    console.print(account_table([*rows, AccountRow(stage="ingest", source="", episodes=0, frames=0)]))
    shown = console.file.getvalue()
    assert "teleop:bench" in shown
    assert "24 frames: between the frames of" in shown

    class Listening:
        def __init__(self):
            self.texts, self.points = {}, {}

        def log_text(self, name, text):
            self.texts[name] = json.loads(text)

        def log_metrics(self, metrics):
            self.points |= {m.key: m.value for m in metrics}

    tracker = Listening()
    odd = {"stage": "ingest", "source": "teleop (A&B)/1", "episodes": 2, "frames": 7, "dropped": []}
    log_account(tracker, [*frozen[1]["account"], odd])
    assert tracker.texts["account.json"][:2] == frozen[1]["account"]
    assert tracker.points["account/freeze/expert:test/frames"] == 30
    assert tracker.points["account/freeze/expert:test/dropped_frames"] == 24
    assert tracker.points["account/ingest/teleop _A_B__1/frames"] == 7


def with_gripper(*columns):
    return [replace(episode(n, length=len(c)), actions_TA=_last(n, c), executed_TA=_last(n, c)) for n, c in enumerate(columns)]


def _last(number, column):
    actions = episode(number, length=len(column)).actions_TA.copy()
    actions[:, 3] = column
    return actions


@pytest.mark.parametrize(("low", "high"), [(0, 100), (45, 65), (-1, 1.2), (0, np.nan)])
def test_a_dimension_that_is_passed_through_must_lie_in_the_range_of_the_tokens(low, high):
    mask = (True, True, True, False)
    made = with_gripper(np.zeros(9), np.linspace(low, high, 11))
    with pytest.raises(
        DatasetError, match=r"action 'gripper' is passed through.*episode square-0001.*freeze\.mask=\[true,true,true,true\]"
    ):
        check_passed_through(made, mask, BODY)
    check_passed_through(made, (True,) * 4, BODY)


def test_a_dimension_in_the_range_of_the_tokens_is_passed_through_and_told_where_it_is_coarse():
    mask = (True, True, True, False)
    made = with_gripper(np.linspace(-1, 1, 40), np.array([1.0001] * 9))  # less than a token outside
    check_passed_through(made, mask, BODY)
    stats = UnnormStats(q01=(-1,) * 4, q99=(1,) * 4, mask=mask)
    assert action_notes(made, stats, BODY) == []
    (note,) = action_notes(with_gripper(np.linspace(0, 0.08, 50)), stats, BODY)
    assert note.startswith("action 'gripper' is passed through without normalising, and its values 0..0.08")
    assert "use 11 of the 256 action tokens" in note
    assert action_notes(with_gripper(np.tile([0.0, 1.0], 20)), stats, BODY) == []


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ((np.arange(1000) % 200 == 7).astype(float), "5 of 1000 steps (0.50%) hold values of 1..1"),
        (np.r_[np.linspace(-1, 1, 999), 1e6], "1 of 1000 steps (0.10%) hold values of 1e+06..1e+06"),
        ((np.arange(1000) % 66 == 0).astype(float), ""),
        (np.linspace(-1, 1, 1000), ""),
        (np.random.default_rng(0).standard_normal(1000), ""),
        (np.full(1000, np.float32(0.3)), ""),
    ],
)
def test_rare_values_are_told_with_what_to_do(column, told):
    made = with_gripper(*np.asarray(column, np.float32).reshape(5, 200))
    mask = (True,) * 4
    notes = action_notes(made, UnnormStats.of(np.concatenate([one.actions_TA for one in made]), mask), BODY)
    assert len(notes) == bool(told)
    if told:
        assert told in notes[0]
        assert "freeze.mask=[true,true,true,false]" in notes[0]
        assert re.search(r"first in frame \d+ of episode square-000[04]\. Fix: ", notes[0])
