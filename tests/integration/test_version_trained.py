"""What people stated in the console is what is trained on: a failed episode is found, tagged and corrected, and left out of a new version;
`train` takes that version, through every stage before it.

Run: .venv/bin/python -m pytest tests/integration/test_version_trained.py -m "soak or not soak"
"""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts.empty_databases import copy_database
from components.artifacts.step_store import StepStore
from components.config.data_config import AnnotateConfig, FreezeConfig, ValidateConfig, VqvaeConfig
from components.config.recipe import EvalConfig, Recipe
from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.config.train_config import TrainConfig
from components.data.frozen_dataset import load_split
from components.data.sources.open import open_raw
from flows.pipeline.episodes.library import episode_library
from flows.pipeline.run_context import RunContext, make_until
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from flows.terminal.stage_progress import StagePanel
from flows.web.console_endpoints import console_endpoints
from flows.web.http.people import People
from tests.console_parts import client_of
from tests.episodes import episode, write_dataset
from tests.road import NETWORK

pytestmark = pytest.mark.slow


def sorted_version(platform: Platform, name: str) -> Path:
    """A person finds the failed episode, says why it failed, leaves it out, corrects the words of another one and cuts it; the version."""
    people = People(None)
    client = client_of(console_endpoints(platform, people), people)
    [failed] = client.get("/api/episodes", params={"outcome": "failed", "kind": "set"}).json()["rows"]

    def state(which: str, changes: dict[str, object]) -> None:
        order = {"place": failed["place"], "episodes": [which], "changes": changes}
        assert client.post("/api/revisions", json=order).status_code == 200

    state(failed["episode"], {"causes": {"causes": ["dropped"]}, "include": {"included": False}})
    state("square-0002", {"instruction": {"instruction": "push the red button"}, "trim": {"first": 2, "end": 12}})
    made = client.post("/api/versions", json={"place": failed["place"], "name": name, "why": "one failed"}).json()
    assert (made["episodes"], made["left_out"]) == (5, 1)
    return Path(made["edits"][-1])


@pytest.mark.parametrize("last", ["collect", pytest.param("train", marks=pytest.mark.soak)])
def test_a_version_of_what_was_stated_in_the_console_is_trained_on(tmp_path, monkeypatch, last):
    monkeypatch.setattr("flows.pipeline.data_sets.record", lambda platform, folder: "")  # DVC: tests/integration/test_dvc.py
    settings = Settings(home=tmp_path / "home", data=tmp_path / "data", runs=tmp_path / "runs")
    copy_database("mlflow", tmp_path / "home" / "mlflow.db")
    write_dataset(tmp_path / "ours", [episode(n, length=14, success=n != 1) for n in range(6)])
    episode_library(settings).refresh([tmp_path / "ours"], Silent())
    platform = Platform(settings=settings, store=StepStore(settings.store_root))
    recipe = Recipe(
        name="sorted",
        data=(SourceConfig(name="sorted", kind="edited", path=str(sorted_version(platform, "sorted"))),),
        validate=ValidateConfig(data_docs=False),
        annotate=AnnotateConfig(vqvae=VqvaeConfig(steps=2, frames=20)),
        freeze=FreezeConfig(name="sorted", validation_fraction=0.2, chunk_length=2, execute_horizon=2),
        train=TrainConfig(network=NETWORK, steps=2, global_batch=4, micro_batch=4, warmup_steps=1, threads=1),
        evaluate=EvalConfig(execute_horizon=2),
    )
    context = RunContext(platform=platform, recipe=recipe, panel=StagePanel(live=False))
    made = make_until(context, last)
    rows = open_raw(context.step("collect").path / "dataset").rows
    assert [(row.episode_id, row.length) for row in rows] == [(f"square-000{n}", 10 if n == 2 else 14) for n in (0, 2, 3, 4, 5)]
    if last == "train":
        assert made.record["steps"] == 2
        frozen = context.step("freeze").path
        assert sum(load_split(frozen, part).images_NVHW3.shape[0] for part in ("train", "validation")) == 4 * 14 + 10
