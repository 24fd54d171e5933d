"""DVC with the embedded store as remote: recorded, pushed, lost, fetched; keys never where git looks.

Run: .venv/bin/python -m pytest tests/integration/test_dvc.py
"""

import fcntl
import json
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from components.adapters.dvc import DvcStore, Remote
from components.adapters.dvc_remote import restore_lost_objects
from components.adapters.storage.object_store import FolderStore
from components.adapters.storage.seaweedfs import LocalS3
from components.config.stages import DATA_STAGES
from flows.pipeline.recipes import get_recipe
from model_core.spec.errors import DatasetError, StorageError

DVC_WAITS_S = 3  # DVC itself, before it gives up

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder that is a DVC repository with the stages and no remote."""
    root = tmp_path_factory.mktemp("prepared") / "repository"
    root.mkdir()
    DvcStore(root).prepare()
    return root


@pytest.fixture
def root(prepared, tmp_path):
    """A repository of its own for a test: DVC's program takes a second to make one."""
    return shutil.copytree(prepared, tmp_path / "repository")


def make_data(root, text="x"):
    for stage in DATA_STAGES:
        (root / "data" / stage).mkdir(parents=True, exist_ok=True)
        (root / "data" / stage / "file").write_text(f"{stage} {text}")
    (root / "data" / "recipe.json").write_text(json.dumps(get_recipe("miniature").to_json()))


@pytest.mark.soak  # short: a folder as remote below, objects of S3 in test_local_s3
def test_a_version_goes_to_s3_and_comes_back(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    make_data(root)
    dvc = DvcStore(root)
    local = LocalS3(tmp_path / "s3")
    endpoint = local.start()
    endpoint.store("actwright").ensure_bucket()
    remote = Remote(url="s3://actwright/dvc", endpoint_url=endpoint.url, access_key=endpoint.access_key, secret_key=endpoint.secret_key)
    dvc.prepare(remote)
    with pytest.raises(DatasetError, match="no record of collect, validate, annotate, freeze"):
        dvc.version()
    version = dvc.record()
    assert set(version.outputs) == set(DATA_STAGES)
    assert dvc.push() == 8
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data" / "freeze")
    assert "freeze" in dvc.status()
    assert dvc.pull() > 0
    assert (root / "data/freeze/file").read_text() == "freeze x"
    assert dvc.version() == version
    secret = root / ".dvc" / "config.local"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert endpoint.secret_key in secret.read_text()
    seen_by_git = [p for p in root.rglob("*") if p.is_file() and p != secret and "cache" not in p.parts and "tmp" not in p.parts]
    assert all(endpoint.secret_key.encode() not in p.read_bytes() for p in seen_by_git)
    local.stop()
    make_data(root, "changed")
    assert dvc.record().version != version.version
    with pytest.raises(StorageError, match=r"remote store does not answer.*run again"):
        dvc.push()


@pytest.mark.soak  # short: an S3 remote above, a command that waits for another one's lock below
def test_a_folder_is_a_remote_and_two_commands_wait_for_each_other(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    make_data(root)
    dvc = DvcStore(root)
    dvc.prepare(Remote(url=str(tmp_path / "remote")))
    failures = []

    def record():
        try:
            dvc.record()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=record) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert dvc.push() == 8


@pytest.mark.parametrize("act", ["record", pytest.param("track", marks=pytest.mark.soak)])  # short: both wait in one place
def test_a_command_waits_longer_than_dvc_does_for_its_lock(root, act):
    make_data(root)
    dvc = DvcStore(root)
    (root / "data" / "own").mkdir()
    (root / "data" / "own" / "file").write_text("x")
    with (root / ".dvc" / "tmp" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        holder = threading.Timer(DVC_WAITS_S + 3, fcntl.flock, (lock, fcntl.LOCK_UN))
        holder.start()
        begun = time.monotonic()
        assert dvc.record().version if act == "record" else dvc.track(root / "data" / "own")
        assert time.monotonic() - begun > DVC_WAITS_S
        holder.join()


def test_what_the_remote_lost_is_sent_again_and_what_it_spoilt_is_not_taken(root, tmp_path):
    make_data(root)
    dvc = DvcStore(root)
    dvc.prepare(Remote(url=str(tmp_path / "remote" / "dvc")))
    version = dvc.record()
    dvc.push()
    remote = tmp_path / "remote/dvc/files/md5"
    lost, spoilt = (p for p in sorted(remote.rglob("*")) if p.is_file() and p.read_text() in ("collect x", "freeze x"))
    lost.unlink()
    assert dvc.push() == 0, "DVC believes the list of a folder; if it does not any more, `dvc_remote` is not needed"
    sent = restore_lost_objects(FolderStore(tmp_path / "remote"), "dvc", version, dvc.cache)
    assert [remote.parents[2] / key for key in sent] == [lost]
    spoilt.chmod(0o644)
    spoilt.write_text(spoilt.read_text()[:-1] + "y")
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data")
    (root / "data").mkdir()
    with pytest.raises(
        DatasetError, match=r"dvc pull failed.*its bytes are not those of its name. Fix: on a machine that has this version"
    ):
        dvc.pull()
    found = {p.read_text() for p in (root / "data").rglob("file")}
    assert found == {f"{stage} x" for stage in DATA_STAGES} - {spoilt.read_text()[:-1] + "x"}


def test_dvc_says_why_it_refuses(root):
    with pytest.raises(DatasetError, match=r"dvc commit failed in .*data/.*does not exist"):
        DvcStore(root).record()


def test_our_own_repository_is_ready():
    root = Path(__file__).parents[2]
    assert "analytics = false" in (root / ".dvc/config").read_text()
    ignored = (root / ".dvc/.gitignore").read_text().split()
    assert "/config.local" in ignored
    stages = subprocess.run(
        [str(root / ".venv/bin/dvc"), "stage", "list", "--name-only"], cwd=root, capture_output=True, text=True, check=True
    )
    assert stages.stdout.split() == list(DATA_STAGES)
