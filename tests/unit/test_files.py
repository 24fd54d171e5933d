"""Digests of files and folders, and files that hold keys."""

from __future__ import annotations

import os
import stat

import pytest

from components.artifacts.files import dataset_digest, sha256_file, write_private


def test_a_private_file_is_readable_by_its_owner_only_and_replaced_whole(tmp_path):
    path = tmp_path / "new" / "keys.json"
    write_private(path, "first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    write_private(path, "second")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("second", 0o600)
    assert os.listdir(path.parent) == ["keys.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "keys.json"
    write_private(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["keys.json"]


def test_a_folder_is_named_by_paths_and_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "a.bin").write_bytes(b"abc")
    assert sha256_file(tmp_path / "one/data/a.bin").startswith("ba7816bf")
    assert dataset_digest(tmp_path / "one") == dataset_digest(tmp_path / "two")
    (tmp_path / "two/data/a.bin").rename(tmp_path / "two/data/b.bin")
    assert dataset_digest(tmp_path / "one") != dataset_digest(tmp_path / "two")
