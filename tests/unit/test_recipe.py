"""Recipes: JSON both ways, and rules that say the fix."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest

from components.config import train_config
from components.config.annotators import DEPTH_ANNOTATORS, POINT_ANNOTATORS
from components.config.data_config import AnnotateConfig, CollectConfig, FreezeConfig
from components.config.paths import REPOSITORY
from components.config.recipe import EvalConfig, GateConfig, Recipe, WorkcellsConfig
from components.config.train_config import CurriculumConfig, TrainConfig
from model_core.spec.errors import SpecError


def test_json_both_ways_keeps_everything():
    recipe = Recipe(name="x", collect=CollectConfig(instructions={"coffee-button-v3": "press it"}), train=TrainConfig(seed=3))
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.digest == recipe.digest
    assert replace(recipe, train=TrainConfig(seed=4)).digest != recipe.digest


def test_the_recipe_in_the_page_of_own_data_is_a_whole_one():
    page = (REPOSITORY / "docs/data.md").read_text(encoding="utf-8")
    document = page[page.index('{"name": "pick"') : page.index("```\n\nA source may also say")]
    recipe = Recipe.from_json(json.loads(document))
    assert (recipe.data[0].embodiment, recipe.annotate.levels, recipe.package.model_name) == ("arm.yaml", ("action",), "pick")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, r"recipe.trian: unknown; did you mean train\?"),
        ({"train": {"learnin_rate": 1.0}}, r"recipe.train.learnin_rate: unknown; did you mean learning_rate\?"),
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
        (
            lambda: TrainConfig(network="tyni"),
            "train.network: expected one of tiny, tiny-published, molmoact-7b-d, molmoact-7b-o, got 'tyni'; did you mean 'tiny'",
        ),
        (lambda: TrainConfig(network={"widht": 64}), "no field 'widht'; .*did you mean 'width'"),
        (lambda: TrainConfig(network={"width": 64}), "train.network.width: .*twice the 3 heads; use 66, got 64"),
        (lambda: TrainConfig(network={"layers": "two"}), "train.network.layers: expected a whole number above 0, got 'two'"),
        (lambda: TrainConfig(network={"stem": [8, 0]}), r"train.network.stem\[1\]: expected a whole number above 0, got 0"),
        (lambda: TrainConfig(network={"stem": 8}), "train.network.stem: expected a list"),
        (lambda: AnnotateConfig(depth_annotator="truht"), "annotate.depth_annotator: expected one of truth, .*did you mean 'truth'"),
        (
            lambda: AnnotateConfig(point_annotator="x"),
            "annotate.point_annotator: expected one of truth, pointing, kinematics, traces, got 'x'; set",
        ),
        (lambda: Recipe(name="x", collect=CollectConfig(image_size=84)), "image_size 84 .* multiples of 16; use 80 or 96"),
        (lambda: Recipe(name="x", collect=CollectConfig(image_size=8)), "multiples of 16; use 16$"),
        (lambda: Recipe(name="x", train=TrainConfig(committed_rows=8)), "freeze.chunk_length 8.*use at most 7"),
    ],
)
def test_cross_field_rules_say_the_fix(make, fix):
    with pytest.raises(SpecError, match=fix):
        make()


def test_a_deeper_network_wants_other_pictures():
    deeper = TrainConfig(network={"stem": [8, 16, 32, 64]})
    assert Recipe(name="x", train=deeper, collect=CollectConfig(image_size=96)).train.picture_step == 32
    with pytest.raises(SpecError, match="multiples of 32; use 64 or 96"):
        Recipe(name="x", train=deeper)


def test_a_missing_start_is_told_before_any_work(tmp_path):
    Recipe(name="x").check_start()
    recipe = Recipe(name="x", train=TrainConfig(init_from=str(tmp_path / "gone")))
    with pytest.raises(SpecError, match=r"train.init_from .*gone: expected the folder of a checkpoint .* got no folder there; name one"):
        recipe.check_start()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "config.json").write_text("{}")
    with pytest.raises(SpecError, match=r"got a folder without model.safetensors, contract.json; name one"):
        recipe.check_start()
    for name in train_config.CHECKPOINT_FILES:
        (tmp_path / "gone" / name).touch()
    recipe.check_start()


def test_what_a_recipe_knows_of_the_heavy_parts_is_true():
    from dataclasses import asdict

    from model_core import checkpoint
    from model_core.tiny import TinySize

    sizes = asdict(TinySize())
    assert tuple(sizes) == train_config.NETWORK_FIELDS
    assert {name: sizes[name] for name in train_config.NETWORK_DEFAULTS} == train_config.NETWORK_DEFAULTS
    assert (checkpoint.WEIGHTS, checkpoint.CONFIG, checkpoint.CONTRACT) == train_config.CHECKPOINT_FILES
    for source in (*DEPTH_ANNOTATORS.values(), *POINT_ANNOTATORS.values()):
        module_name, _, function_name = source.partition(":")
        assert callable(getattr(importlib.import_module(module_name), function_name))


def test_a_recipe_of_an_older_version_still_opens():
    document = json.loads((REPOSITORY / "tests" / "golden" / "recipe_of_an_older_version.json").read_text())
    recipe = Recipe.from_json(document)
    assert recipe.freeze.mask == (True, True, True, False), "an explicit mask is kept"
    assert recipe.collect == CollectConfig(settle_steps=4), "what was written keeps its value where a default has changed"
    assert recipe.gate == GateConfig(margin=0.3)
    changed = Recipe(name="loop", collect=recipe.collect, gate=recipe.gate)
    assert replace(recipe, freeze=replace(recipe.freeze, mask=()), description="") == changed
