"""Where a person acted: from a cell's operator through its recording, the wire, a raw set and ingest, frame by frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config.source_config import SourceConfig
from components.data.export.export import export_lerobot
from components.data.ingest import ingest
from components.data.lerobot import layout
from components.data.lerobot.columns.interventions import spans, stated
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.tables import read_table
from components.data.sources.lerobot import LeRobotSource
from model_core.spec.errors import DatasetError, WireError
from model_core.spec.protocol.wire import decode_episode, encode_episode
from model_core.spec.types import StopReason
from serving.workcell.robot.episode_recorder import Recorder
from tests.episodes import Tally, episode, write_dataset
from tests.older_set import DATA
from tests.own_data import CAMERAS, STEPS, own_embodiment, write_own_set
from tests.virtual_world import make_world

FLAGS = np.array([False, False, True, True, False, False, False, True, False, False, False, True])


def test_flags_survive_the_wire_and_an_older_recording_has_none():
    marked = episode(1, intervention_T=FLAGS)
    np.testing.assert_array_equal(decode_episode(encode_episode(marked)).intervention_T, FLAGS)
    assert decode_episode(encode_episode(episode(1))).intervention_T is None
    with pytest.raises(WireError, match="a bool array"):
        encode_episode(replace(marked, intervention_T=FLAGS.astype(np.uint8)))


def test_flags_survive_a_raw_set_and_ingest_also_beside_episodes_that_do_not_know(tmp_path):
    episodes = [episode(0), episode(1, intervention_T=FLAGS), episode(2, intervention_T=np.zeros(12, bool))]
    root = write_dataset(tmp_path / "raw", episodes)
    ingest([root], tmp_path / "in", Tally())
    for folder in (root, tmp_path / "in" / "dataset"):
        found = [one.intervention_T for one in DatasetReader(folder).episodes(images=False)]
        assert found[0] is None
        np.testing.assert_array_equal(found[1], FLAGS)
        np.testing.assert_array_equal(found[2], np.zeros(12, bool))


def test_a_set_that_says_nothing_keeps_its_form(tmp_path):
    root = write_dataset(tmp_path / "raw", [episode(0), episode(1)])
    assert "intervention" not in read_table(root / layout.EXTENSION_EPISODES).column_names


def test_columns_of_other_writers_are_read():
    columns = {"complementary_info.is_intervention": np.array([[0.0], [1.0], [0.0]])}
    np.testing.assert_array_equal(stated("e", {}, columns, 3), [False, True, False])
    np.testing.assert_array_equal(stated("e", {}, {"intervention": np.array([1, 1, 0])} | columns, 3), [True, True, False])
    assert stated("e", {}, {}, 3) is None
    with pytest.raises(DatasetError, match="expected 4 flags"):
        stated("e", {}, columns, 4)
    with pytest.raises(DatasetError, match="some are missing"):
        stated("e", {}, {"intervention": np.array([1.0, np.nan, 0.0])}, 3)


def test_a_step_of_several_frames_is_one_of_a_person_where_any_of_them_is(tmp_path):
    root = write_own_set(tmp_path / "own", 1)
    flags = np.zeros(STEPS, bool)
    flags[[0, 7, STEPS - 1]] = True  # the last frame is of no whole step
    path = root / DATA.format(episode_chunk=0, episode_index=0)
    pq.write_table(pq.read_table(path).append_column("intervention", pa.array(flags)), path)
    cfg = SourceConfig(name="own", path=str(root), cameras=CAMERAS, stride=5)
    read = LeRobotSource(cfg, DatasetReader(root), own_embodiment(control_hz=4)).episode(0, images=False)
    np.testing.assert_array_equal(read.intervention_T, [True, True, False, False])
    whole = LeRobotSource(replace(cfg, stride=1), DatasetReader(root), own_embodiment()).episode(0, images=False)
    np.testing.assert_array_equal(whole.intervention_T, flags)


def test_spans_name_first_frames_and_ends():
    assert spans(FLAGS) == [[2, 4], [7, 8], [11, 12]]
    assert spans(np.zeros(3, bool)) == []


def test_a_cells_operator_marks_the_frames_in_which_a_person_acts(tmp_path):
    world = make_world()
    recorder = Recorder(tmp_path, world.robot, "cell-v")
    world.cell._recorder = world.cell._control._recorder = recorder
    world.step(4)
    world.cell.intervene("anna")
    world.step(3)
    world.cell.intervene("")
    world.step(2)
    world.cell.intervene("anna")
    world.step(1)
    world.cell.end(StopReason.MAX_STEPS)
    (path,) = tmp_path.glob("*.episode")
    made = decode_episode(path.read_bytes())
    assert made.intervention_T is not None
    assert spans(made.intervention_T) == [[4, 7], [9, 10]]
    assert world.cell._wishes.intervening == ""  # the next episode begins with the policy


@pytest.mark.parametrize("format_name", ["lerobot-v3.0", "lerobot-v2.1"])
def test_flags_survive_an_export_where_every_episode_has_them(tmp_path, format_name):
    episodes = [episode(1, intervention_T=FLAGS), episode(2, intervention_T=np.zeros(12, bool))]
    export_lerobot(
        DatasetReader(write_dataset(tmp_path / "raw", episodes)), tmp_path / "out", Tally(), format_name=format_name, codec="lossless"
    )
    read = DatasetReader(tmp_path / "out")
    assert read.features["intervention"]["dtype"] == "bool"
    np.testing.assert_array_equal(read.episode(0, images=False).intervention_T, FLAGS)
    np.testing.assert_array_equal(read.episode(1, images=False).intervention_T, np.zeros(12, bool))


def test_flags_are_told_to_be_left_out_where_other_episodes_have_none(tmp_path):
    root = write_dataset(tmp_path / "raw", [episode(1, intervention_T=FLAGS), episode(2)])
    report = export_lerobot(DatasetReader(root), tmp_path / "out", Tally(), format_name="lerobot-v3.0", codec="lossless")
    assert any("where a person acted" in sentence for sentence in report.left_out)
    assert DatasetReader(tmp_path / "out").episode(0, images=False).intervention_T is None
