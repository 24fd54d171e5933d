"""Two machines on one path (a network file system, a volume of two pods): neither takes the other's unfinished work for a dead process's.

Each machine but this one is a process with process ids of its own, as in a container.
Run: .venv/bin/python -m pytest tests/integration/test_shared_path.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components.adapters.dvc import DvcStore, Remote
from components.adapters.dvc_remote import restore_lost_objects
from components.adapters.storage.object_store import FolderStore
from components.artifacts.abandoned import remove_abandoned_folders, remove_abandoned_writes
from components.artifacts.new_folder import new_folder
from components.data.annotators.cache import AnswerCache
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_target, machine_name
from tests.integration.test_dvc import make_data, prepared, root  # noqa: F401

pytestmark = pytest.mark.xdist_group("s3")  # DVC's program, as test_dvc

WRITES = """
import pathlib, sys
from components.artifacts.new_folder import new_folder
from model_core.spec.files import atomic_target
folder, go = pathlib.Path(sys.argv[1]), sys.stdin
with new_folder(folder / "set") as inner, atomic_target(folder / "pack") as beside:
    (inner / "one").write_text("theirs")
    beside.write_text("theirs")
    print("begun", flush=True)
    go.readline()
    (inner / "two").write_text("theirs")
print("done", flush=True)
"""
MOVES = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print("begun", flush=True)
number = 0
while True:
    number += 1
    path = folder / f"{number % 7}.object"
    beside = path.with_name(f"{path.name}.{number}.tmp")
    beside.write_bytes(b"x")
    os.replace(beside, path)
"""


class Elsewhere:
    """A program on another machine. pid: its own id there."""

    def __init__(self, program: str, folder: Path, *, pid: int) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("process ids of its own need root and unshare")
        script = f'echo {pid - 1} > /proc/sys/kernel/ns_last_pid && "$@"; exit $?'
        words = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", sys.executable, "-c", program, str(folder)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "begun\n":
            pytest.skip(f"no process ids of its own: {self.process.communicate()[1][-300:]}")

    def finish(self) -> tuple[str, str]:
        """Let it go on to its end; what it printed, and its errors."""
        return self.process.communicate("go\n", timeout=60)


def gone_process() -> int:
    """The id of a process of this machine that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_what_another_machine_writes_is_left_alone_whatever_its_process_id_says_here(tmp_path):
    other = Elsewhere(WRITES, tmp_path, pid=gone_process())
    remove_abandoned_writes(tmp_path)
    remove_abandoned_folders(tmp_path / "set")
    printed, errors = other.finish()
    assert printed == "done\n", errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "set"]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["one", "two"]


def test_two_machines_with_one_process_id_make_the_same_folder_and_the_first_one_wins(tmp_path):
    other = Elsewhere(WRITES, tmp_path, pid=os.getpid())
    ours = new_folder(tmp_path / "set")
    with atomic_target(tmp_path / "pack") as file:
        inner = ours.__enter__()
        assert not list(inner.iterdir()), "a folder of our own"
        assert not file.exists()
        (inner / "one").write_text("ours")
        file.write_text("ours")
        printed, errors = other.finish()
        assert printed == "done\n", errors
        with pytest.raises(DatasetError, match="is there already"):
            ours.__exit__(None, None, None)
    assert (tmp_path / "set" / "one").read_text() == "theirs"
    assert (tmp_path / "pack").read_text() == "ours", "a file is replaced whole, by the last one"


def test_leftovers_go_those_of_here_at_once_and_those_of_elsewhere_after_a_day_without_a_change(tmp_path):
    here, elsewhere = f"{machine_name()}-{gone_process()}", "0123456789ab-12"
    names = [here, elsewhere, str(gone_process())]  # the last as earlier versions wrote it
    for name in names:
        (tmp_path / f".pack.{name}.34.tmp").write_text("x")
        (tmp_path / f".set.{name}.partial").mkdir()
        (tmp_path / f".set.{name}.partial" / "file").write_text("x")

    def left() -> list[str]:
        remove_abandoned_writes(tmp_path)
        remove_abandoned_folders(tmp_path / "set")
        return sorted(path.name for path in tmp_path.iterdir())

    assert left() == sorted(f".{name}" for one in names[1:] for name in (f"pack.{one}.34.tmp", f"set.{one}.partial"))
    day_ago = time.time() - 25 * 3600
    for path in tmp_path.iterdir():  # one file of a folder is still written
        os.utime(path, (day_ago, day_ago))
    assert left() == sorted(f".set.{one}.partial" for one in names[1:])
    for path in tmp_path.glob(".set.*/file"):
        os.utime(path, (day_ago, day_ago))
    assert left() == []


def test_a_folder_as_store_is_listed_while_another_process_moves_its_objects(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", MOVES, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        ends_at, listed = time.monotonic() + 1.0, 0
        while time.monotonic() < ends_at:
            found = FolderStore(tmp_path).list("")
            listed = max(listed, sum(one.key.endswith(".object") for one in found))
    finally:
        other.kill()
        other.communicate()
    assert listed == 7


def test_batches_that_another_job_removes_meanwhile_are_passed_over(tmp_path):
    cache = AnswerCache(folder=tmp_path)
    paths = [cache.keep_part("v", name, {"x": np.arange(3)}) for name in ("a", "b", "c")]
    parts = cache.parts("v")
    first, _ = next(parts)
    gone = next(path for path in paths if path != first)
    gone.unlink()
    assert {first, *(path for path, _ in parts)} == set(paths) - {gone}


def test_two_caches_push_to_one_remote_at_once_and_each_can_fetch_what_the_other_sent(root, tmp_path):  # noqa: F811
    remote, stores = tmp_path / "remote" / "dvc", []
    for name, text in (("one", "x"), ("two", "y")):
        place = shutil.copytree(root, tmp_path / name)
        make_data(place, text)
        shared = place / "data" / "collect" / "shared"  # the same object from both
        shared.write_bytes(b"shared" * 200_000)
        store = DvcStore(place)
        store.prepare(Remote(url=str(remote)))
        stores.append(store)
    versions = [store.record() for store in stores]
    failures: list[Exception] = []

    def send(store: DvcStore, version: object) -> None:
        try:
            store.push()
            assert restore_lost_objects(FolderStore(tmp_path / "remote"), "dvc", version, store.cache) == ()  # type: ignore[arg-type]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=pair) for pair in zip(stores, versions, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not list(remote.rglob("*.tmp"))
    one, two = stores
    shutil.copyfile(two.root / "dvc.lock", one.root / "dvc.lock")
    shutil.rmtree(one.root / "data")
    (one.root / "data").mkdir()
    shutil.copyfile(two.root / "data" / "recipe.json", one.root / "data" / "recipe.json")
    one.pull()
    assert one.version() == versions[1]
    for path in (p for p in (two.root / "data").rglob("*") if p.is_file() and p.name != ".gitignore"):
        assert (one.root / path.relative_to(two.root)).read_bytes() == path.read_bytes()
