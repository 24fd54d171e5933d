"""Releases in an object store and in a node's cache: by digest, verified, each file once, and nothing half."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.key_files import make_keys
from components.adapters.storage.object_store import FolderStore
from components.release.fleet.node_cache import fetch_release, upload_release
from model_core.spec.errors import ActwrightError, CheckpointError, StorageError
from tests import fleet


def test_a_node_has_each_file_once_and_nothing_that_was_changed(tmp_path: Path) -> None:
    keys, store, cache = tmp_path / "keys", FolderStore(tmp_path / "store"), tmp_path / "cache"
    make_keys(keys, ["lab"])
    trust = Trust(public_key=keys / "release.pub.pem")
    made = [fleet.release(fleet.bundle(tmp_path / name, f"arm/{name}"), tmp_path / "releases", keys) for name in ("1", "2")]
    first, second = (one.release for one in made)
    assert upload_release(store, made[0].folder, trust) > first.carried_bytes
    assert upload_release(store, made[0].folder, trust) == 0  # it is there
    upload_release(store, made[1].folder, trust)

    found = fetch_release(store, first.digest, cache, trust)
    assert 0 < found.fetched_bytes <= first.carried_bytes
    assert (found.folder / "bundle" / "checkpoint" / "model.safetensors").is_file()
    assert fetch_release(store, first.digest, cache, trust).fetched_bytes == 0
    but_weights = first.carried_bytes - first.files["bundle/checkpoint/model.safetensors"].size
    assert fetch_release(store, second.digest, cache, trust).fetched_bytes <= but_weights

    other = tmp_path / "other"
    make_keys(other, ["lab"])
    with pytest.raises(ActwrightError):
        fetch_release(store, first.digest, tmp_path / "elsewhere", Trust(public_key=other / "release.pub.pem"))
    damaged = store.root / "releases" / second.digest / "bundle" / "checkpoint" / "config.json"
    damaged.write_bytes(b"[]")
    with pytest.raises(CheckpointError, match="config"):
        fetch_release(store, second.digest, tmp_path / "empty", trust)
    damaged.unlink()
    with pytest.raises(StorageError, match="has no object"):
        fetch_release(store, second.digest, tmp_path / "empty", trust)
    assert not [*(tmp_path / "empty" / "releases").iterdir(), *(tmp_path / "elsewhere" / "releases").iterdir()]  # nothing half is left
