"""Sets of other writers: each gives its own frames, actions and sentence, or is refused by words that name the place.

Run: .venv/bin/python -m pytest tests/unit/test_plain_sets.py
"""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.data.lerobot.reader import DatasetReader, TaskError
from model_core.spec.errors import DatasetError
from tests.episodes import episode, write_dataset
from tests.plain_set import (
    CLOSE,
    OPEN,
    PlainEpisode,
    PlainLayout,
    change_data,
    change_info,
    change_rows,
    mark_of,
    plain_episode,
    with_column,
    write_plain_set,
    write_tasks,
)

SIZE, LENGTH = 32, 10
MADE = [plain_episode(n, length=LENGTH, size=SIZE) for n in range(4)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_plain_set(tmp_path_factory.mktemp("plain") / "set", MADE, PlainLayout(episodes_per_data_file=2, episodes_per_film=2))


@pytest.fixture
def copy(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "set")


def are_right(root, numbers=range(4)):
    """Every episode that is there has the pictures and the actions of one made episode, and all of its steps."""
    reader = DatasetReader(root)
    assert [row.number for row in reader.rows] == list(numbers)
    for row in reader.rows:
        read = reader.episode(row.index)
        assert [mark_of(frame) for frame in read.images["front"]] == [(row.number, step) for step in range(LENGTH)]
        assert np.array_equal(read.actions_TA, MADE[row.number].actions_TA)
        assert np.array_equal(read.proprio_TP, MADE[row.number].state_TP)
        assert np.allclose(read.timestamps_T, np.arange(LENGTH) / 20, atol=1e-6)
        assert read.instruction == CLOSE


def refused(root, words):
    with pytest.raises(DatasetError, match=words) as told:
        _ = DatasetReader(root).rows
    assert "Fix:" in str(told.value)


def test_a_plain_set_is_read_as_it_was_written(plain):
    are_right(plain)


# --- versions and info.json ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "todo"),
    [
        ("v2.1", "its files are those of v3.0.*to v3.0"),
        ("v2.0", "its files are those of v3.0"),
        ("v1.6", "bring a copy to v2.1"),
        ("v3.1", "newer Actwright"),
        (None, "names no codebase_version"),
    ],
)
def test_another_version_is_named_with_what_to_do(copy, version, todo):
    change_info(copy, codebase_version=version)
    refused(copy, rf"(?s){version or ''}.*{todo}")


def test_files_of_v2_under_the_name_of_v3_are_seen(copy):
    shutil.rmtree(copy / "meta/episodes")
    (copy / "meta/episodes.jsonl").write_text("{}\n")
    refused(copy, r"its files are those of v2")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("fps", None, "fps must be a number of frames a second"),
        ("fps", 0, "fps must be"),
        ("total_episodes", None, "total_episodes must be a whole number, got nothing"),
        ("data_path", "data/episode_{episode_index:06d}.parquet", "data_path must be a path made of chunk_index, file_index"),
        ("video_path", None, "video_path must be"),
        ("features", None, "features must be"),
    ],
)
def test_what_info_lacks_is_named(copy, field, value, words):
    change_info(copy, **{field: value})
    refused(copy, words)


def test_a_film_of_depth_is_no_camera(copy):
    features = json.loads((copy / "meta/info.json").read_text())["features"]
    depth = features["observation.images.front"] | {"info": {"video.is_depth_map": True}}
    change_info(copy, features=features | {"observation.images.front": depth})
    reader = DatasetReader(copy)
    assert reader.cameras == ()
    assert reader.episode(0).images == {}


def test_a_shape_with_the_channels_first_is_read_by_the_names_of_its_axes(copy):
    features = json.loads((copy / "meta/info.json").read_text())["features"]
    camera = {"dtype": "video", "shape": [3, SIZE, SIZE], "names": ["channels", "height", "width"]}
    change_info(copy, features=features | {"observation.images.front": camera})
    are_right(copy)
    change_info(copy, features=features | {"observation.images.front": camera | {"shape": [3, SIZE, 48]}})
    with pytest.raises(DatasetError, match=r"32 high and 32 wide .* states \(32, 48\)"):
        DatasetReader(copy).episode(0)


# --- which rows are an episode's ------------------------------------------------------------------------------------------


def test_an_episode_that_was_removed_leaves_the_others_their_own(copy):
    change_data(copy, lambda t: t.filter(pc.not_equal(t["episode_index"], 1)))
    change_data(copy, lambda t: with_column(t, "index", t["index"].to_numpy() - LENGTH), file=1)

    def moved(row):
        later = row["episode_index"] > 1
        places = ("dataset_from_index", "dataset_to_index")
        return None if row["episode_index"] == 1 else row | {k: row[k] - LENGTH * later for k in places}

    change_rows(copy, moved)
    refused(copy, r"lists 3 episodes and 30 frames, the data files hold 30 frames, .* states 4 episodes and 40 frames")
    change_info(copy, total_episodes=3, total_frames=30)
    are_right(copy, (0, 2, 3))
    assert [row.episode_id for row in DatasetReader(copy).rows] == ["set-000000", "set-000002", "set-000003"]


def test_our_own_table_is_read_by_episode_index_and_not_by_place(tmp_path):
    made = [episode(n, success=n != 1, task=f"task-{n}") for n in range(4)]
    root = write_dataset(tmp_path / "set", made, video_frames_per_file=12)
    change_data(root, lambda t: t.filter(pc.not_equal(t["episode_index"], 1)))
    change_rows(
        root,
        lambda row: (
            None
            if row["episode_index"] == 1
            else row
            | (
                {"dataset_from_index": row["dataset_from_index"] - 12, "dataset_to_index": row["dataset_to_index"] - 12}
                if row["episode_index"] > 1
                else {}
            )
        ),
    )
    change_info(root, total_episodes=3, total_frames=36)
    reader = DatasetReader(root)
    assert [(row.task, row.success) for row in reader.rows] == [("task-0", True), ("task-2", True), ("task-3", True)]
    for row, one in zip(reader.rows, (made[0], made[2], made[3]), strict=True):
        read = reader.episode(row.index)
        assert read.episode_id == one.episode_id
        assert np.array_equal(read.actions_TA, one.actions_TA)
        assert np.array_equal(read.images["front"], one.images["front"])
        assert np.array_equal(read.depth_m["front"], one.depth_m["front"])
    table = pq.read_table(root / "meta/actwright_episodes.parquet")
    pq.write_table(table.slice(0, 3), root / "meta/actwright_episodes.parquet")
    with pytest.raises(DatasetError, match="has no row of episode 3"):
        _ = DatasetReader(root).rows


def test_a_description_of_another_format_is_refused(tmp_path):
    root = write_dataset(tmp_path / "set", [episode(0)])
    document = json.loads((root / "meta/actwright.json").read_text())
    document["depth"]["front"]["unit"] = "0.1 mm"
    (root / "meta/actwright.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=r"depth of 'front' as uint16 in 0.1 mm, expected format 1"):
        DatasetReader(root)


def rows_of(number, first, length=LENGTH):
    return lambda row: row | ({"dataset_from_index": first, "dataset_to_index": first + length} if row["episode_index"] == number else {})


def swapped(row):
    return rows_of(1, 20)(rows_of(2, 10)(row))


def counted_in_each_file(row):
    return row | {"dataset_from_index": 10 * (row["episode_index"] % 2), "dataset_to_index": 10 * (row["episode_index"] % 2) + 10}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, r"episode 1 .* begins at row 20; row 20 must be its frame 0, but is frame 0 of episode 2"),
        (counted_in_each_file, r"episode 2 .* begins at row 0; row 0 .* is frame 0 of episode 0"),
        (rows_of(3, 29), r"row 29 must be its frame 0, but is frame 9 of episode 2"),
        (lambda row: row | ({"dataset_to_index": 19} if row["episode_index"] == 1 else {}), r"rows 10 to 19 and length 10"),
        (
            lambda row: row | ({"data/file_index": 0} if row["episode_index"] == 2 else {}),
            r"names data file .*file-000, but its rows are in .*file-001",
        ),
        (lambda row: row | {"episode_index": 0 if row["episode_index"] == 1 else row["episode_index"]}, r"episode 0 is listed twice"),
        (lambda row: {k: v for k, v in row.items() if k != "length"}, r"has no column 'length'"),
        (lambda row: row | {"length": None}, r"column 'length', row 0 is None, expected a whole number"),
    ],
)
def test_rows_that_are_not_the_episodes_are_named(copy, change, words):
    change_rows(copy, change)
    refused(copy, words)


def test_a_row_that_was_lost_or_doubled_is_named(copy, plain):
    change_data(copy, lambda t: pa.concat_tables([t.slice(0, 4), t.slice(4, 1), t.slice(4, 15)]))
    refused(copy, r"row 5 must be its frame 5, but is frame 4 of episode 0")
    shutil.copyfile(plain / "data/chunk-000/file-000.parquet", copy / "data/chunk-000/file-000.parquet")
    are_right(copy)
    change_data(copy, lambda t: pa.concat_tables([t.slice(0, 5), t.slice(6)]))
    refused(copy, r"the data files hold 39 frames")


def test_a_recorder_that_ended_without_finalize_is_explained(copy):
    change_rows(copy, lambda row: row if row["episode_index"] < 3 else None)
    refused(copy, r"lists 3 episodes and 30 frames, the data files hold 40 frames.*the recorder ended without finalize\(\)")
    change_rows(copy, lambda row: row if row["episode_index"] < 2 else None)
    refused(copy, r"1 data files, first data/chunk-000/file-001.parquet, hold rows of no episode.*finalize\(\)")
    shutil.rmtree(copy / "meta/episodes")
    refused(copy, r"meta/episodes holds no parquet file; .*finalize\(\)")


# --- tables of other writers ------------------------------------------------------------------------------------------------


def as_float64(table):
    return with_column(table, "action", pa.FixedSizeListArray.from_arrays(np.array(table["action"].to_pylist()).ravel(), 4))


def as_large_list(table):
    return with_column(table, "observation.state", pa.array(table["observation.state"].to_pylist(), pa.large_list(pa.float64())))


def as_int32(table):
    return with_column(
        with_column(table, "index", table["index"].cast(pa.int32())), "episode_index", table["episode_index"].cast(pa.float64())
    )


def with_extras(table):
    noted = with_column(table, "annotation", [["x", "y"]] * table.num_rows)
    return with_column(with_column(noted, "language", ["go"] * table.num_rows), "next.reward", [None, *[0.5] * (table.num_rows - 1)])


@pytest.mark.parametrize(
    "change",
    [
        as_float64,
        as_large_list,
        as_int32,
        with_extras,
        lambda t: t.select(sorted(t.column_names)),
        lambda t: t.drop_columns(["timestamp"]),
        lambda t: with_column(t, "action", pa.array(t["action"].to_pylist(), pa.list_(pa.float32()))),
    ],
)
@pytest.mark.parametrize("files", [(1,), (0, 1)])
def test_tables_of_other_writers_give_the_same_episodes(copy, change, files):
    for file in files:
        change_data(copy, change, file)
    are_right(copy)


def with_action_rows(rows, kind=None):
    def change(table):
        kept = table["action"].to_pylist()
        return with_column(table, "action", pa.array([rows.get(n, kept[n]) for n in range(len(kept))], kind or pa.list_(pa.float32())))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_action_rows({5: None}, pa.list_(pa.float32(), 4)), r"file-001.parquet: column 'action', row 5 is empty"),
        (with_action_rows({5: [0.1, 0.2, 0.3], 6: [0.1] * 5}), r"file-001.parquet: column 'action', row 5 has 3 values, expected 4"),
        (with_action_rows({7: [0.1, None, 0.3, 0.4]}), r"file-001.parquet: column 'action', row 7 has an empty value"),
        (with_action_rows({3: [1e300, 0, 0, 0]}, pa.list_(pa.float64())), r"column 'action', row 3 is 1e\+300, which float32 cannot hold"),
        (lambda t: with_column(t, "action", ["go"] * t.num_rows), r"column 'action' holds string, expected numbers"),
        (
            lambda t: with_column(t, "frame_index", t["frame_index"].to_numpy() + 0.5),
            r"column 'frame_index', row 0 is 0.5, expected a whole",
        ),
        (lambda t: t.drop_columns(["episode_index"]), r"file-001.parquet has no column 'episode_index'"),
        (lambda t: t.drop_columns(["action"]), r"file-001.parquet has no column 'action', which data/chunk-000/file-000.parquet has"),
        (lambda t: with_column(t, "action", [[0.1] * 5] * t.num_rows), r"column 'action' has 5 values a row, meta/info.json states 4"),
    ],
)
def test_a_table_that_cannot_be_held_is_refused_by_file_column_and_row(copy, change, words):
    change_data(copy, change, file=1)
    refused(copy, words)


def test_large_values_with_small_differences_are_not_rounded_together(copy):
    for file in (0, 1):
        change_data(
            copy,
            lambda t: with_column(t, "observation.state", [[1.7e9 + 0.05 * n, 0.6, 0.2, 0.5] for n in range(t.num_rows)]),
            file,
        )
    refused(copy, r"column 'observation.state' has values of 1.7e\+09 that differ by 0.95 at most, which float32 cannot tell apart")


def test_actions_of_one_number_are_plain_columns(tmp_path):
    one = PlainEpisode(
        state_TP=MADE[0].state_TP, actions_TA=MADE[0].actions_TA[:, :1], frames_THW3=MADE[0].frames_THW3, tasks=MADE[0].tasks
    )
    root = write_plain_set(tmp_path / "set", [one])
    change_data(root, lambda t: with_column(t, "action", one.actions_TA.ravel()))
    assert np.array_equal(DatasetReader(root).episode(0).actions_TA, one.actions_TA)


def test_a_time_that_is_of_another_frame_costs_its_episode(copy):
    def late(table):
        times = table["timestamp"].to_numpy().copy()
        times[4:LENGTH] += 0.05
        return with_column(table, "timestamp", times)

    change_data(copy, late)
    reader = DatasetReader(copy)
    with pytest.raises(DatasetError, match=r"set-000000: frame 4 is stamped 0.25 s, at 20 frames a second it is due 0.2 s after"):
        reader.episode(0)
    assert [mark_of(f)[0] for f in reader.episode(1).images["front"]] == [1] * LENGTH


# --- tasks --------------------------------------------------------------------------------------------------------------


def said(root):
    return [row.instruction for row in DatasetReader(root).rows]


def test_the_sentence_is_that_of_the_frames(tmp_path):
    made = [plain_episode(n, length=LENGTH, size=SIZE, task=OPEN if n == 0 else CLOSE) for n in range(3)]
    root = write_plain_set(tmp_path / "set", made)
    assert said(root) == [OPEN, CLOSE, CLOSE]
    change_rows(root, lambda row: row | {"tasks": [OPEN]})
    assert said(root) == [OPEN, CLOSE, CLOSE], "a list that is out of date does not count"
    write_tasks(root, {CLOSE: 1, OPEN: 0})
    assert said(root) == [OPEN, CLOSE, CLOSE], "by the column, not by the order of the rows"
    change_rows(root, lambda row: {k: v for k, v in row.items() if k != "tasks"})
    write_tasks(root, {OPEN: 5, CLOSE: 6})
    change_data(root, lambda t: with_column(t, "task_index", t["task_index"].to_numpy() + 5))
    assert said(root) == [OPEN, CLOSE, CLOSE], "a table that begins at 5"
    assert DatasetReader(root).instructions == (OPEN, CLOSE)


def test_without_task_index_the_list_counts_where_it_names_one(copy):
    for file in (0, 1):
        change_data(copy, lambda t: t.drop_columns(["task_index"]), file)
    assert said(copy) == [CLOSE] * 4
    change_rows(copy, lambda row: row | {"tasks": [CLOSE, OPEN] if row["episode_index"] == 2 else [CLOSE]})
    with pytest.raises(TaskError, match=r"its list names 2 tasks, expected one"):
        DatasetReader(copy).episode(2)


def test_an_episode_of_two_tasks_is_refused_and_its_neighbours_are_not(tmp_path):
    two = plain_episode(1, length=LENGTH, size=SIZE)
    mixed = PlainEpisode(state_TP=two.state_TP, actions_TA=two.actions_TA, frames_THW3=two.frames_THW3, tasks=(OPEN,) * 4 + (CLOSE,) * 6)
    reader = DatasetReader(write_plain_set(tmp_path / "set", [MADE[0], mixed, MADE[2]]))
    with pytest.raises(TaskError, match=rf"of 2 tasks \('{OPEN}' from frame 0, '{CLOSE}' from frame 4\), expected one.*Fix: cut it"):
        reader.episode(1)
    assert reader.episode(2).instruction == CLOSE


def test_tables_of_tasks_of_other_writers(copy):
    path = copy / "meta/tasks.parquet"
    pq.write_table(pa.table({"task_index": [0], "sentence": [CLOSE]}), path)
    assert said(copy) == [CLOSE] * 4
    pq.write_table(pa.table({"task_index": [0, 0], "task": [CLOSE, OPEN]}), path)
    refused(copy, rf"task_index 0 stands for '{CLOSE}' and for '{OPEN}'")
    pq.write_table(pa.table({"task_index": [0], "a": [CLOSE], "b": [OPEN]}), path)
    refused(copy, r"text in a, b, expected the sentences in one column 'task'")
