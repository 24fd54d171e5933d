"""Recipes: JSON both ways, and rules that say the fix."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.recipe import CollectConfig, CurriculumConfig, EvalConfig, FreezeConfig, Recipe, TrainConfig, WorkcellsConfig
from model_core.spec.errors import SpecError


def test_json_both_ways_keeps_everything():
    recipe = Recipe(name="x", collect=CollectConfig(instructions={"coffee-button-v3": "press it"}), train=TrainConfig(seed=3))
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.digest == recipe.digest
    assert replace(recipe, train=TrainConfig(seed=4)).digest != recipe.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "did you mean 'train'"),
        ({"train": {"learnin_rate": 1.0}}, "recipe.train: no field 'learnin_rate'; did you mean 'learning_rate'"),
        ({"train": {"steps": "many"}}, "recipe.train.steps: expected int, got 'many'"),
        ({"train": {"zero_stage": 4}}, "one of 0, 1, 2, 3"),
        ({"train": {"betas": [0.9]}}, "expected 2 values"),
    ],
)
def test_a_wrong_document_names_the_field(change, message):
    with pytest.raises(SpecError, match=message):
        Recipe.from_json({"name": "x", **change})


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda: TrainConfig(global_batch=64, micro_batch=24, world_size=2), "use 48 or 96"),
        (lambda: CurriculumConfig(full=1.0), "divide each by 1.500"),
        (lambda: FreezeConfig(execute_horizon=9), "use at most 8"),
        (lambda: TrainConfig(steps=50), "use 5"),
        (lambda: Recipe(name="x", evaluate=EvalConfig(first_seed=10_100)), "use 10300"),
        (lambda: Recipe(name="x", evaluate=EvalConfig(execute_horizon=16)), "use at most 8"),
        (lambda: Recipe(name="x", workcells=WorkcellsConfig(tasks=("reach-v3",))), "never seen"),
        (lambda: CollectConfig(tasks=()), "name at least one task"),
    ],
)
def test_cross_field_rules_say_the_fix(make, fix):
    with pytest.raises(SpecError, match=fix):
        make()
