"""Exported sets: plain LeRobot folders that hold what they were made from, or nothing at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.artifacts.new_folder import new_folder
from components.config.records import Silent
from components.data.export.export import export_lerobot
from components.data.lerobot.reader import DatasetReader
from model_core.spec.errors import DatasetError
from tests.episodes import episode, write_dataset
from tests.plain_set import plain_episode, write_plain_set

FORMATS = ("lerobot-v3.0", "lerobot-v2.1")


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> DatasetReader:
    return DatasetReader(write_dataset(tmp_path_factory.mktemp("sets") / "ours", [episode(n, length=8 + n) for n in range(3)]))


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_lossless_export_is_plain_and_equal(ours, tmp_path, format_name):
    told = export_lerobot(ours, tmp_path / "out", Silent(), format_name=format_name, codec="lossless")
    assert (told.episodes, told.frames, told.psnr_db, told.largest_difference) == (3, 27, None, 0)
    assert any("executed actions" in line for line in told.left_out)
    read = DatasetReader(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*actwright*"))
    for index in range(3):
        one, other = ours.episode(index), read.episode(index)
        assert np.array_equal(one.images["front"], other.images["front"])
        assert np.array_equal(one.actions_TA, other.actions_TA)
        assert (one.instruction, one.success) == (other.instruction, other.success)
    assert os.listdir(tmp_path) == ["out"]


def test_statistics_are_exact_over_all_rows_and_all_pixels(ours, tmp_path):
    export_lerobot(ours, tmp_path / "out", Silent(), format_name="lerobot-v3.0", codec="lossless")
    kept = json.loads((tmp_path / "out/meta/stats.json").read_text())
    actions = np.concatenate([ours.episode(n, images=False).actions_TA for n in range(3)]).astype(np.float64)
    pixels = np.concatenate([ours.episode(n).images["front"] for n in range(3)]) / 255.0
    for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        assert np.allclose(kept["action"][name], np.quantile(actions, q, axis=0), atol=1e-12)
    assert np.allclose(kept["action"]["std"], actions.std(axis=0))
    assert np.allclose(np.ravel(kept["observation.images.front"]["mean"]), pixels.mean(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(kept["observation.images.front"]["std"]), pixels.std(axis=(0, 1, 2)))
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["stats/action/count"] for row in rows] == [[8], [9], [10]]


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("format_name", FORMATS)
def test_a_lossy_export_tells_what_it_lost(tmp_path, format_name, codec):
    source = DatasetReader(write_plain_set(tmp_path / "plain", [plain_episode(n, length=7) for n in range(2)]))
    told = export_lerobot(source, tmp_path / "out", Silent(), format_name=format_name, codec=codec)
    assert told.images.startswith("lossy")
    assert told.psnr_db is not None
    assert told.psnr_db > 35
    read = DatasetReader(tmp_path / "out")
    assert np.array_equal(source.episode(1).actions_TA, read.episode(1).actions_TA)
    assert read.episode(1).success is None


def test_an_odd_size_is_refused_for_a_codec_that_needs_an_even_one(tmp_path):
    source = DatasetReader(write_plain_set(tmp_path / "plain", [plain_episode(0, length=3, size=33)]))
    with pytest.raises(DatasetError, match=r"even number of pixels.*33 x 33.*--codec lossless"):
        export_lerobot(source, tmp_path / "out", Silent(), format_name="lerobot-v3.0", codec="h264")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_a_finished_folder_and_nothing_is_left_of_a_failed_one(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DatasetError, match="there already"), new_folder(tmp_path / "there"):
        pytest.fail("a finished folder must not be written into")
    with pytest.raises(OSError, match="full"):
        _fail_in_the_middle(tmp_path / "new")
    assert os.listdir(tmp_path) == ["there"]


def test_what_a_killed_process_left_is_never_visible_and_goes_with_the_next_attempt(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from components.artifacts.new_folder import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as beside:\n    (beside / 'file').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "new")], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "new").exists()
    assert len(os.listdir(tmp_path)) == 1
    with new_folder(tmp_path / "new") as beside:
        (beside / "file").write_text("whole")
    assert os.listdir(tmp_path) == ["new"]


def _fail_in_the_middle(target):
    with new_folder(target) as beside:
        (beside / "file").write_text("half")
        raise OSError(28, "the disk is full")
