"""Recordings that a run cannot use are told where they are taken in, and refused before the run records anything. By the commands."""

import json

import pytest

from tests.episodes import write_dataset
from tests.integration.loop_runs import Home
from tests.unit.test_accounting import of_another

pytestmark = pytest.mark.soak  # short: what falls away, and the sentences about it, in tests/unit/test_accounting.py


def test_recordings_without_depth_are_told_at_ingest_and_refused_by_the_run_before_any_work(tmp_path):
    home = Home(tmp_path)
    written = home.actwright("recipe", "miniature", "--set", "collect.image_size=32", "--out", str(tmp_path / "small.json"))
    assert written.returncode == 0, written.stderr
    given = write_dataset(tmp_path / "set", [of_another(n) for n in range(5)])
    taken = home.actwright("ingest", str(given), "--recipe", str(tmp_path / "small.json"))
    assert taken.returncode == 0, taken.stderr
    assert "5 of 5 episodes of teleop:bench cannot be labelled by this recipe's annotators" in taken.stderr
    digest = json.loads(taken.stdout.splitlines()[-1])["digest"][:12]
    ran = home.actwright("train", str(tmp_path / "small.json"), "--set", f'include=["{digest}"]')
    assert ran.returncode == 3
    assert "5 of 5 episodes of teleop:bench fall away" in ran.stderr.replace("at least ", "")
    assert "no depth was recorded" in ran.stderr
    assert "Fix: record what is missing, or label from the images" in ran.stderr
    assert not list((tmp_path / "home" / "store").glob("collect/*")), "nothing was recorded"
