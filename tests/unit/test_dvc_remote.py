"""What a DVC remote lost is sent again, and what cannot be is refused; the objects are laid out as DVC lays them out."""

from __future__ import annotations

import hashlib
import json

import pytest

from components.adapters.dvc import DvcVersion
from components.adapters.dvc_remote import restore_lost_objects
from components.adapters.storage.object_store import FolderStore
from model_core.spec.errors import DatasetError, StorageError


def object_at(root, content, suffix=""):
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    path = root / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest, path


@pytest.fixture
def pushed(tmp_path):
    """A folder of two files and a single file, here and on the remote."""
    cache, remote = tmp_path / "cache", tmp_path / "remote" / "dvc" / "files" / "md5"
    one, two, single = (object_at(cache, content)[0] for content in (b"one", b"two", b"single"))
    listing = json.dumps([{"md5": one, "relpath": "a"}, {"md5": two, "relpath": "b/c"}]).encode()
    folder, _ = object_at(cache, listing, ".dir")
    places = {name: object_at(remote, content)[1] for name, content in (("one", b"one"), ("two", b"two"), ("single", b"single"))}
    places["listing"] = object_at(remote, listing, ".dir")[1]
    version = DvcVersion(outputs={"freeze": folder, "validate": single}, version="v")

    def restore():
        return restore_lost_objects(FolderStore(tmp_path / "remote"), "dvc", version, cache)

    return restore, places, {"one": cache / one[:2] / one[2:], "two": cache / two[:2] / two[2:]}


def test_a_whole_version_is_left_alone(pushed):
    restore, places, _ = pushed
    before = {name: path.stat().st_mtime_ns for name, path in places.items()}
    assert restore() == ()
    assert {name: path.stat().st_mtime_ns for name, path in places.items()} == before


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"tw")], ids=["lost", "cut"])
def test_a_lost_or_cut_object_is_sent_again(pushed, damage):
    restore, places, _ = pushed
    damage(places["two"])
    assert [key.rsplit("/", 1)[1] for key in restore()] == [places["two"].name]
    assert places["two"].read_bytes() == b"two"
    assert restore() == ()


def test_what_is_on_neither_side_is_named(pushed):
    restore, places, here = pushed
    places["two"].unlink()
    here["two"].unlink()
    with pytest.raises(DatasetError, match=r"freeze/b/c is lost: neither .*Fix: run the data stages again"):
        restore()


def test_a_push_that_left_the_folder_out_is_an_error(pushed):
    restore, places, _ = pushed
    places["listing"].unlink()
    with pytest.raises(DatasetError, match="dvc push ended without an error and left out freeze"):
        restore()


def test_a_damaged_list_of_files_is_not_believed(pushed):
    restore, places, _ = pushed
    places["listing"].write_bytes(b"[]")
    with pytest.raises(StorageError, match="damaged: its bytes are not those of its name"):
        restore()
