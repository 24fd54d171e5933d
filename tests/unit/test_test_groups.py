"""Tests that share a costly fixture run in one worker, where it is built once: pytest 9.2 with xdist 3.8 ignored the groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pathlib
import pytest


@pytest.mark.xdist_group("shared")
@pytest.mark.parametrize("number", range(6))
def test_of_the_group(number, worker_id):
    with (pathlib.Path(__file__).parent / "workers").open("a") as file:
        file.write(worker_id + "\\n")


@pytest.mark.parametrize("number", range(6))
def test_of_no_group(number):
    pass
"""


def test_one_worker_runs_the_whole_group(tmp_path: Path) -> None:
    (tmp_path / "test_groups.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-p",
        "xdist",
        "-p",
        "no:cacheprovider",
        "test_groups.py",
    ]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # other plugins are not in question, and take seconds to load
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 6
    assert len(set(workers)) == 1
