"""SIGKILL in a stage, then run again: finished work is not redone and the end is that of an undisturbed run.

One home is carried through several runs; each is killed some stages further on, at another moment of that stage, together with its
process group, as by a power cut. A second home runs undisturbed. Prefect, MLflow and DVC are the real ones. `make soak` kills the data
stages as single commands, and all ten stages of the loop; every test run kills collection, labelling and training alone (test_collect,
test_annotate, test_train), and runs the loop twice.

Run: .venv/bin/python -m pytest tests/integration/test_kill_resume.py
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.stages import DATA_STAGES
from components.config.stages import STAGE_NAMES as STAGES
from flows.platform.prefect_server import start_prefect_server
from flows.platform.settings import Settings
from tests.integration.loop_runs import RUN, Home, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("loop")]

# where in its stage each run dies: before work, in the middle (first progress), after work, after the commit
PHASES = dict(
    zip(
        STAGES,
        ("progress", "written", "progress", "committed", "progress", "progress", "written", "progress", "progress", "written"),
        strict=True,
    )
)


@pytest.fixture
def prefect_server(tmp_path: Path) -> Iterator[str]:
    """One Prefect server for all runs that are killed, as where it runs on another machine; also saves its starts."""
    server = start_prefect_server(Settings(home=tmp_path / "prefect-home"))
    try:
        server.wait_ready(400)
        yield server.ready_url.removesuffix("/health")
    finally:
        server.stop()


def leftovers_gone(home: Home) -> None:
    """A killed run's children notice by themselves and leave."""
    eventually(lambda: not home.processes(), timeout_s=60)


@pytest.mark.soak  # short: a killed collection in test_collect, killed labelling in test_annotate
def test_data_stages_that_were_killed_give_the_same_data(undisturbed: Home, tmp_path: Path):
    home, recipe = Home(tmp_path), str(tmp_path / "small.json")
    assert home.actwright("recipe", *RUN[1:], "--out", recipe).returncode == 0
    for stage in DATA_STAGES:
        if stage in (DATA_STAGES[0], DATA_STAGES[-1]):  # the loop below is killed in every stage
            killed = home.actwright("data", stage, recipe, ACTWRIGHT_FAULT=f"{stage}:{PHASES[stage]}")
            assert killed.returncode == -signal.SIGKILL, f"{stage}: {killed.stderr[-3000:]}"
            assert (stage in home.digests()) == (PHASES[stage] == "committed"), stage
            leftovers_gone(home)
        again = home.actwright("data", stage, recipe)
        assert again.returncode == 0, again.stderr[-3000:]
    expected = undisturbed.digests()
    assert home.digests() == {stage: expected[stage] for stage in DATA_STAGES}
    assert not list((tmp_path / "home" / "store").glob("*/*.partial"))
    assert not list((tmp_path / "home" / "store").glob("*/*.damaged"))


@pytest.mark.soak  # short: the data stages above; test_train kills a training
def test_killed_in_its_stages_the_end_is_the_same(undisturbed: Home, tmp_path: Path, prefect_server: str):
    home = Home(tmp_path)
    at = {"ACTWRIGHT_PREFECT_API_URL": prefect_server}
    expected: tuple[str, ...] = ()
    for stage in STAGES:
        killed = home.actwright(*RUN, timeout_s=600, ACTWRIGHT_FAULT=f"{stage}:{PHASES[stage]}", **at)
        assert killed.returncode == -signal.SIGKILL, f"{stage}: {killed.stderr[-3000:]}"
        finished = set(home.digests()) & set(STAGES)
        expected = STAGES[: STAGES.index(stage) + (PHASES[stage] == "committed")]
        assert finished == set(expected), stage
        leftovers_gone(home)

    made_before = made_at(home)
    last = home.actwright(*RUN, timeout_s=600, **at)
    assert last.returncode == 0, last.stderr[-4000:]
    summary = home.summary()
    assert [n for n, s in summary["stages"].items() if s["cached"]] == list(expected), "only what was not finished was left to do"
    assert {n: t for n, t in made_at(home).items() if n in made_before} == made_before, "finished work was done again"

    assert home.digests() == undisturbed.digests()
    assert summary["evaluation"] == undisturbed.summary()["evaluation"]
    assert summary["model_version"]["version"] == undisturbed.summary()["model_version"]["version"] == 1
    assert not list((tmp_path / "home" / "store").glob("*/*.partial"))
    assert not list((tmp_path / "home" / "store").glob("*/*.damaged"))
    leftovers_gone(home)


def test_running_again_recomputes_nothing(undisturbed: Home):
    before = made_at(undisturbed)
    again = undisturbed.actwright(*RUN, timeout_s=300)
    assert again.returncode == 0, again.stderr[-3000:]
    told = json.loads(again.stdout)
    assert told["verdict"] == "promote"
    assert all(stage["cached"] for stage in undisturbed.summary()["stages"].values())
    assert made_at(undisturbed) == before


@pytest.mark.soak  # short: which sections of a recipe a stage depends on is a table, tested in test_stage_table
def test_a_new_training_keeps_the_data(undisturbed: Home):
    before = made_at(undisturbed)
    other = undisturbed.actwright("train", *RUN[1:], "--set", "train.seed=7", timeout_s=300)
    assert other.returncode == 0, other.stderr[-3000:]
    kept = {name: moment for name, moment in made_at(undisturbed).items() if name in before}
    assert kept == before, "changing the training recipe made data stages again"


def test_the_report_and_the_records_agree(undisturbed: Home):
    summary, folder = undisturbed.summary(), undisturbed.root / "runs" / "latest"
    assert set(summary["stages"]) == set(STAGES)
    page = (folder / "report.html").read_text()
    assert not re.findall(r"""(?:src|srcset)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//|<link|@import""", page), (
        "the page must not fetch"
    )
    assert summary["dataset"]["episodes"] > 0
    assert {row["cell"] for row in summary["workcells"]} == {"cell-01", "cell-02"}
    assert all(row["decisions"] > 0 and not row["refused_to_move"] for row in summary["workcells"])
    assert summary["evaluation"]["trials"] == 2


def made_at(home: Home) -> dict[str, int]:
    """Path of every finished step -> when its manifest was written."""
    root = home.root / "home" / "store"
    return {p.relative_to(root).as_posix(): p.stat().st_mtime_ns for p in root.glob("*/*/step.json")}
