"""LIBERO, from our own demonstrations; needs the extra `libero`."""

from __future__ import annotations

from components.config.data_config import NO_LABELS, AnnotateConfig, CollectConfig, FreezeConfig
from components.config.recipe import EvalConfig, GateConfig, PackageConfig, Recipe, WorkcellsConfig
from components.config.source_config import SourceConfig
from components.config.train_config import CurriculumConfig, TrainConfig


def libero() -> Recipe:
    """One task of LIBERO, from our own demonstrations to a policy that is judged on held-out ones; needs the extra `libero`."""
    demonstrations = {
        "simulator": "libero",
        "tasks": ["pick_up_the_alphabet_soup_and_place_it_in_the_basket"],
        "episodes_per_task": 30,
        "sim_steps_per_action": 1,
        "horizon_sim_steps": 280,
        "noise_levels": [0.0, 0.2],
        "burst_probability": 0.0,
        "image_size": 64,
    }
    network = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2, "feed_forward": 128, "projector": 64, "stem": [16, 32, 64]}
    return Recipe(
        name="libero",
        data=(SourceConfig(name="libero", kind="simulator", options=demonstrations),),
        freeze=FreezeConfig(name="libero", validation_fraction=0.15, chunk_length=4, execute_horizon=4),
        train=TrainConfig(
            network=network,
            steps=700,
            global_batch=32,
            micro_batch=32,
            learning_rate=2e-3,
            augment_shift_px=2,
            curriculum=CurriculumConfig(no_depth_until=0.8),
        ),
        evaluate=EvalConfig(reasoning="trace+action"),
        package=PackageConfig(model_name="actwright-libero", reasoning="trace+action"),
    )


def libero_object() -> Recipe:
    """One task of LIBERO-Object in the view of published policies, judged on its official initial states; needs the extra `libero`.

    vla-eval drives what it trains as well: one camera of 256 x 256, as the environment renders it, mirrored; so no depth and no trace.
    """
    task = "pick_up_the_butter_and_place_it_in_the_basket"
    demonstrations = CollectConfig(
        simulator="libero-published",
        tasks=(task,),
        episodes_per_task=16,
        sim_steps_per_action=1,
        horizon_sim_steps=280,
        noise_levels=(0.0, 0.2),
        burst_probability=0.02,
        settle_steps=2,
        image_size=256,
    )
    network = {"width": 96, "layers": 3, "heads": 3, "kv_heads": 3, "feed_forward": 256, "projector": 96, "stem": [8, 16, 32, 48, 64]}
    return Recipe(
        name="libero_object",
        collect=demonstrations,
        annotate=AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS),
        freeze=FreezeConfig(name="libero_object", chunk_length=8, execute_horizon=8),
        train=TrainConfig(network=network, steps=500, global_batch=32, micro_batch=32, learning_rate=2e-3),
        evaluate=EvalConfig(reasoning="action", suite="libero_object", tasks=(task,), execute_horizon=8, batch=1),
        gate=GateConfig(floor=0.0),
        package=PackageConfig(model_name="actwright-libero-object", reasoning="action"),
        workcells=WorkcellsConfig(cells=1, episodes_per_cell=2, horizon_sim_steps=280, execute_horizon=8),
    )
