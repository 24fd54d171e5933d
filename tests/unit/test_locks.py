"""File locks: alone among processes, free again when a holder dies, and one with what plain flock users hold."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading

import pytest

from components.artifacts.locks import locked, try_locked

HOLD = """
import pathlib, sys, time
from components.artifacts.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_is_kept_out_until_the_holder_dies(tmp_path, holder):
    path, waited = tmp_path / "lock", []
    with try_locked(path) as alone:
        assert not alone
    with pytest.raises(TimeoutError), locked(path, timeout_s=0.2, on_wait=lambda: waited.append("short")):
        pass
    threading.Timer(0.3, holder.kill).start()
    with locked(path, on_wait=lambda: waited.append("long")), try_locked(path) as alone:
        assert not alone
    assert waited == ["short", "long"]
    with try_locked(path) as alone:
        assert alone


def test_a_file_that_an_earlier_version_left_does_not_lock_and_one_that_it_holds_does(tmp_path):
    path = tmp_path / "locks" / "registry-model.lock"
    path.parent.mkdir()
    with path.open("w") as handle:
        with try_locked(path) as alone:
            assert alone
        fcntl.flock(handle, fcntl.LOCK_EX)
        with try_locked(path) as alone:
            assert not alone
    assert path.exists()


def test_an_error_inside_is_not_taken_for_a_lock_that_was_late(tmp_path):
    with pytest.raises(TimeoutError, match="of the work"), try_locked(tmp_path / "lock"):
        raise TimeoutError("of the work")
    with try_locked(tmp_path / "lock") as alone:
        assert alone
