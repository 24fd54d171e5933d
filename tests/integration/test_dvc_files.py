"""Versions that were written without DVC's program are DVC's own: it reports nothing changed, pushes, pulls, and would write the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.adapters.dvc_files import add_folder
from model_core.spec.errors import DatasetError


def dvc(root: Path, *words: str) -> str:
    program = Path(sys.executable).parent / "dvc"
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    done = subprocess.run([str(program), *words], cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder: Path, *names: str, writable: bool = False) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.random.default_rng(len(name)).bytes(5000) + name.encode())
        if not writable:
            path.chmod(0o444)


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text(f"[core]\n    no_scm = True\n    remote = r\n['remote \"r\"']\n    url = {tmp_path / 'remote'}\n")
    return root


def test_dvc_takes_a_version_for_its_own_and_one_more_file_costs_itself(root, tmp_path):
    packs = root / "packs"
    write(packs, "b/two.bin", "a.bin")
    write(packs, "notes.json", writable=True)
    first = add_folder(root, packs)
    assert (first.files, first.size) == (3, sum(map(len, content(packs).values())))
    assert dvc(root, "status", "--json") == "{}"
    assert (packs / "a.bin").stat().st_nlink == 2  # the cache shares what is never changed in place, and copies the rest
    assert (packs / "notes.json").stat().st_nlink == 1

    write(packs, "c.bin")
    second = add_folder(root, packs)
    assert second.md5 != first.md5
    assert 5000 < second.new_bytes < 5500
    assert add_folder(root, packs).new_bytes == 0
    dvc(root, "push")
    held, text = content(packs), (root / "packs.dvc").read_text()

    for path in (packs, root / ".dvc" / "cache", root / ".dvc" / "tmp"):
        shutil.rmtree(path)
    dvc(root, "pull")
    assert content(packs) == held
    assert dvc(root, "status", "--json") == "{}"
    shutil.rmtree(root / ".dvc" / "cache")
    (root / "packs.dvc").unlink()
    dvc(root, "add", "packs")
    assert (root / "packs.dvc").read_text() == text
    assert add_folder(root, packs).new_bytes == 0
    assert (root / "packs.dvc").read_text() == text


def test_a_changed_file_is_read_again_and_what_is_no_version_is_refused(root, tmp_path):
    packs = root / "packs"
    write(packs, "notes.json", writable=True)
    first = add_folder(root, packs)
    (packs / "notes.json").write_bytes(b"changed")
    second = add_folder(root, packs)
    assert (second.md5 != first.md5, second.size) == (True, 7)
    (root / ".dvc" / "tmp" / "actwright" / "packs.json").write_text("no json")
    assert add_folder(root, packs) == type(second)(md5=second.md5, size=7, files=1, new_bytes=0)
    (packs / "link").symlink_to(packs / "notes.json")
    with pytest.raises(DatasetError, match=r"link is a link; a version holds bytes\. Fix"):
        add_folder(root, packs)
    with pytest.raises(DatasetError, match="no DVC repository"):
        add_folder(tmp_path, packs)
    with pytest.raises(DatasetError, match="is not below"):
        add_folder(root, tmp_path)
    (root / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no file"):
        add_folder(root, root / "empty")
