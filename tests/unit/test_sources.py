"""A team's own data set as a source: its columns and cameras become the embodiment's, and what does not fit is refused by name.

Run: .venv/bin/python -m pytest tests/unit/test_sources.py
"""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from components.artifacts.files import dataset_digest
from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import EvalConfig, GateConfig, PackageConfig, Recipe
from components.config.records import EvalReport, HeldOutRow, Interval, Silent
from components.config.source_config import SourceConfig
from components.config.train_config import CurriculumConfig, TrainConfig
from components.data.accounting.trained import trained_on
from components.data.annotate import annotate
from components.data.freeze import freeze
from components.data.frozen_dataset import drawing_order, load_split, read_frozen, sources_of
from components.data.lerobot.reader import DatasetReader
from components.data.sources import raw_index
from components.data.sources.columns import every_nth
from components.data.sources.joined import JoinedSource
from components.data.sources.lerobot import LeRobotSource
from components.data.sources.location import contents_digest
from components.data.sources.open import open_raw
from components.data.sources.unlabelled import hand_on
from components.data.validate import validate
from components.evaluation.gate import gate
from components.evaluation.suites.held_out import MOST_FRAMES, error_ratios, spread_frames
from components.training.plan import curriculum_of
from model_core.spec.errors import DatasetError, SpecError
from model_core.spec.types import LEVELS
from model_core.tokenization.compact.layout import ReasoningMode
from tests.own_data import CAMERAS, SENTENCES, STEPS, own_embodiment, own_episode, write_own_set

EPISODES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_own_set(tmp_path_factory.mktemp("own") / "set", EPISODES)


def config(folder, **changes):
    return SourceConfig(**({"name": "bench", "path": str(folder), "cameras": CAMERAS} | changes))


def opened(folder, embodiment=None, **changes):
    return LeRobotSource(config(folder, **changes), DatasetReader(folder), embodiment or own_embodiment())


def test_an_episode_has_the_names_and_the_order_of_the_embodiment(folder):
    source = opened(folder)
    assert [row.episode_id for row in source.rows] == [f"bench-{n:06d}" for n in range(EPISODES)]
    read = source.episode(3)
    state, actions, images = own_episode(3)
    assert np.array_equal(read.actions_TA, actions[:, [2, 1, 0]]), "dx, dy, gripper; the set has them the other way round"
    assert np.array_equal(read.executed_TA, read.actions_TA)
    assert np.array_equal(read.proprio_TP, state)
    assert np.array_equal(read.images["front"], images[:, 0])
    assert np.array_equal(read.images["wrist"], images[:, 1])
    assert (read.embodiment, read.instruction, read.success) == ("bench-arm", SENTENCES[1], None)
    assert read.provenance.producer == "dataset:bench"
    assert source.resolved["action"] == {"dx": "action[2]", "dy": "action[1]", "gripper": "action[0]"}


def test_what_is_included_is_counted_and_told(folder):
    source = opened(folder, include=("0:4", "5"), tasks=(SENTENCES[1],))
    assert [row.number for row in source.rows] == [1, 3, 5]
    assert [row.index for row in source.rows] == [0, 1, 2]
    assert source.episode(2, images=False).episode_id == "bench-000005"
    assert source.notes == ("bench: 3 of 6 episodes are left out by include or tasks",)


def test_frames_become_steps_of_the_embodiment_s_rate(folder):
    source = opened(folder, own_embodiment(control_hz=4), stride=5)
    read = source.episode(0)
    _, actions, images = own_episode(0)
    steps = STEPS // 5
    assert len(read) == source.rows[0].length == steps
    assert np.allclose(read.actions_TA[:, 0], actions[: steps * 5, 2].reshape(steps, 5).sum(axis=1), atol=1e-6)
    assert np.array_equal(read.actions_TA[:, 2], actions[4 : steps * 5 : 5, 0]), "the gripper is a place: the last one counts"
    assert np.array_equal(read.images["front"], images[: steps * 5 : 5, 0])
    assert np.allclose(np.diff(read.timestamps_T), 0.25)
    assert "every 5 frames at 20 Hz become one step at 4 Hz" in source.notes[0]
    assert "24 frames at ends of episodes are left out" in source.notes[0]


def test_velocities_are_averaged():
    actions = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert np.array_equal(every_nth(actions, ("velocity", "absolute"), 3), [[2, 5], [8, 11]])
    assert np.array_equal(every_nth(actions, ("delta", "delta"), 1), actions)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": {}}, r"no camera 'front' for our 'front'; it has cam_high, cam_wrist.*Fix: map it"),
        ({"cameras": {**CAMERAS, "wrist": "cam_low"}}, "no camera 'cam_low' for our 'wrist'"),
        ({"actions": {"dz": "dx"}}, r"maps 'dz', which is no dimension of the embodiment \(dx, dy, gripper\)"),
        ({"actions": {"dx": "speed"}}, r"dimension 'dx' was not found as 'speed' in 'action', which has gripper, dy, dx"),
        ({"actions": {"dx": "7"}}, "was not found as '7'"),
        ({"proprio": {"x": "observation.velocity[0]"}}, "dimension 'x' was not found"),
        ({"include": ("99",)}, "no episode '99'; it has numbers 0 to 5"),
        ({"tasks": ("sing",)}, "no episode of task 'sing'"),
        ({"tasks": (SENTENCES[0],), "include": ("1",)}, "include and tasks leave none of its 6 episodes"),
        ({"stride": 2}, r"has 20 frames a second, with stride 2 that is 10 Hz; the embodiment 'bench-arm' acts at 20 Hz"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder, changes, words):
    with pytest.raises(DatasetError, match=words) as told:
        _ = opened(folder, **changes).rows
    assert "Fix:" in str(told.value)


def test_another_image_size_is_refused(folder):
    body = own_embodiment()
    body = replace(body, cameras=(replace(body.cameras[0], height=64), body.cameras[1]))
    with pytest.raises(DatasetError, match=r"are \(32, 32\) \(height, width\), the embodiment's 'front' has \(64, 32\)"):
        opened(folder, body)


def test_a_mapped_column_and_place_is_used(folder):
    read = opened(folder, actions={"dx": "observation.state[1]", "dy": "dx", "gripper": "0"}).episode(0, images=False)
    state, actions, _ = own_episode(0)
    assert np.array_equal(read.actions_TA, np.stack([state[:, 1], actions[:, 2], actions[:, 0]], axis=1))


def test_the_digest_is_of_contents_and_maps_and_of_no_path(folder, tmp_path):
    moved = write_own_set(tmp_path / "elsewhere", EPISODES)
    assert opened(folder).digest == opened(moved, name="other", weight=3.0).digest
    assert opened(folder).digest != opened(folder, include=("0:3",)).digest
    assert opened(folder).digest != opened(write_own_set(tmp_path / "more", EPISODES + 1)).digest
    assert contents_digest(folder) == dataset_digest(folder)


def test_a_file_that_is_linked_often_is_read_once(folder, tmp_path, monkeypatch):
    root = write_own_set(tmp_path / "linked", 1)
    film = next(root.rglob("*.parquet"))
    for number in range(20):
        os.link(film, root / f"link-{number}.bin")
    read = []
    monkeypatch.setattr("components.data.sources.location.sha256_file", lambda path: read.append(path) or "0" * 64)
    contents_digest(root)
    assert len(read) == 4, "three of meta/, and one for all links"


def test_a_data_set_of_the_hub_that_is_not_here_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cfg = SourceConfig(name="far", hub="some/where", revision="0" * 40)
    with pytest.raises(DatasetError, match=r"some/where at revision 0+ is not on this machine.*Fix: connect to the network once"):
        raw_index.located(cfg)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hub": "some/where"}, "expected hub and revision together"),
        ({"path": "x", "hub": "a/b", "revision": "c"}, "expected path or hub, got both"),
        ({"kind": "lerobott"}, "did you mean 'lerobot'"),
        ({"weight": 0.0}, "weight must be above 0"),
        ({"stride": 0}, "stride must be"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_when_it_is_read(fields, words):
    with pytest.raises(SpecError, match=words):
        SourceConfig(name="a", **fields)


# --- the stages, from the index on -----------------------------------------------------------------------------------------


@pytest.fixture
def described(monkeypatch):
    """Sources open with the robot of this test, as if its file had been read."""
    monkeypatch.setattr(raw_index, "open_source", lambda cfg: LeRobotSource(cfg, DatasetReader(raw_index.located(cfg)), own_embodiment()))


def indexed(folder, out, **changes):
    cfg = config(folder, **changes)
    record = raw_index.write_index([cfg], out, Silent())
    raw_index.keep_places(out, [cfg])
    return record


def test_the_index_holds_no_path_and_opens_where_the_set_is(folder, tmp_path, described):
    record = indexed(folder, tmp_path / "step")
    text = (tmp_path / "step/dataset/sources.json").read_text()
    assert str(folder) not in text
    assert record["episodes"] == EPISODES
    assert record["producers"] == {"dataset:bench": EPISODES}
    source = open_raw(tmp_path / "step/dataset")
    assert isinstance(source, JoinedSource)
    assert [row.episode_id for row in source.rows] == json.loads(text)["sources"][0]["episode_ids"]


def test_a_set_that_was_changed_or_moved_is_seen(tmp_path, described):
    root = write_own_set(tmp_path / "set", 3)
    indexed(root, tmp_path / "step")
    root.rename(tmp_path / "moved")
    with pytest.raises(DatasetError, match=r"where nothing is now.*Fix: run the stage collect"):
        open_raw(tmp_path / "step/dataset")
    write_own_set(root, 4)
    with pytest.raises(DatasetError, match="was changed after its index was made"):
        open_raw(tmp_path / "step/dataset")


def test_two_sources_with_the_same_episodes_are_refused(folder, tmp_path, described):
    twice = [config(folder), config(folder, name="again")]
    raw_index.write_index(twice, tmp_path / "named-apart", Silent())
    same = Named(opened(folder))
    with pytest.raises(DatasetError, match="'bench-000000' is in source 'bench' and in source 'x'"):
        raw_index._check_ids({row.episode_id: "bench" for row in same.rows}, same)


class Named:
    """A source under another name."""

    name = "x"

    def __init__(self, source):
        self.rows = source.rows


def test_a_set_without_labels_is_frozen_at_the_level_action(folder, tmp_path, described):
    indexed(folder, tmp_path / "raw")
    raw = tmp_path / "raw/dataset"
    record = validate(ValidateConfig(min_frames=4, data_docs=False), raw, tmp_path / "valid", Silent())
    assert record["valid"] == EPISODES
    nothing = AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS)
    annotate(nothing, raw, tmp_path / "valid/valid.json", tmp_path / "labels", Silent())
    frozen = freeze(FreezeConfig(name="own", validation_fraction=0.2, chunk_length=4), raw, tmp_path / "labels", tmp_path / "out", Silent())
    manifest, contract = read_frozen(tmp_path / "out")
    assert contract.reasoning.levels == ("action",)
    assert contract.embodiment == own_embodiment()
    assert contract.words == tuple(sorted({word for text in SENTENCES for word in text.split()}))
    assert frozen["annotators"] == {"depth": "none", "points": "none"}
    split = load_split(tmp_path / "out", "train")
    assert split.trace_N52 is None
    assert split.depth_codes_NG is None
    assert split.images_NVHW3.shape[1:] == (2, 32, 32, 3)
    assert set(manifest["sources"]) == {"dataset:bench"}


def test_a_source_of_greater_weight_is_drawn_more_often(folder, tmp_path, described):
    """Two sources of equal size, the first 1.5 times as often: every sample at least once, and in each epoch the share of the weights."""
    other = write_own_set(tmp_path / "other", EPISODES, first=EPISODES)
    sources = [config(folder, weight=3.0), config(other, name="other", weight=2.0)]
    raw_index.write_index(sources, tmp_path / "raw", Silent())
    raw_index.keep_places(tmp_path / "raw", sources)
    raw = tmp_path / "raw/dataset"
    rows = open_raw(raw).rows
    assert [row.index for row in rows] == list(range(2 * EPISODES))
    assert open_raw(raw).episode(EPISODES + 1, images=False).episode_id == "other-000001"
    hand_on(rows, tmp_path / "labels")
    freeze(FreezeConfig(name="own", validation_fraction=0.2, chunk_length=4), raw, tmp_path / "labels", tmp_path / "out", Silent())
    order = drawing_order(tmp_path / "out", "train")
    names, _ = sources_of(tmp_path / "out", "train")
    times = np.bincount(order, minlength=len(names))
    for source, each in (("dataset:bench", 1.5), ("dataset:other", 1.0)):
        mine = times[[name == source for name in names]]
        assert mine.min() >= 1
        assert mine.sum() == int(len(mine) * each)
    account = {row["source"]: row["frames"] for row in trained_on(tmp_path / "out", lambda count: np.arange(count))}
    assert sum(account.values()) == len(names)


def test_sources_of_different_embodiments_are_not_mixed(folder):
    slower = LeRobotSource(config(folder, name="slow", stride=5), DatasetReader(folder), own_embodiment(control_hz=4))
    with pytest.raises(DatasetError, match=r"'bench' and 'slow' are of different embodiments \(control_hz"):
        JoinedSource([opened(folder), slower])


def test_without_labels_only_actions_are_taught():
    taught = curriculum_of(CurriculumConfig(), ("action",))
    assert {taught.mode_at(step, 100, 0) for step in range(100)} == {ReasoningMode.ACTION}
    assert curriculum_of(CurriculumConfig(), LEVELS).mode_at(0, 100, 0) is ReasoningMode.TRACE_ACTION


def test_the_gate_judges_held_out_error_and_the_image():
    report = {
        "checkpoint_digest": "a",
        "contract_id": "b",
        "successes": 0,
        "trials": 0,
        "interval": Interval(low=0, high=1),
        "per_task": {},
    }
    report |= {"episodes": (), "protocol": {"suite": "held-out episodes", "suite_version": "1"}}

    def verdict(ratio, champion=None, refused=0.0, change=0.9):
        made = EvalReport(
            **report, open_loop={"error_ratio": ratio, "frames": 50.0, "refused": refused}, blindness={"image_swap_change": change}
        )
        before = None if champion is None else EvalReport(**report, open_loop={"error_ratio": champion, "frames": 50.0, "refused": 0.0})
        return gate(GateConfig(max_open_loop_error=0.5, margin=0.1), made, before)

    assert verdict(0.4).promote
    assert not verdict(0.6).promote
    assert not verdict(0.4, refused=1.0).promote
    assert not verdict(0.4, change=0.1).promote
    assert verdict(0.4, champion=0.38).promote
    assert not verdict(0.4, champion=0.3).promote


def held_out(errors, version, **changes):
    """The report of a policy that is off by so much of the mean action's error on each of these episodes."""
    rows = tuple(HeldOutRow(episode=name, rows=10, error={"dx": 10 * error}, mean_error={"dx": 10.0}) for name, error in errors.items())
    numbers = {"error_ratio": sum(errors.values()) / len(errors), "frames": 50.0, "refused": 0.0}
    return EvalReport(
        checkpoint_digest=version,
        contract_id="b",
        successes=0,
        trials=0,
        interval=Interval(low=0, high=1),
        per_task={},
        episodes=(),
        protocol={"suite": "held-out episodes", "suite_version": version, "action": "1"} | changes,
        blindness={"image_swap_change": 0.9},
        open_loop=numbers,
        held_out=rows,
    )


def test_a_champion_is_compared_on_the_episodes_that_both_held_out():
    """The new recordings are harder, the champion was only asked about the old ones: on these the candidate is better."""
    champion = held_out({"a": 0.3, "b": 0.3}, "1")
    verdict = gate(GateConfig(margin=0.1), held_out({"a": 0.2, "b": 0.3, "new": 0.8}, "2"), champion)
    assert verdict.promote, verdict.reasons
    assert any("error on the 2 episodes that both held out: 0.250 against the champion's 0.300" in reason for reason in verdict.reasons)
    worse = gate(GateConfig(margin=0.1), held_out({"a": 0.5, "b": 0.5, "new": 0.05}, "2"), champion)
    assert not worse.promote, "its whole error is lower because the new recordings are easier"
    assert worse.checks[-1].name == "non-inferior/open-loop"


def test_a_champion_of_other_held_out_episodes_or_actions_is_not_compared():
    candidate = held_out({"a": 0.2}, "2")
    for champion in (
        held_out({"z": 0.3}, "1"),
        held_out({"a": 0.3}, "2", action="2"),
        replace(held_out({"a": 0.3}, "1"), held_out=(HeldOutRow(episode="a", rows=0, error={"dx": 0}, mean_error={"dx": 0}),)),
    ):
        verdict = gate(GateConfig(margin=0.1), candidate, champion)
        assert not verdict.promote
        assert "so they are not compared" in verdict.reasons[0]


def test_frames_are_asked_of_every_episode_and_nearly_the_same_ones_as_recordings_grow():
    before, after = (np.repeat(np.arange(count), 100) for count in (8, 12))
    chosen, more = spread_frames(before), spread_frames(after)
    assert max(len(chosen), len(more)) <= MOST_FRAMES
    assert set(after[more]) == set(range(12))
    assert set(more[more < 800]) <= set(chosen)
    assert spread_frames(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_held_out_errors_are_relative_to_the_mean_action(folder):
    labels = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], np.float32)
    contract = SimpleNamespace(embodiment=own_embodiment())
    mean = np.array([0.5, 0.5, 1.0])
    assert error_ratios(labels, labels, mean, contract) == {"dx": 0.0, "dy": 0.0}, "the gripper never varies and does not count"
    assert error_ratios(np.tile(mean, (2, 1)), labels, mean, contract) == {"dx": 1.0, "dy": 1.0}


def test_levels_that_no_label_teaches_are_refused_in_the_recipe(folder):
    nothing = AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS)
    with pytest.raises(SpecError, match=r"evaluate\.reasoning 'full': without labels"):
        Recipe(name="own", data=(config(folder),), annotate=nothing)
    with pytest.raises(SpecError, match="depth tokens alone teach no level"):
        AnnotateConfig(point_annotator=NO_LABELS)
    made = Recipe(
        name="own",
        data=(config(folder),),
        annotate=nothing,
        evaluate=EvalConfig(reasoning="action"),
        package=PackageConfig(reasoning="action"),
        train=TrainConfig(steps=100),
    )
    assert Recipe.from_json(made.to_json()) == made
