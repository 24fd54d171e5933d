"""What is written is read back exactly, equal episodes give equal bytes, and a torn set says so.

Run: .venv/bin/python -m pytest tests/unit/test_lerobot_v3.py
"""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.artifacts.files import dataset_digest
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.data.lerobot.stale_statistics import stale_statistics
from components.data.lerobot.video import COMPACT, VideoReader, VideoWriter
from model_core.spec.errors import DatasetError
from tests.episodes import BODY, episode, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    episodes = [episode(i, length=8 + i) for i in range(7)]
    return write_dataset(tmp_path_factory.mktemp("lerobot") / "set", episodes, video_frames_per_file=25, file_bytes=60_000), episodes


def test_every_field_of_an_episode_comes_back(dataset):
    reader = DatasetReader(dataset[0])
    for index, written in enumerate(dataset[1]):
        read = reader.episode(index)
        for name in ("episode_id", "embodiment", "task", "instruction", "success", "provenance"):
            assert getattr(read, name) == getattr(written, name)
        for name in ("proprio_TP", "actions_TA", "executed_TA", "timestamps_T", "tcp_T3"):
            assert np.array_equal(getattr(read, name), getattr(written, name)), name
            assert getattr(read, name).dtype == getattr(written, name).dtype
        assert np.array_equal(read.images["front"], written.images["front"])
        assert np.array_equal(read.depth_m["front"], written.depth_m["front"])
        assert np.allclose(read.geometry["front"].world_to_camera_44, written.geometry["front"].world_to_camera_44)


def test_frames_are_exact_in_any_order_over_several_files(dataset):
    root, episodes = dataset
    assert len(list(root.glob("videos/*/*/*.mp4"))) > 2
    assert len(list(root.glob("depth/*/*/*.parquet"))) > 1
    wanted = {e.episode_id: hashlib.sha256(e.images["front"].tobytes()).hexdigest() for e in episodes}
    reader = DatasetReader(root)
    for index in (6, 0, 3, 3, 4, 5, 1, 6, 2):
        read = reader.episode(index)
        assert hashlib.sha256(read.images["front"].tobytes()).hexdigest() == wanted[read.episode_id]


def test_equal_episodes_give_equal_bytes_wherever_they_are_written(dataset, tmp_path):
    again = write_dataset(tmp_path / "elsewhere", dataset[1], video_frames_per_file=25, file_bytes=60_000)
    assert dataset_digest(again) == dataset_digest(dataset[0])
    other = write_dataset(tmp_path / "other", [episode(99), *dataset[1][1:]], video_frames_per_file=25, file_bytes=60_000)
    assert dataset_digest(other) != dataset_digest(dataset[0])


def test_the_layout_is_that_of_lerobot(dataset):
    root = dataset[0]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["fps"] == 20
    assert info["total_frames"] == sum(len(e) for e in dataset[1])
    assert info["features"]["observation.images.front"]["dtype"] == "video"
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert set(tasks.column_names) == {"task_index", "__index_level_0__"}
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
    assert {"dataset_from_index", "dataset_to_index", "videos/observation.images.front/from_timestamp", "stats/action/q99"} <= set(
        episodes.column_names
    )
    data = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert str(data.schema.field("action").type).startswith("fixed_size_list<element: float")
    assert "huggingface" in {k.decode() for k in data.schema.metadata}


def test_statistics_are_those_of_the_data(dataset):
    reader = DatasetReader(dataset[0])
    actions = np.concatenate([e.actions_TA for e in dataset[1]]).astype(np.float64)
    stats = reader.stats["action"]
    assert np.allclose(stats["mean"], actions.mean(axis=0))
    assert np.allclose(stats["q01"], np.quantile(actions, 0.01, axis=0))
    assert stats["count"] == [len(actions)]
    assert np.asarray(reader.stats["observation.images.front"]["mean"]).shape == (3, 1, 1)
    assert stale_statistics(reader) == []


def test_statistics_of_other_data_are_seen(dataset, tmp_path):
    root = shutil.copytree(dataset[0], tmp_path / "copy")
    stats = json.loads((root / "meta/stats.json").read_text())
    stats["action"]["mean"][1] += 0.01
    (root / "meta/stats.json").write_text(json.dumps(stats))
    (reason,) = stale_statistics(DatasetReader(root))
    assert "action mean" in reason


def test_a_plain_set_without_our_files_is_read(dataset, tmp_path):
    root = shutil.copytree(dataset[0], tmp_path / "plain")
    for path in root.glob("meta/actwright*"):
        path.unlink()
    shutil.rmtree(root / "depth")
    reader = DatasetReader(root)
    read = reader.episode(2)
    assert reader.described is None
    with pytest.raises(DatasetError, match="does not describe the embodiment"):
        _ = reader.embodiment
    assert read.depth_m == {}
    assert read.geometry == {}
    assert read.tcp_T3 is None
    assert read.task == read.instruction == "push the button"
    assert read.provenance.producer == "unknown"
    assert np.array_equal(read.images["front"], dataset[1][2].images["front"])


def test_a_cut_video_costs_only_what_was_in_the_lost_part(dataset, tmp_path):
    root = shutil.copytree(dataset[0], tmp_path / "cut")
    video = root / "videos/observation.images.front/chunk-000/file-000.mp4"
    content = video.read_bytes()
    video.write_bytes(content[: int(len(content) * 0.6)])
    reader, said = DatasetReader(root), {}
    for index in range(len(reader)):
        try:
            assert np.array_equal(reader.episode(index).images["front"], dataset[1][index].images["front"])
        except DatasetError as error:
            said[index] = str(error)
    assert said
    assert 0 not in said
    assert len(reader) - 1 not in said
    assert all("truncated" in text and "file-000.mp4" in text for text in said.values())


def test_missing_files_are_named(dataset, tmp_path):
    root = shutil.copytree(dataset[0], tmp_path / "missing")
    next(iter(root.glob("videos/*/*/*.mp4"))).unlink()
    with pytest.raises(DatasetError, match=r"videos/observation.images.front/chunk-000/file-000.mp4 .* is missing"):
        DatasetReader(root).episode(0)
    (root / "meta/info.json").unlink()
    with pytest.raises(DatasetError, match=r"no meta/info.json"):
        DatasetReader(root)


def test_another_version_is_refused(dataset, tmp_path):
    root = shutil.copytree(dataset[0], tmp_path / "old")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v2.1"}))
    with pytest.raises(DatasetError, match=r"v2\.1"):
        DatasetReader(root)


def test_nothing_is_left_when_writing_fails(tmp_path):
    wrong = replace(episode(1), images={"wrist": episode(1).images["front"]})
    with pytest.raises(DatasetError, match="cameras must be"):
        write_dataset(tmp_path / "set", [episode(0), wrong])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_set_and_an_overwrite_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no episode was added"):
        write_dataset(tmp_path / "set", [])
    write_dataset(tmp_path / "set", [episode(0)])
    with pytest.raises(DatasetError, match="exists already"):
        write_dataset(tmp_path / "set", [episode(0)])


def test_a_rate_that_lerobot_cannot_say_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="whole number of frames"):
        DatasetWriter(tmp_path / "set", replace(BODY, control_hz=80 / 3))


def test_numbers_that_are_not_finite_survive_for_validation_to_find(tmp_path):
    bad = episode(0)
    actions = bad.actions_TA.copy()
    actions[3, 2] = np.nan
    root = write_dataset(tmp_path / "set", [replace(bad, actions_TA=actions), episode(1)])
    assert np.isnan(DatasetReader(root).episode(0).actions_TA[3, 2])


def test_the_compact_codec_is_close_on_large_pictures(tmp_path):
    rows = np.arange(128, dtype=np.float64)
    frames = np.stack([np.stack([rows[None, :] + rows[:, None] * 0.5 + 3 * t] * 3, axis=-1).clip(0, 255) for t in range(6)]).astype(
        np.uint8
    )
    writer = VideoWriter(tmp_path / "a.mp4", fps=20, width=128, height=128, codec=COMPACT)
    writer.append(frames)
    writer.close()
    read = VideoReader(tmp_path / "a.mp4", 20).read(2, 3)
    assert np.abs(read.astype(int) - frames[2:5]).mean() < 3
