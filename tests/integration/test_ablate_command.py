"""`actwright study ablate` on the miniature loop: what variants share is made once, and a second call makes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.artifacts.empty_databases import copy_database
from tests.integration.loop_runs import SMALL, Home

pytestmark = [pytest.mark.xdist_group("evaluate"), pytest.mark.soak]
CHANGES = tuple(word for change in SMALL for word in ("--set", change))
WORDS = ("study", "ablate", "miniature", "--variants", "answers-action,without-labels", *CHANGES)


def test_variants_are_trained_once_and_compared(tmp_path: Path) -> None:
    home = Home(tmp_path)
    copy_database("mlflow", tmp_path / "home" / "mlflow.db")
    made = home.actwright(*WORDS, timeout_s=500)
    assert made.returncode == 0, made.stderr
    assert "2 trainings of 3 steps" in made.stderr
    told = json.loads(made.stdout)
    assert set(told["rates"]) == {"base", "answers-action", "without-labels"}
    assert {trials for _, trials in told["rates"].values()} == {2}
    assert "| without-labels | what does it cost" in Path(told["table"]).read_text()
    assert len(list((tmp_path / "home" / "store" / "train").glob("*/step.json"))) == 2
    assert len(list((tmp_path / "home" / "store" / "collect").glob("*/step.json"))) == 1
    plan = home.actwright(*WORDS, "--plan")
    assert all(not one["missing"] for one in json.loads(plan.stdout)["plan"])
    assert "0 trainings of 3 steps" in plan.stderr
