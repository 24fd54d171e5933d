"""What goes wrong with data on a real machine: each gives one clear message, loses nothing, and the next run goes on.

Run: .venv/bin/python -m pytest tests/integration/test_data_faults.py
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from components.adapters.storage.folder_transfer import upload_dataset
from components.adapters.storage.object_store import FolderStore
from components.adapters.storage.seaweedfs import LocalS3
from components.artifacts.files import dataset_digest
from components.artifacts.step_store import StepStore, run_step
from components.config.data_config import ValidateConfig
from components.config.records import Silent
from components.data.ingest import IngestOptions, ingest
from components.data.lerobot.reader import DatasetReader
from components.data.recordings import fetch_recordings, pending_recordings, upload_recordings
from components.data.validate import validate
from flows.platform.error_messages import of_the_disk
from model_core.spec.errors import DatasetError, GateError, StorageError
from model_core.spec.files import atomic_write, takes_nothing_more
from model_core.spec.protocol.wire import encode_episode
from serving.fleet.intake.problems import problem_of
from serving.workcell.audit.append_file import in_words
from tests.episodes import BODY, episode, write_dataset

pytestmark = pytest.mark.xdist_group("gx")
CFG = ValidateConfig(data_docs=False, frozen_frames_limit=11)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("faults") / "set", [episode(i) for i in range(20)], video_frames_per_file=60)


def test_a_truncated_mp4_costs_its_episodes_only(dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    video = sorted(root.glob("videos/*/*/*.mp4"))[-1]
    video.write_bytes(video.read_bytes()[:-9000])
    record = validate(CFG, root, tmp_path / "out", Silent())
    assert 0 < record["quarantined"] <= 4
    assert record["findings"] == {"unreadable": record["quarantined"]}
    first = json.loads(next(iter(sorted((tmp_path / "out/quarantine").glob("*.json")))).read_text())["findings"][0]
    assert "truncated" in first["reason"]
    assert video.name in first["reason"]


@pytest.mark.soak  # short: each fault, this one too, in test_validate
def test_nan_actions_set_one_episode_aside(dataset, tmp_path):
    bad = episode(30)
    actions = bad.actions_TA.copy()
    actions[7, 0] = np.nan
    root = write_dataset(tmp_path / "set", [*(episode(i) for i in range(9)), replace(bad, actions_TA=actions)])
    record = validate(CFG, root, tmp_path / "out", Silent())
    assert record["quarantined"] == 1
    assert record["findings"] == {"not_finite": 1}


def test_a_missing_camera_stops_with_its_name(dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    shutil.rmtree(root / "videos")
    with pytest.raises(GateError, match=r"20 of 20 episodes are bad.*unreadable \(20x\).*camera 'front' is missing"):
        validate(CFG, root, tmp_path / "out", Silent())
    info = json.loads((root / "meta/info.json").read_text())
    info["features"].pop("observation.images.front")
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(GateError, match=r"camera_missing \(20x\).*no images of camera 'front'"):
        validate(CFG, root, tmp_path / "out", Silent())


def test_a_stale_statistics_file_stops_before_anything_is_learnt(dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "set")
    other = write_dataset(tmp_path / "other", [episode(i) for i in range(50, 70)])
    shutil.copyfile(other / "meta/stats.json", root / "meta/stats.json")
    with pytest.raises(GateError, match=r"stale_statistics: stats.json states .* Fix: write the data set again"):
        validate(CFG, root, tmp_path / "out", Silent())


def test_an_unknown_task_index_is_named(dataset, tmp_path):
    import pyarrow.parquet as pq

    root = shutil.copytree(dataset, tmp_path / "set")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    index = table.column_names.index("task_index")
    wrong = table["task_index"].to_numpy().copy()
    wrong[:12] = 17
    pq.write_table(table.set_column(index, table.field(index), [wrong]), path)
    record = validate(CFG, root, tmp_path / "out", Silent())
    assert record["findings"] == {"unknown_task": 1}
    (found,) = json.loads((tmp_path / "out/quarantine/square-0000.json").read_text())["findings"]
    assert "task index 17 of a table of 2" in found["reason"]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(disk)], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_explained_and_the_next_run_goes_on(small_disk):
    def work(out):
        (out / "scratch").mkdir(exist_ok=True)
        (out / "scratch" / "kept").write_text("x")
        shutil.rmtree(out / "dataset", ignore_errors=True)
        write_dataset(out / "dataset", [episode(i) for i in range(10)])
        return {"version": dataset_digest(out / "dataset")}

    def attempt():
        return run_step(StepStore(small_disk), stage="collect", config={"a": 1}, inputs={}, work=work, code_version="1")

    for size in ("48k", "96k", "160k", "224k"):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        with pytest.raises(StorageError, match=r"collect: the disk under .* is full; free some space and run again"):
            attempt()
        assert not list(small_disk.glob("collect/*.partial/dataset"))
        assert list(small_disk.glob("collect/*.partial/scratch/kept"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    done = attempt()
    assert len(DatasetReader(done.step.path / "dataset")) == 10


@pytest.fixture
def few_inodes(tmp_path):
    """A file system with room for bytes and for 30 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=30", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_without_inodes_says_so_and_the_next_run_goes_on(few_inodes):
    def work(out):
        for number in range(40):
            (out / f"{number}.bin").write_bytes(b"x")
        return {}

    def attempt():
        return run_step(StepStore(few_inodes), stage="collect", config={"a": 1}, inputs={}, work=work, code_version="1")

    said = r"the disk under {} has no inode for another file.*df -i.*more inodes"
    with pytest.raises(StorageError, match="collect: " + said.format(few_inodes) + " and run again, finished work is kept"):
        attempt()
    with pytest.raises(OSError, match="No space left on device") as full:
        atomic_write(few_inodes / "more" / "file", b"x")
    told = of_the_disk(full.value)
    assert told is not None
    assert "while writing" in str(told)
    assert re.search(said.format(few_inodes).replace("file.*", "file while writing .*"), str(told))
    assert takes_nothing_more(few_inodes)
    assert "df -i" in in_words(full.value, few_inodes)
    assert problem_of(full.value).code == "NO_SPACE"
    assert "more inodes; the download goes on" in str(problem_of(full.value))
    subprocess.run(["mount", "-o", "remount,nr_inodes=200", str(few_inodes)], check=True)
    assert not takes_nothing_more(few_inodes)
    assert len(list(attempt().step.path.glob("*.bin"))) == 40


@pytest.mark.soak  # short: what a full disk means for a step, above
def test_a_store_on_a_full_disk_names_the_disk(small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,size=24m", str(small_disk)], check=True)
    (tmp_path / "thing").write_bytes(b"1" * 1000)
    with (
        LocalS3(small_disk / "s3") as endpoint,
        pytest.raises(StorageError, match=r"could not send k: the disk that holds .*/s3 is full \(\d+ bytes free.*Fix: free space") as told,
    ):
        endpoint.store("actwright").put("k", tmp_path / "thing")
    assert "network" not in str(told.value)


def test_a_store_that_goes_away_in_the_middle_takes_the_rest_later(dataset, tmp_path):
    local = LocalS3(tmp_path / "s3")
    store = local.start().store("actwright")

    class StopsInTheMiddle:
        def update(self, done, total, message=""):
            if done == 3:
                local.stop()

    with pytest.raises(StorageError, match=r"upload of set stopped after 3 of \d+ files: .*does not answer.*run again"):
        upload_dataset(store, dataset, StopsInTheMiddle())
    again = LocalS3(tmp_path / "s3")
    again.start()
    sent = upload_dataset(store, dataset, Silent())
    assert sent.skipped == 3
    assert sent.moved == sent.objects - 3
    again.stop()


# --- recordings of workcells -------------------------------------------------------------------------------------------


def spool(folder, episodes):
    folder.mkdir(parents=True)
    for one in episodes:
        (folder / f"{one.episode_id}.episode").write_bytes(encode_episode(one))
    return folder


def test_recordings_go_through_storage_into_a_new_data_set(dataset, tmp_path):
    good = [replace(episode(i), episode_id=f"cell-{i}") for i in range(40, 44)]
    torn = spool(tmp_path / "cell", good)
    failed = replace(episode(44), episode_id="cell-44", success=False)
    stranger = replace(episode(45), episode_id="cell-45", embodiment="other-arm")
    twin = replace(good[0], episode_id="cell-twin")
    spool(tmp_path / "more", [failed, stranger, twin])
    half = tmp_path / "more" / "half.episode"
    half.write_bytes((torn / "cell-40.episode").read_bytes()[:-100])
    store = FolderStore(tmp_path / "store")
    upload_recordings(store, torn, Silent())
    upload_recordings(store, tmp_path / "more", Silent())
    assert len(pending_recordings(store)) == 2
    folders = fetch_recordings(store, tmp_path / "fetched", Silent())
    record = ingest([dataset, *folders], tmp_path / "out", Silent())
    assert record["episodes"] == 24
    assert record["not_successful"] == 1
    reasons = sorted(check for checks in record["quarantined"].values() for check in checks)
    assert reasons == ["duplicate", "embodiment_differs", "unreadable"]
    text = json.loads((tmp_path / "out/quarantine/half.episode.json").read_text())["findings"][0]["reason"]
    assert "damaged" in text
    reader = DatasetReader(tmp_path / "out/dataset")
    assert validate(CFG, reader.root, tmp_path / "valid", Silent())["valid"] == 24
    by_id = {row.episode_id: row for row in reader.rows}
    assert np.array_equal(reader.episode(by_id["cell-42"].index).images["front"], good[2].images["front"])
    again = ingest([dataset, *folders], tmp_path / "again", Silent())
    assert again == record


def test_ingest_takes_no_data_set_whose_statistics_are_of_other_data(dataset, tmp_path):
    stale = shutil.copytree(dataset, tmp_path / "stale-set")
    other = write_dataset(tmp_path / "other", [episode(i) for i in range(50, 70)])
    shutil.copyfile(other / "meta/stats.json", stale / "meta/stats.json")
    before = dataset_digest(stale)
    said = r"stale-set/meta/stats.json: stats.json states observation.state min is .* in hand_x, the data give .*Fix: fetch or export"
    with pytest.raises(GateError, match=rf"20 recordings: 20 invalid, .*{said}"):
        ingest([stale], tmp_path / "alone", Silent())

    good = spool(tmp_path / "cell", [replace(episode(i), episode_id=f"cell-{i}") for i in range(40, 43)])
    record = ingest([stale, good], tmp_path / "out", Silent(), IngestOptions(max_bad_fraction=1.0, embodiment=BODY))
    assert record["episodes"] == 3, "its neighbours go on"
    assert set(record["quarantined"]) == {"stale-set/meta/stats.json"}
    document = json.loads((tmp_path / "out/quarantine/stale-set_meta_stats.json.json").read_text())
    assert document["findings"][0]["where"] == "stale-set/meta/stats.json"
    assert dataset_digest(stale) == before, "nothing is lost: the source lies as it was"

    trusted = ingest([stale, good], tmp_path / "trusted", Silent(), IngestOptions(trust_data=True))
    assert (trusted["episodes"], trusted["quarantined"]) == (23, {})


def test_ingest_refuses_what_it_cannot_judge(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no recordings"):
        ingest([tmp_path / "empty"], tmp_path / "out", Silent(), IngestOptions(embodiment=BODY))
    lonely = spool(tmp_path / "lonely", [episode(1)])
    with pytest.raises(DatasetError, match="no source names the embodiment"):
        ingest([lonely], tmp_path / "out", Silent())
    strangers = spool(tmp_path / "strangers", [replace(episode(i), embodiment="other") for i in range(3)])
    with pytest.raises(GateError, match=r"3 recordings: 3 invalid.*'other'"):
        ingest([strangers], tmp_path / "out", Silent(), IngestOptions(embodiment=BODY))
    assert len(list((tmp_path / "out/quarantine").glob("*.json"))) == 3
    assert not (tmp_path / "out/dataset").exists()
