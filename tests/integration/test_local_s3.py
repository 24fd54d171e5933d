"""The embedded object store: starts by itself, keeps its data, answers only to its keys, and goes when we go.

Run: .venv/bin/python -m pytest tests/integration/test_local_s3.py
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.adapters.storage.folder_transfer import download_folder, upload_folder
from components.adapters.storage.frozen_data import fetch_frozen, send_frozen
from components.adapters.storage.s3 import S3Address, S3Store
from components.adapters.storage.seaweedfs import LocalS3, _answers
from components.artifacts.files import dataset_digest
from components.config.records import Silent
from model_core.spec.errors import StorageError

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    local = LocalS3(tmp_path_factory.mktemp("s3"))
    endpoint = local.start()
    yield local, endpoint
    local.stop()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "things"
    (made / "deep").mkdir(parents=True)
    (made / "one").write_bytes(os.urandom(300_000))
    (made / "deep" / "two").write_bytes(b"2")
    return made


def test_there_and_back_only_once(server, folder, tmp_path):
    store = server[1].store("actwright")
    sent = upload_folder(store, folder, "raw/a", Silent())
    assert (sent.moved, sent.skipped) == (2, 0)
    assert upload_folder(store, folder, "raw/a", Silent()).moved == 0
    fetched = download_folder(store, "raw/a", tmp_path / "back", Silent())
    assert fetched.objects == 2
    assert (tmp_path / "back/one").read_bytes() == (folder / "one").read_bytes()
    assert [o.key for o in store.list("raw/a/")] == ["raw/a/_complete.json", "raw/a/deep/two", "raw/a/one"]
    assert store.info("raw/a/nothing") is None


def test_a_machine_has_a_data_set_once_and_whole(server, folder, tmp_path):
    store, cache = server[1].store("actwright"), tmp_path / "cache"
    digest = send_frozen(store, folder, Silent())
    assert send_frozen(store, folder, Silent()) == digest
    half = cache / "data" / f".{digest[:16]}"
    half.mkdir(parents=True)  # a fetch that was killed
    (half / "one").write_bytes((folder / "one").read_bytes()[:1000])
    found = fetch_frozen(store, digest, cache, Silent())
    assert found == cache / "data" / digest
    assert dataset_digest(found) == digest == dataset_digest(folder)
    shutil.rmtree(folder)
    assert fetch_frozen(store, digest, cache, Silent()) == found
    with pytest.raises(StorageError, match="no complete upload"):
        fetch_frozen(store, "0" * 64, cache, Silent())
    upload_folder(store, found, f"frozen/{'1' * 64}", Silent())  # whole, but another one
    with pytest.raises(StorageError, match="is another data set"):
        fetch_frozen(store, "1" * 64, cache, Silent())
    assert [path.name for path in (cache / "data").iterdir() if path.is_dir()] == [digest]


def test_an_object_of_several_parts_is_checked(server, tmp_path, monkeypatch):
    monkeypatch.setattr("components.adapters.storage.s3.PART_BYTES", 5 * 2**20)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(2**20) * 11)
    store = server[1].store("actwright")
    assert store.put("big", big)
    assert not store.put("big", big)


def test_keys_are_private_and_needed(server):
    local, endpoint = server
    for name in ("endpoint.json", "identities.json"):
        assert stat.S_IMODE((local.folder / name).stat().st_mode) == 0o600
    stranger = S3Store(S3Address(endpoint=endpoint.endpoint, access_key="somebody", secret_key="else-else-else"), "actwright")
    with pytest.raises(StorageError, match="refused to look for the bucket"):
        stranger.list("")


def test_only_loopback_is_listened_on(server):
    pids = subprocess.run(["pgrep", "-P", str(server[0].pid)], capture_output=True, text=True, check=True).stdout.split()
    sockets = {
        os.readlink(f"/proc/{pids[0]}/fd/{fd}") for fd in os.listdir(f"/proc/{pids[0]}/fd") if os.path.exists(f"/proc/{pids[0]}/fd/{fd}")
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening.append(fields[1].split(":")[0])
    assert len(listening) >= 5
    assert set(listening) == {"0100007F"}


def test_a_second_one_over_the_same_folder_joins(server):
    second = LocalS3(server[0].folder)
    assert second.start() == server[1]
    assert second.pid is None
    second.stop()
    assert _answers(server[1], whole=True)


def test_data_and_address_outlive_the_server_and_a_fault_is_explained(tmp_path, folder):
    local = LocalS3(tmp_path / "s3")
    endpoint = local.start()
    store = endpoint.store("actwright")
    upload_folder(store, folder, "raw/a", Silent())
    local.stop()
    with pytest.raises(StorageError, match=r"stopped after 0 of 2 files: the object store .* does not answer.*run again"):
        upload_folder(store, folder, "raw/b", Silent())
    again = LocalS3(tmp_path / "s3")
    assert again.start() == endpoint
    assert download_folder(store, "raw/a", tmp_path / "back", Silent()).moved == 2
    assert upload_folder(store, folder, "raw/b", Silent()).moved == 2
    again.stop()
    assert not _answers(endpoint, whole=False)


def test_it_ends_with_the_process_that_started_it_however_that_ends(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom components.adapters.storage.seaweedfs import LocalS3\n"
        "local = LocalS3(Path(sys.argv[1]))\nlocal.start()\nprint(local.pid, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    guard = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 15
    while os.path.exists(f"/proc/{guard}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{guard}")
    with LocalS3(tmp_path) as endpoint:
        assert _answers(endpoint, whole=True)


def test_a_server_that_cannot_start_shows_its_last_words(tmp_path, monkeypatch):
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho volume index is damaged\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("components.adapters.storage.seaweedfs.weed", lambda: str(broken))
    with pytest.raises(StorageError, match=r"did not come up(?s:.*)volume index is damaged(?s:.*)ACTWRIGHT_STORAGE"):
        LocalS3(tmp_path / "s3", patience_s=10).start()
