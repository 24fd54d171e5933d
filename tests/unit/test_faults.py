"""What the command says when the platform fails around our own errors, or the disk takes nothing more."""

from __future__ import annotations

import errno

import httpx
import pytest

from flows.platform import error_messages
from flows.platform.error_messages import explained
from flows.platform.settings import Settings
from flows.terminal.output import DONE, OUR_ERROR, ended
from model_core.spec.errors import JobError, StorageError


def server_error(behind: Exception | None = None) -> Exception:
    """What Prefect's client raises while it reports `behind`."""
    try:
        try:
            if behind is not None:
                raise behind
        finally:
            raise httpx.HTTPError("Server error '500'")
    except httpx.HTTPError as error:
        return error


def test_our_error_is_told_when_prefect_fails_to_take_it(tmp_path):
    behind = StorageError("validate: the disk is full")
    assert explained(server_error(behind), Settings(home=tmp_path)) is behind


def test_a_server_that_went_away_names_its_log_or_the_full_disk(tmp_path, monkeypatch):
    told = explained(server_error(), Settings(home=tmp_path))
    assert isinstance(told, JobError)
    assert "server.log" in str(told)
    assert "run again" in str(told)
    monkeypatch.setattr(error_messages, "takes_nothing_more", lambda _: True)
    assert isinstance(explained(server_error(), Settings(home=tmp_path)), StorageError)


def test_a_fault_of_ours_keeps_its_traceback(tmp_path):
    assert explained(TypeError("a bug"), Settings(home=tmp_path)) is None


def test_a_full_disk_ends_a_command_with_a_sentence(capsys, tmp_path):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", f"{tmp_path}/latest/report.html")

    assert ended(full) == OUR_ERROR
    told = capsys.readouterr().err
    assert (
        told
        == f"storage error: the disk under {tmp_path} is full while writing {tmp_path}/latest/report.html; free some space and run again, "
        "finished work is kept\n"
    )
    assert ended(lambda: None) == DONE

    def misnamed():
        raise OSError(errno.EISDIR, "Is a directory", ".look.png.tmp", None, "look.png")

    assert ended(misnamed) == OUR_ERROR
    assert (
        capsys.readouterr().err
        == "storage error: look.png cannot be used as it was named (Is a directory); name another path and run again\n"
    )

    def other():
        raise FileNotFoundError(errno.ENOENT, "no such file")

    with pytest.raises(FileNotFoundError):
        ended(other)
