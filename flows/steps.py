"""The ten stages as steps: each is one `run_step` around one component. No Prefect, so the data commands use them too.

A step is handed finished steps and gives a finished step. Here is also said, for each stage, which source files its
results depend on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.code_version import code_version
from components.documents import from_document, to_document
from components.recipe import CollectConfig, GateConfig, Recipe
from components.records import EvalReport, ModelVersion, Progress, Verdict
from components.store import Step, StepResult, run_step
from flows.wiring import House

_SPEC = ("model_core/spec",)
_MIND = (*_SPEC, "model_core/network", "model_core/speech", "model_core/engine", "model_core/policy.py", "model_core/checkpoint.py")
SOURCES: Mapping[str, tuple[str, ...]] = {
    "collect": (*_SPEC, "components/collect.py", "components/episode_checks.py", "components/simulators", "components/datasets"),
    "validate": (*_SPEC, "components/validate.py", "components/expectations.py", "components/datasets"),
    "annotate": (*_SPEC, "components/annotate.py", "components/annotators", "components/datasets", "model_core/speech"),
    "freeze": (*_SPEC, "components/freeze.py", "components/datasets", "model_core/speech"),
    "train": (
        *_MIND,
        *("model_core/training.py", "components/batches.py", "components/trainees.py", "components/train_plan.py"),
        *("components/train_engine.py", "components/train_worker.py", "infra/deepspeed"),
    ),
    "evaluate": (*_MIND, "components/evaluate.py", "components/blindness.py", "components/simulators", "components/intervals.py"),
    "gate": (*_SPEC, "components/gate.py", "components/intervals.py", "components/register.py"),
    "package": (*_MIND, "components/package.py", "serving/gateway"),
    "workcells": (*_SPEC, "components/workcells.py", "serving/workcell", "serving/gateway", "components/simulators"),
    "report": ("components/report.py", "components/pictures.py"),
}
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "collect": ("numpy", "mujoco", "metaworld", "av"),
    "annotate": ("numpy", "torch"),
    "freeze": ("numpy", "safetensors"),
    "train": ("numpy", "torch", "deepspeed"),
    "evaluate": ("numpy", "torch", "mujoco", "metaworld"),
    "package": ("bentoml", "torch"),
}

Work = Callable[[Path], Mapping[str, Any]]


def stage_step(house: House, stage: str, config: object, inputs: Mapping[str, Step | str], work: Work) -> StepResult:
    """Find or make the step of a stage."""
    present = tuple(s for s in SOURCES.get(stage, ()) if (Path(__file__).parents[1] / s).exists())
    return run_step(
        house.store, stage=stage, config=config, inputs=inputs, work=work, code_version=code_version(present, PACKAGES.get(stage, ()))
    )


def collect_step(house: House, cfg: CollectConfig, progress: Progress) -> StepResult:
    """Record demonstrations: <step>/dataset."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.collect import collect

        return collect(cfg, out, progress)

    return stage_step(house, "collect", cfg, {}, work)


def validate_step(house: House, recipe: Recipe, raw: Step, progress: Progress) -> StepResult:
    """Judge every episode: <step>/valid.json, quarantine/, data_docs/."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.validate import validate

        return validate(recipe.validate, raw.path / "dataset", out, progress)

    return stage_step(house, "validate", recipe.validate, {"raw": raw}, work)


def annotate_step(house: House, recipe: Recipe, raw: Step, valid: Step, progress: Progress) -> StepResult:
    """Depth tokens and traces of the good episodes: <step>/labels, <step>/vqvae."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.annotate import annotate

        return annotate(recipe.annotate, raw.path / "dataset", valid.path / "valid.json", out, progress)

    return stage_step(house, "annotate", recipe.annotate, {"raw": raw, "valid": valid}, work)


def freeze_step(house: House, recipe: Recipe, raw: Step, labels: Step, progress: Progress) -> StepResult:
    """Shards, manifest and contract: the data set version."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.freeze import freeze

        return freeze(recipe.freeze, raw.path / "dataset", labels.path, out, progress)

    return stage_step(house, "freeze", recipe.freeze, {"raw": raw, "labels": labels}, work)


def train_step(house: House, recipe: Recipe, frozen: Step, progress: Progress) -> StepResult:
    """Train, tracked as one run that survives kills: <step>/checkpoint."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.ports import DatasetInput
        from components.train import train

        tracker = house.tracker()
        run_id = out.name.removesuffix(".partial")
        data = DatasetInput(name=str(frozen.record["name"]), version=str(frozen.record["version"]))
        tracker.start_run(f"train {recipe.name}", recipe.to_json(), {"recipe": recipe.name, "stage": "train"}, run_id=run_id, dataset=data)
        tracker.log_text("recipe.json", json.dumps(recipe.to_json(), indent=1, sort_keys=True))
        try:
            record = train(recipe.train, frozen.path, out, tracker, progress)
        except BaseException:
            tracker.finish("killed")
            raise
        tracker.finish("finished")
        return {**record, "run_id": run_id, "dataset_version": frozen.record["version"], "recipe_digest": recipe.digest}

    return stage_step(house, "train", recipe.train, {"frozen": frozen}, work)


def evaluate_step(house: House, recipe: Recipe, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Closed loop on fresh seeds, after the image-swap test: <step>/report.json."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.evaluate import evaluate

        return evaluate(recipe.evaluate, trained.path / "checkpoint", out, progress)

    return stage_step(house, "evaluate", recipe.evaluate, {"checkpoint": trained, "frozen": frozen}, work)


def read_report(evaluated: Step) -> EvalReport:
    """The evaluation as a record."""
    return from_document(EvalReport, json.loads((evaluated.path / "report.json").read_text(encoding="utf-8")), where="report.json")


def read_verdict(gated: Step) -> Verdict:
    """The gate's decision as a record."""
    return from_document(Verdict, gated.record["verdict"], where="verdict")


def read_model_version(gated: Step) -> ModelVersion:
    """What was registered."""
    return from_document(ModelVersion, gated.record["model_version"], where="model_version")
