"""A simulator as a source of a recipe: recorded once by the run, and read beside a data set of the same embodiment.

Run: .venv/bin/python -m pytest tests/integration/test_simulator_source.py -n 0
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.empty_databases import copy_database
from components.artifacts.step_store import StepStore
from components.config.recipe import Recipe
from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.config.train_config import TrainConfig
from components.data.accounting.stages import with_losses
from components.data.sources.open import open_raw
from components.data.sources.raw_index import open_source
from flows.pipeline.stages.data import collect_step
from flows.pipeline.stages.training import check_start
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.spec.errors import DatasetError, SpecError
from tests.episodes import BODY, Tally, episode, write_dataset

pytestmark = pytest.mark.xdist_group("gx")
SMALLEST = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 2, "feed_forward": 32, "projector": 32, "stem": [4, 8, 16]}
OPTIONS: dict[str, Any] = {
    "tasks": ["drawer-close-v3"],
    "episodes_per_task": 2,
    "image_size": 32,
    "horizon_sim_steps": 160,
    "noise_levels": [0.0],
    "burst_probability": 0.0,
}
DEMOS = SourceConfig(name="demos", kind="simulator", options=OPTIONS)


def platform_in(folder):
    copy_database("mlflow", folder / "home" / "mlflow.db")
    settings = Settings(home=folder / "home", runs=folder / "runs", data=folder / "data", storage=f"folder:{folder / 'storage'}")
    return Platform(settings=settings, store=StepStore(settings.store_root))


def recipe_of(*sources: SourceConfig) -> Recipe:
    return Recipe(name="own", data=sources, train=TrainConfig(network=SMALLEST, steps=100))


def test_demonstrations_are_recorded_once_and_stand_beside_a_data_set(tmp_path: Path) -> None:
    platform = platform_in(tmp_path)
    bench = SourceConfig(name="bench", path=str(write_dataset(tmp_path / "set", [episode(n) for n in range(3)])), weight=2.0)
    recipe = recipe_of(DEMOS, bench)
    check_start(recipe)
    made = collect_step(platform, recipe, Silent())
    assert not made.cached
    assert made.step.record["producers"] == {"expert:metaworld": 2, "expert:test": 3}
    source = open_raw(made.step.path / "dataset")
    assert source.embodiment == BODY
    assert [row.episode_id for row in source.rows][:2] == ["drawer-close-v3-010000", "drawer-close-v3-010001"]
    assert source.episode(0).depth_m["front"].shape[1:] == (32, 32)
    listed = json.loads((made.step.path / "dataset/sources.json").read_text())["sources"][0]
    assert str(tmp_path) not in json.dumps(listed)
    assert listed["config"]["options"]["episodes_per_task"] == 2
    told = Tally()
    again = collect_step(platform, replace(recipe, data=(replace(DEMOS, options={**OPTIONS, "workers": 1}), bench)), told)
    assert again.cached, "how many processes record changes nothing"
    # what was recorded is the same step that a recipe without sources makes
    plain = Recipe(name="x", collect=DEMOS.recording, train=recipe.train)
    assert collect_step(platform, plain, Silent()).cached
    other = collect_step(platform, recipe_of(replace(DEMOS, include=("0",)), bench), Silent())
    assert other.step.record["producers"] == {"expert:metaworld": 1, "expert:test": 3}
    assert other.step.record["notes"] == ["demos: 1 of 2 episodes are left out by include or tasks"]


def test_what_did_not_succeed_is_counted() -> None:
    def row(source: str, kept: int, **dropped: int) -> dict[str, Any]:
        lost = [{"reason": reason, "episodes": count, "frames": 0} for reason, count in dropped.items()]
        return {"stage": "collect", "source": source, "episodes": kept, "frames": 10 * kept, "dropped": lost}

    listed = [row("expert:metaworld", 4), row("policy:x", 2)]
    before = [row("expert:metaworld", 5, failed=3), row("expert:other", 0, failed=1), row("expert:whole", 7)]
    assert with_losses(listed, before) == [row("expert:metaworld", 4, failed=3), row("expert:other", 0, failed=1), row("policy:x", 2)]
    assert listed[0]["dropped"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": {"episodes": 3}}, r"source 'demos', options.*episodes"),
        ({"options": {"simulator": "liberoo"}}, "did you mean 'libero'"),
        ({"options": {**OPTIONS, "image_size": 30}}, r"data\.demos\.options\.image_size 30 does not fit"),
        ({"options": {**OPTIONS, "first_seed": 930_000}}, "evaluate.first_seed 930000 is among the demonstrations' seeds 930000"),
    ],
)
def test_options_that_cannot_be_recorded_are_refused_with_the_recipe(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        recipe_of(replace(DEMOS, **changes))


def test_a_path_is_refused_and_nothing_is_read_before_it_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has no path before. Fix: leave path and hub out"):
        collect_step(platform_in(tmp_path), recipe_of(replace(DEMOS, path=str(tmp_path))), Silent())
    with pytest.raises(DatasetError, match="'demos' is not recorded yet"):
        open_source(DEMOS)


FILE = """\
format: 1
name: metaworld-sawyer
control_hz: 20
cameras: [{name: front, width: 32, height: 32}]
proprio:
  unit: m
  frame: world
  dims:
    - {name: hand_x, low: -0.5, high: 0.5}
    - {name: hand_y, low: 0.3, high: 1.05}
    - {name: hand_z, low: 0.0, high: 0.55}
    - {name: gripper_opening, unit: fraction, frame: gripper, low: 0.0, high: 1.0}
action:
  mode: MODE
  unit: cm per simulator step
  frame: world
  dims:
    - {name: dx, low: -1.0, high: 1.0}
    - {name: dy, low: -1.0, high: 1.0}
    - {name: dz, low: -1.0, high: 1.0}
    - {name: gripper, unit: effort, mode: absolute, frame: gripper, low: -1.0, high: 1.0}
gripper: {dim: gripper, values: [-1.0, 1.0], open: OPEN}
confirmed: {by: tester, on: 2026-11-29}
"""


@pytest.mark.parametrize(
    ("mode", "opens", "words"),
    [("absolute", -1.0, "action 'dx' is absolute, the simulator's"), ("delta", 1.0, "the gripper is open at 1.0")],
)
def test_a_file_that_contradicts_the_simulator_is_refused(tmp_path: Path, mode: str, opens: float, words: str) -> None:
    recorded = write_dataset(tmp_path / "set", [episode(0)])
    file = tmp_path / "arm.yaml"
    file.write_text(FILE.replace("MODE", mode).replace("OPEN", str(opens)))
    with pytest.raises(DatasetError, match=words):
        open_source(replace(DEMOS, path=str(recorded), embodiment=str(file)))
    assert open_source(replace(DEMOS, path=str(recorded))).embodiment == BODY
