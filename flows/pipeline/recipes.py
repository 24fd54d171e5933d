"""The recipes: each is a function that returns the whole configuration of a run. Variants use `replace`; nothing is inherited.

`loop` is what `make run` does. Names are what people type: `actwright run metaworld_5`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.config.data_config import NO_LABELS, TWO_BUTTONS_CAMERA, AnnotateConfig, CollectConfig, FreezeConfig, VqvaeConfig
from components.config.published.training import ExampleGroup, PublishedTraining
from components.config.recipe import EvalConfig, GateConfig, PackageConfig, Recipe, WorkcellsConfig
from components.config.train_config import CurriculumConfig, TrainConfig
from components.simulation.metaworld_tasks import INSTRUCTIONS
from flows.pipeline.benchmark_recipes.libero import libero, libero_object
from flows.pipeline.molmoact_recipes import MOLMOACT_RECIPES
from model_core.spec.errors import SpecError

FIVE_TASKS = ("coffee-button-v3", "drawer-close-v3", "button-press-topdown-v3", "handle-press-v3", "plate-slide-v3")
TEN_TASKS = (
    *("reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3"),
    *("drawer-close-v3", "button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "window-close-v3"),
)

SMALLEST: Mapping[str, Any] = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 2, "feed_forward": 32, "projector": 32, "stem": [4, 8, 16]}
SMALL: Mapping[str, Any] = {"width": 96, "layers": 3, "heads": 3, "kv_heads": 3, "feed_forward": 384, "projector": 96, "stem": [16, 32, 64]}


def loop() -> Recipe:
    """Two tasks, full reasoning, minutes on two cores: what `make run` does."""
    return Recipe(name="loop")


def loop_parallel() -> Recipe:
    """`loop` with parallel action decoding (one forward for the chunk): a policy kind of its own, with its own numbers."""
    recipe = loop()
    return replace(recipe, name="loop_parallel", package=_model(recipe, "parallel"), train=replace(recipe.train, action_head="parallel"))


def loop_published() -> Recipe:
    """`loop` with a small network of the published layout, which reads and writes published sentences: a chunk is what is executed."""
    recipe = loop()
    kinds = {"action_reasoning": 0.8, "trajectory_conditioned": 0.2}
    published = PublishedTraining(
        groups=(ExampleGroup(name="all", kinds=kinds),), loss_ids="language", trained_rows="language", tower_images=32, recompute=False
    )
    train = replace(
        recipe.train,
        network="tiny-published",
        steps=2_500,
        global_batch=16,
        micro_batch=16,
        published=published,
    )
    freeze = replace(recipe.freeze, chunk_length=recipe.freeze.execute_horizon)
    return replace(recipe, name="loop_published", freeze=freeze, package=_model(recipe, "published"), train=train)


def metaworld_5() -> Recipe:
    """Five Meta-World tasks in one model, trained twice as long."""
    return _more_tasks("metaworld_5", FIVE_TASKS, episodes=200, steps=2_000)


def metaworld_mt10() -> Recipe:
    """The ten tasks of Meta-World's MT10, one camera, no task id: hard."""
    return _more_tasks("metaworld_mt10", TEN_TASKS, episodes=50, steps=1_000)


def metaworld_mt50() -> Recipe:
    """All fifty tasks of Meta-World in one larger model, judged on MT50's own initial states: for a GPU (docs/training.md)."""
    recipe = _more_tasks("metaworld_mt50", tuple(sorted(INSTRUCTIONS)), episodes=100, steps=30_000)
    network = {"width": 384, "layers": 8, "heads": 6, "kv_heads": 6, "feed_forward": 1_536, "projector": 384, "stem": [48, 96, 192]}
    # held for four simulator steps, as elsewhere, the expert of bin-picking solves nothing and that of lever-pull half
    demonstrations = replace(
        recipe.collect, sim_steps_per_action=2, horizon_sim_steps=400, noise_levels=(0.0, 0.2, 0.4), settle_steps=16, image_size=112
    )
    train = replace(recipe.train, network=network, global_batch=256, micro_batch=256, learning_rate=6e-4, warmup_steps=1_000)
    train = replace(train, checkpoint_every=2_000, augment_shift_px=4)
    return replace(recipe, collect=demonstrations, train=train, evaluate=EvalConfig(suite="metaworld_mt50", seeds_per_task=10))


def pretrain() -> Recipe:
    """Training stage 1: trace and action on the five tasks, before any depth."""
    recipe = metaworld_5()
    curriculum = CurriculumConfig(no_depth_until=1.0)
    return replace(
        recipe, name="pretrain", package=_model(recipe, "pretrained"), train=replace(recipe.train, stage="pre", curriculum=curriculum)
    )


def midtrain() -> Recipe:
    """Training stage 2: full reasoning on the five tasks; give the checkpoint of stage 1 with --set train.init_from=FOLDER."""
    recipe = metaworld_5()
    train = replace(recipe.train, stage="mid", curriculum=CurriculumConfig(no_depth_until=0.0))
    return replace(recipe, name="midtrain", package=_model(recipe, "midtrained"), train=train)


def posttrain() -> Recipe:
    """Training stage 3: a short run with a low learning rate on `loop`'s two tasks, from stage 2's checkpoint.

    Its data are others, so give --set train.init_from=FOLDER --set freeze.statistics=FOLDER --set annotate.codebook=FOLDER/vqvae.
    """
    recipe = loop()
    train = replace(recipe.train, stage="post", steps=400, learning_rate=3e-4, curriculum=CurriculumConfig(no_depth_until=0.0))
    return replace(recipe, name="posttrain", train=train)


def miniature() -> Recipe:
    """All ten stages in well under a minute, on almost nothing; proves the machinery, solves no task."""
    return Recipe(
        name="miniature",
        collect=CollectConfig(episodes_per_task=6, workers=1, horizon_sim_steps=160, noise_levels=(0.0, 0.1), burst_probability=0.0),
        annotate=AnnotateConfig(vqvae=VqvaeConfig(steps=8, batch=8, frames=64)),
        freeze=FreezeConfig(name="miniature", validation_fraction=0.2),
        train=TrainConfig(
            network=SMALLEST, threads=1, steps=6, global_batch=8, micro_batch=8, warmup_steps=2, checkpoint_every=2, log_every=1
        ),
        evaluate=EvalConfig(seeds_per_task=2, horizon_sim_steps=64, image_swap_frames=4, min_image_swap_change=0.0, workers=1, batch=2),
        gate=GateConfig(floor=0.0, margin=1.0, min_trials=1, max_refusal_rate=1.0, max_refused_trials=1.0, min_image_swap_change=0.0),
        package=PackageConfig(model_name="actwright-miniature", golden_probes=2),
        workcells=WorkcellsConfig(episodes_per_cell=1, horizon_sim_steps=64, deadline_ms=10_000),
        description=_first_line(miniature),
    )


def steering() -> Recipe:
    """Two button boxes in view, demonstrations to either: what chooses the goal, a sentence or a drawn trace (docs/judging.md)."""
    demonstrations = CollectConfig(
        simulator="components.simulation.two_buttons:TwoButtons",
        tasks=("yellow", "blue", "either-yellow", "either-blue"),
        episodes_per_task=75,
        camera=TWO_BUTTONS_CAMERA,
    )
    curriculum = CurriculumConfig(no_depth_until=0.25, full=0.0, no_depth=0.5, trace_given=0.4, action_only=0.1)
    return Recipe(
        name="steering",
        collect=demonstrations,
        annotate=AnnotateConfig(depth_annotator=NO_LABELS),
        freeze=FreezeConfig(name="steering"),
        train=TrainConfig(network=SMALL, steps=400, learning_rate=2e-3, curriculum=curriculum),
        evaluate=EvalConfig(reasoning="trace+action", suite="two_buttons", tasks=demonstrations.tasks),
        gate=GateConfig(floor=0.0),
        package=PackageConfig(model_name="actwright-steering", reasoning="trace+action"),
        workcells=WorkcellsConfig(tasks=("yellow", "blue")),
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = {
    make.__name__: make
    for make in (
        loop,
        loop_parallel,
        loop_published,
        metaworld_5,
        metaworld_mt10,
        metaworld_mt50,
        pretrain,
        midtrain,
        posttrain,
        libero,
        libero_object,
        steering,
        miniature,
        *MOLMOACT_RECIPES,
    )
}


def get_recipe(name: str) -> Recipe:
    """A recipe by its name, or read from a resolved ``.json`` file; raises `SpecError` with what was probably meant."""
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        near = difflib.get_close_matches(name.replace("-", "_"), RECIPES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "name a resolved .json file, or one of those"
        raise SpecError(f"no recipe {name!r}; there are {', '.join(RECIPES)}; {hint}")
    return replace(RECIPES[name](), description=_first_line(RECIPES[name]))


def read_recipe(path: Path) -> Recipe:
    """A resolved recipe from a file, as `actwright recipe NAME` writes it."""
    try:
        return Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(
            f"recipe file {path} cannot be read ({error.strerror}); write one with `actwright recipe loop --out {path}`"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"recipe file {path} is not JSON: {error}") from error


def _model(recipe: Recipe, stage: str) -> PackageConfig:
    """A model of its own, so that an unfinished one never competes with a finished champion."""
    return replace(recipe.package, model_name=f"actwright-{stage}")


def _more_tasks(name: str, tasks: tuple[str, ...], *, episodes: int, steps: int) -> Recipe:
    recipe = loop()
    return replace(
        recipe,
        name=name,
        collect=replace(recipe.collect, tasks=tasks, episodes_per_task=episodes),
        freeze=replace(recipe.freeze, name=name),
        train=replace(recipe.train, steps=steps),
        gate=replace(recipe.gate, floor=0.0),
        package=replace(recipe.package, model_name=f"actwright-{name}"),
        workcells=replace(recipe.workcells, tasks=tasks[:2]),
    )


def _first_line(make: Callable[[], Recipe]) -> str:
    return (make.__doc__ or "").splitlines()[0]
