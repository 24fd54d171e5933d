"""The trainings of MolmoAct as recipes: pre-training, mid-training, post-training on LIBERO, and the fine-tune of one's own data.

Steps, batches, rates, images, adapters and chunks are those of the published launcher (arXiv 2508.07917); `actwright cluster plan NAME`
prints what each asks of its GPUs. A recipe names its data sets without a place: give each one with
--set 'data=[{"name": ..., "path": ...}]' in a resolved file (`actwright recipe NAME --out FILE`), and the checkpoint to start from with
--set train.network=FOLDER.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from components.config.data_config import AnnotateConfig, FreezeConfig
from components.config.published.training import ExampleGroup, PartRates, PublishedTraining
from components.config.recipe import EvalConfig, PackageConfig, Recipe
from components.config.source_config import SourceConfig
from components.config.train_config import TrainConfig

SEVEN_B = "molmoact-7b-d"
_DROPOUT = 0.1  # of the residual stream, of all tokens
_REASONING = {"action_reasoning": 1.0}
_BOTH = {"action_reasoning": 0.5, "trajectory_conditioned": 0.5}


def molmoact_pretrain() -> Recipe:
    """MolmoAct stage 1 on 256 GPUs: RT-1, Bridge and BC-Z with depth and trace examples; start from a captioner.

    The published mixture has 5 % of questions about web images besides: list yours with `actwright data web` and name them as
    train.published.web, at rates that are 0.05 together (docs/molmoact.md). Without them the other rates stand relative to each other.
    """
    robots = {"fractal20220817_data": 0.40, "bridge_dataset": 0.25, "bc_z": 0.15}
    groups = [ExampleGroup(name=name, rate=rate, sources=(name,), kinds=_REASONING) for name, rate in robots.items()]
    groups.append(ExampleGroup(name="auxiliary", rate=0.15, sources=tuple(robots), kinds={"depth": 0.5, "trace": 0.5}))
    train = TrainConfig(
        stage="pre",
        steps=100_000,
        global_batch=512,
        micro_batch=2,
        world_size=256,
        published=PublishedTraining(
            views=1,
            groups=tuple(groups),
            learning_rates=PartRates(connector=1e-5, vit=1e-5),
            clip_by_part=False,
            residual_dropout=_DROPOUT,
        ),
        **_full(rate=2e-5),
    )
    return _recipe("molmoact_pretrain", tuple(robots), train, chunk_length=1)


def molmoact_midtrain() -> Recipe:
    """MolmoAct stage 2 on 128 GPUs: the household and tabletop sets, with and without a drawn trajectory; start from stage 1."""
    names = tuple(f"molmoact_{place}_{side}" for place in ("home", "tabletop") for side in ("primary", "secondary"))
    train = TrainConfig(
        stage="mid",
        steps=50_000,
        global_batch=256,
        micro_batch=2,
        world_size=128,
        published=PublishedTraining(
            views=2,
            groups=tuple(ExampleGroup(name=name, sources=(name,), kinds=_BOTH) for name in names),
            learning_rates=PartRates(connector=5e-6, vit=5e-6),
            clip_by_part=False,
            residual_dropout=_DROPOUT,
        ),
        **_full(rate=1e-5),
    )
    return _recipe("molmoact_midtrain", names, train, chunk_length=1)


def molmoact_libero_spatial() -> Recipe:
    """MolmoAct stage 3 on 64 GPUs: adapters on LIBERO-Spatial, chunks of 8; start from stage 2."""
    return _libero("spatial", steps=50_000)


def molmoact_libero_object() -> Recipe:
    """MolmoAct stage 3 on 64 GPUs: adapters on LIBERO-Object, chunks of 8; start from stage 2."""
    return _libero("object", steps=50_000)


def molmoact_libero_goal() -> Recipe:
    """MolmoAct stage 3 on 64 GPUs: adapters on LIBERO-Goal, chunks of 8; start from stage 2."""
    return _libero("goal", steps=40_000)


def molmoact_libero_long() -> Recipe:
    """MolmoAct stage 3 on 64 GPUs: adapters on LIBERO-Long, chunks of 8; start from stage 2."""
    return _libero("long", steps=80_000)


def molmoact_finetune() -> Recipe:
    """MolmoAct stage 3 on 8 GPUs: adapters on one's own demonstrations, two cameras, chunks of 8; start from stage 2."""
    train = TrainConfig(steps=10_000, global_batch=16, micro_batch=2, world_size=8, **_adapters())
    return _recipe("molmoact_finetune", ("own",), train, chunk_length=8)


MOLMOACT_RECIPES = (
    molmoact_pretrain,
    molmoact_midtrain,
    molmoact_libero_spatial,
    molmoact_libero_object,
    molmoact_libero_goal,
    molmoact_libero_long,
    molmoact_finetune,
)


def _libero(suite: str, *, steps: int) -> Recipe:
    train = TrainConfig(steps=steps, global_batch=128, micro_batch=2, world_size=64, **_adapters())
    return _recipe(f"molmoact_libero_{suite}", (f"libero_{suite}",), train, chunk_length=8)


def _schedule(rate: float) -> dict[str, Any]:
    """AdamW without decay of weights, 200 steps of warm-up, a cosine from there to a tenth."""
    return {
        "network": SEVEN_B,
        "learning_rate": rate,
        "min_learning_rate": rate / 10,
        "weight_decay": 0.0,
        "warmup_steps": 200,
        "flat_until": 0.0,
        "precision": "bf16",
        "checkpoint_every": 1_000,
    }


def _full(*, rate: float) -> dict[str, Any]:
    """All weights, spread over all GPUs."""
    return {**_schedule(rate), "zero_stage": 3}


def _adapters() -> dict[str, Any]:
    """Adapters of rank 32 and alpha 16 on every linear layer, at one rate, with augmented images."""
    groups = (ExampleGroup(name="all", kinds=_BOTH),)
    published = PublishedTraining(views=2, groups=groups, augment=True, clip_by_part=False, residual_dropout=_DROPOUT)
    return {**_schedule(5e-4), "zero_stage": 2, "lora_rank": 32, "published": published}


def _recipe(name: str, sources: tuple[str, ...], train: TrainConfig, *, chunk_length: int) -> Recipe:
    return Recipe(
        name=name,
        data=tuple(SourceConfig(name=source) for source in sources),
        annotate=AnnotateConfig(depth_annotator="depth_anything", point_annotator="pointing"),
        freeze=FreezeConfig(name=name, chunk_length=chunk_length, execute_horizon=chunk_length),
        train=train,
        evaluate=replace(EvalConfig(), execute_horizon=chunk_length),
        package=PackageConfig(model_name=name.replace("_", "-")),
    )
