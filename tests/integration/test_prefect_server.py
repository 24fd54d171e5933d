"""Two runs may begin in a new home at the same moment: both get a Prefect server, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BEGINS = """
from flows.platform.prefect_server import prefect_api
from flows.platform.settings import load_settings, prepare_process
settings = load_settings()
prepare_process(settings)
with prefect_api(settings) as url:
    print(url)
"""


@pytest.mark.soak  # short: every test of the loop starts one server
def test_two_runs_that_begin_together_both_find_a_server(tmp_path: Path):
    environment = {**os.environ, "ACTWRIGHT_HOME": str(tmp_path / "home")}
    begin = [sys.executable, "-c", BEGINS]
    both = [
        subprocess.Popen(begin, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(2)
    ]
    try:
        told = [process.communicate(timeout=280) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], told
    first, second = (out.strip() for out, _ in told)
    assert first.startswith("http://127.0.0.1:")
    assert first != second
