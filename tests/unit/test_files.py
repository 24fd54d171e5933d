"""Atomic writes: old or new, never a part, and nothing left beside."""

import os
from pathlib import Path

import pytest

from model_core.spec.files import atomic_target, atomic_write


def test_text_and_bytes_replace_what_was_there_and_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    atomic_write(path, "grüße\n")
    assert path.read_bytes() == "grüße\n".encode()
    atomic_write(path, b"\x00\n", durable=False)
    assert path.read_bytes() == b"\x00\n"
    assert os.listdir(path.parent) == ["file.json"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def half_a_write() -> None:
        with atomic_target(path) as beside:
            beside.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_a_write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_name_points_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, real=real, name=name: (calls.append(name), real(*given))[1])
    atomic_write(tmp_path / "file", "x")
    assert calls == ["fsync", "replace"]
    calls.clear()
    atomic_write(tmp_path / "file", "y", durable=False)
    assert calls == ["replace"]
