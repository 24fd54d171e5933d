"""The stages that make a policy and measure it: train and evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from components.artifacts.stage_log import log_account
from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepResult
from components.config.data_config import CollectConfig
from components.config.judging.suites import suite_entry
from components.config.published.networks import is_published
from components.config.recipe import Recipe
from components.config.records import AccountRow, Progress
from components.config.source_config import SIMULATOR, SourceConfig
from components.config.stages import OPEN_LOOP, SIMULATION_FIELDS, stage_named
from components.config.train_config import start_folder
from flows.pipeline.stages.step import StepKey, folder_input, stage_step
from flows.platform.wiring import Platform
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import to_document
from model_core.spec.errors import require

Launch = Callable[..., Mapping[str, Any]]  # called as `components.training.launcher.train` is


def train_step(
    platform: Platform,
    recipe: Recipe,
    frozen: Step,
    progress: Progress,
    launch: Launch | None = None,
    account: Sequence[AccountRow] = (),
) -> StepResult:
    """Train, tracked as one run that survives kills: <step>/checkpoint. launch: trains elsewhere (default: on this machine).

    account: of the data before the training; the tracker gets it with what was trained on.
    """

    def work(out: Path) -> Mapping[str, Any]:
        from components.artifacts.step_manifest import checkpoint_digest
        from components.config.ports import DatasetInput
        from components.data.accounting.trained import trained_on
        from components.training.job import TrainingTask
        from components.training.launcher import train
        from components.training.plan import drawn_samples
        from components.training.published.drawing import drawing_order_of

        order = drawing_order_of(recipe.train)
        tracker = platform.tracker()
        run_id = out.name.removesuffix(".partial")
        data = DatasetInput(name=str(frozen.record["name"]), version=str(frozen.record["version"]))
        tracker.start_run(f"train {recipe.name}", recipe.to_json(), {"recipe": recipe.name, "stage": "train"}, run_id=run_id, dataset=data)
        tracker.log_text("recipe.json", json.dumps(recipe.to_json(), indent=1, sort_keys=True))
        try:
            record = (launch or train)(TrainingTask(config=recipe.train, frozen=frozen.path, out=out), tracker, progress)
            trained = [*trained_on(frozen.path, partial(drawn_samples, recipe.train), order), *_web_account(recipe, frozen.path)]
            log_account(tracker, [*(to_document(row) for row in account), *trained])
        except BaseException:
            tracker.finish("killed")
            raise
        tracker.finish("finished")
        return {
            **record,
            "account": trained,
            "checkpoint_digest": checkpoint_digest(out / "checkpoint"),
            "run_id": run_id,
            "dataset_version": frozen.record["version"],
            "undigested": {**record.get("undigested", {}), "recipe_digest": recipe.digest},
        }

    start = recipe.train.start
    inputs: dict[str, Step | str] = {"frozen": frozen, **(folder_input("start", str(start_folder(start))) if start else {})}
    inputs |= _web_inputs(recipe)
    key = StepKey(stage=stage_named("train"), recipe=recipe, inputs=inputs)
    return stage_step(platform, key, work)


def _web_inputs(recipe: Recipe) -> dict[str, str]:
    """The rows of each web source, by digest; where its listing lies makes no difference. Raises `DatasetError` where it is not there."""
    if not recipe.train.published.web:
        return {}
    from components.data.web_pairs.opened import read_listing

    return {f"web:{one.name}": read_listing(start_folder(one.path)).rows_sha256 for one in recipe.train.published.web}


def _web_account(recipe: Recipe, frozen: Path) -> list[dict[str, Any]]:
    if not recipe.train.published.web:
        return []
    from components.training.published.web.account import web_account

    return web_account(recipe.train, frozen)


def check_start(recipe: Recipe) -> None:
    """Refuse, before any work, a start that is not there or that the recipe shows not to fit, other folders that are not there, and a
    built-in suite that is not installed or has no such tasks.

    Raises `SpecError`, `CheckpointError` or `DatasetError`.
    """
    recipe.check_start()
    for field, folder in (("annotate.codebook", recipe.annotate.codebook), ("freeze.statistics", recipe.freeze.statistics)):
        require(not folder or Path(folder).is_dir(), f"{field}: expected a folder, such as one inside a checkpoint", got=folder)
    if recipe.evaluate.suite and suite_entry(recipe.evaluate.suite) is not None:
        from components.evaluation.suite import open_suite

        open_suite(recipe.evaluate, recipe.collect)
    if recipe.train.init_from:
        from components.training.start.comparison import check_recipe

        check_recipe(recipe, *_embodiments_of(recipe))
    if is_published(recipe.train.network):
        from components.training.published.shapes import check_network_folder

        check_network_folder(recipe.train)
    _web_inputs(recipe)


def _embodiments_of(recipe: Recipe) -> list[EmbodimentSpec]:
    """The embodiments that will be trained: of the sources, each once, or of the simulator. Nothing need be recorded yet."""
    if not recipe.data:
        from components.simulation.open import open_simulator

        return [open_simulator(recipe.collect).embodiment]
    found = [_embodiment_of(source) for source in recipe.data]
    return list({body.name: body for body in reversed(found)}.values())[::-1]


def _embodiment_of(source: SourceConfig) -> EmbodimentSpec:
    if source.kind != SIMULATOR:
        from components.data.sources.raw_index import open_source

        return open_source(source).embodiment
    if source.embodiment:
        from components.data.embodiments.file import find_file, read_embodiment

        return read_embodiment(find_file(source.embodiment))
    from components.simulation.open import open_simulator

    return open_simulator(source.recording).embodiment


def evaluate_step(platform: Platform, recipe: Recipe, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Closed loop on fresh seeds, after the image-swap test: <step>/report.json and film/. Without a suite: on held-out episodes."""
    if recipe.data and not recipe.evaluate.suite:
        return open_loop_step(platform, recipe, trained, frozen, progress)
    simulation = simulation_of(recipe.collect)

    def work(out: Path) -> Mapping[str, Any]:
        from components.evaluation.evaluate import evaluate
        from components.evaluation.suite import open_suite

        return evaluate(
            recipe.evaluate, trained.path / "checkpoint", out, progress, suite=open_suite(recipe.evaluate, simulation), frozen=frozen.path
        )

    return stage_step(platform, evaluate_key(recipe, trained, frozen), work)


def evaluate_key(recipe: Recipe, trained: Step, frozen: Step) -> StepKey:
    """What a closed-loop evaluation is found by."""
    return StepKey(stage=stage_named("evaluate"), recipe=recipe, inputs={"checkpoint": trained, "frozen": frozen})


def open_loop_step(platform: Platform, recipe: Recipe, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Predicted against recorded actions of held-out episodes, after the image-swap test: <step>/report.json."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.evaluation.suites.held_out import evaluate_open_loop

        return evaluate_open_loop(recipe.evaluate, trained.path / "checkpoint", frozen.path, out, progress)

    return stage_step(platform, StepKey(stage=OPEN_LOOP, recipe=recipe, inputs={"checkpoint": trained, "frozen": frozen}), work)


def simulation_of(cfg: CollectConfig) -> CollectConfig:
    """The simulator, camera and tasks of the demonstrations, without what only concerned their recording."""
    return CollectConfig(**{name: getattr(cfg, name) for name in SIMULATION_FIELDS})
