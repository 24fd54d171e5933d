"""The task that `actwright serve` puts into the line to type next."""

from __future__ import annotations

from flows.commands.serving.serve import _a_task
from flows.pipeline.recipes import get_recipe


def test_a_model_of_a_shipped_recipe_gets_the_first_task_it_was_trained_on() -> None:
    recipe = get_recipe("loop")
    assert _a_task({"model_version": f"{recipe.package.model_name}/3"}) == recipe.collect.tasks[0]


def test_no_task_is_made_up_for_any_other_model() -> None:
    assert _a_task({"model_version": "drawer-champion/1"}) == "TASK"
    assert _a_task({}) == "TASK"
