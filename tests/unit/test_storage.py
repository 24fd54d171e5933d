"""A folder store keeps the promises that S3 keeps (tests/integration/test_local_s3.py runs the same ones there).

Run: .venv/bin/python -m pytest tests/unit/test_storage.py
"""

import json
from types import SimpleNamespace

import pytest

from components.adapters.storage import seaweedfs
from components.adapters.storage.folder_transfer import COMPLETE, download_folder, read_listing, upload_dataset, upload_folder
from components.adapters.storage.object_store import FolderStore
from components.adapters.storage.s3 import S3Address, S3Store
from components.adapters.storage.seaweedfs import no_room
from model_core.spec.errors import StorageError
from tests.episodes import Tally

NOWHERE = S3Address(endpoint="127.0.0.1:1", access_key="a", secret_key="b")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "things"
    (made / "deep").mkdir(parents=True)
    (made / "one").write_bytes(b"1" * 1000)
    (made / "deep" / "two").write_bytes(b"2")
    (made / "empty").write_bytes(b"")
    return made


def test_there_and_back(folder, tmp_path):
    store = FolderStore(tmp_path / "store")
    sent = upload_folder(store, folder, "raw/a", progress := Tally())
    assert (sent.objects, sent.moved, sent.skipped) == (3, 3, 0)
    assert progress.calls[-1] == (3, 3)
    fetched = download_folder(store, "raw/a", tmp_path / "back", Tally())
    assert fetched.moved == 3
    assert (tmp_path / "back/deep/two").read_bytes() == b"2"


def test_only_what_is_missing_is_sent_again(folder, tmp_path):
    store = FolderStore(tmp_path / "store")
    upload_folder(store, folder, "raw/a", Tally())
    (tmp_path / "store/raw/a/one").unlink()
    assert upload_folder(store, folder, "raw/a", Tally()).moved == 1
    assert upload_folder(store, folder, "raw/a", Tally()).moved == 0
    assert download_folder(store, "raw/a", folder, Tally()).moved == 0


def test_an_upload_that_stopped_is_no_upload(folder, tmp_path):
    class Failing(FolderStore):
        def put(self, key, path):
            if key.endswith("one"):
                raise StorageError("gone")
            return super().put(key, path)

    with pytest.raises(StorageError, match="stopped after 2 of 3 files: gone"):
        upload_folder(Failing(tmp_path / "store"), folder, "raw/a", Tally())
    store = FolderStore(tmp_path / "store")
    with pytest.raises(StorageError, match="never finished"):
        download_folder(store, "raw/a", tmp_path / "back", Tally())
    assert upload_folder(store, folder, "raw/a", Tally()).moved == 1


def test_changed_bytes_are_not_taken(folder, tmp_path):
    store = FolderStore(tmp_path / "store")
    upload_folder(store, folder, "raw/a", Tally())
    (tmp_path / "store/raw/a/one").write_bytes(b"x" * 1000)
    with pytest.raises(StorageError, match=r"raw/a/one .* is damaged"):
        download_folder(store, "raw/a", tmp_path / "back", Tally())
    assert not (tmp_path / "back/one").exists()


def test_a_listing_cannot_write_outside(folder, tmp_path):
    store = FolderStore(tmp_path / "store")
    upload_folder(store, folder, "raw/a", Tally())
    listing = tmp_path / "store/raw/a" / COMPLETE
    listing.write_text(json.dumps({"files": {"../evil": {"size": 1, "sha256": "0"}}}))
    with pytest.raises(StorageError, match="outside of its folder"):
        download_folder(store, "raw/a", tmp_path / "back", Tally())
    with pytest.raises(StorageError, match="points out of"):
        store.put("../evil", folder / "one")


def test_the_same_data_set_has_the_same_place(folder, tmp_path):
    store = FolderStore(tmp_path / "store")
    first, second = (upload_dataset(store, folder, Tally()) for _ in range(2))
    assert first.prefix == second.prefix
    assert second.moved == 0
    assert read_listing(store, first.prefix, tmp_path / "near")["one"]["size"] == 1000


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(StorageError, match="holds no file"):
        upload_folder(FolderStore(tmp_path / "store"), tmp_path / "nothing", "a", Tally())


@pytest.mark.parametrize(("total_gib", "free_mib", "is_full"), [(250, 3000, True), (250, 6000, False), (1, 100, True), (1, 200, False)])
def test_a_disk_is_full_for_the_embedded_store_before_its_last_byte(tmp_path, monkeypatch, total_gib, free_mib, is_full):
    disk = SimpleNamespace(total=total_gib * 2**30, free=free_mib * 2**20)
    monkeypatch.setattr(seaweedfs, "shutil", SimpleNamespace(disk_usage=lambda _: disk))
    said = no_room(tmp_path)
    assert bool(said) == is_full
    if is_full:
        assert f"the disk that holds {tmp_path} is full ({disk.free} bytes free" in said
        assert "Fix: free space on that disk" in said


def test_a_store_without_room_names_its_disk_and_another_one_the_network(folder):
    with pytest.raises(StorageError, match=r"could not look for the bucket: the disk is full$") as told:
        S3Store(NOWHERE, "actwright", no_room=lambda: "the disk is full").put("k", folder / "one")
    assert "network" not in str(told.value)
    with pytest.raises(StorageError, match=r"does not answer.*check the network"):
        S3Store(NOWHERE, "actwright").put("k", folder / "one")
