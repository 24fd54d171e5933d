"""Steps copied out of the store into ``data/<stage>``, and read back from there as inputs of the next one."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from components.artifacts.step_manifest import MANIFEST, UNDIGESTED, Manifest, Step, folder_digests, outputs_digest
from components.artifacts.step_store import StepResult
from components.config.recipe import Recipe
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages import data as stages
from flows.pipeline.stages.training import check_start
from flows.platform.wiring import Platform, open_platform
from flows.terminal.stage_progress import StagePanel
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

Made = tuple[StepResult, Path]


def collect(recipe_name: str) -> Made:
    """data/collect."""
    platform, recipe, panel = _begin(recipe_name)
    return _carry_out(platform, stages.collect_step(platform, recipe, panel.stage("collect")))


def validate(recipe_name: str) -> Made:
    """data/collect -> data/validate."""
    platform, recipe, panel = _begin(recipe_name)
    return _carry_out(platform, stages.validate_step(platform, recipe, read_step(platform, "collect"), panel.stage("validate")))


def annotate(recipe_name: str) -> Made:
    """data/collect, data/validate -> data/annotate."""
    platform, recipe, panel = _begin(recipe_name)
    raw, valid = read_step(platform, "collect"), read_step(platform, "validate")
    return _carry_out(platform, stages.annotate_step(platform, recipe, raw, valid, panel.stage("annotate")))


def freeze(recipe_name: str) -> Made:
    """data/collect, data/annotate -> data/freeze."""
    platform, recipe, panel = _begin(recipe_name)
    raw, labels = read_step(platform, "collect"), read_step(platform, "annotate")
    return _carry_out(platform, stages.freeze_step(platform, recipe, raw, labels, panel.stage("freeze")))


def read_step(platform: Platform, stage: str) -> Step:
    """The step in data/<stage>, its bytes checked; raises `DatasetError` for a folder that was changed."""
    folder = platform.settings.data.resolve() / stage
    try:
        manifest = from_document(Manifest, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except OSError as error:
        raise DatasetError(f"{folder} has no finished {stage}; run `actwright data {stage}` or `dvc checkout` first") from error
    found = folder_digests(folder)
    if found != dict(manifest.outputs) or outputs_digest(found, manifest.record) != manifest.digest:
        changed = sorted(n for n in found.keys() | manifest.outputs.keys() if found.get(n) != manifest.outputs.get(n))
        raise DatasetError(f"{folder} was changed after it was made ({', '.join(changed[:3])}); run `dvc checkout` or make it again")
    return _with_places(platform, Step(path=folder, manifest=manifest))


def _with_places(platform: Platform, step: Step) -> Step:
    """The step, from the folder that knows where its sources are: an index that is carried out or pulled names no place of a machine."""
    from components.data.sources.raw_index import INDEX

    if not (step.path / "dataset" / INDEX).is_file():
        return step
    made_here = platform.store.find(step.manifest.stage, step.manifest.key)
    return replace(step, path=made_here.path) if made_here is not None and made_here.digest == step.digest else step


def carry_out(step: Step, data: Path) -> Path:
    """Copy a step into data/<stage>, atomically, without what two equal runs do not share. Unchanged ones are left alone."""
    manifest = step.manifest
    record = {k: v for k, v in manifest.record.items() if k != UNDIGESTED}
    text = json.dumps(to_document(replace(manifest, stat={}, record=record)), indent=1, sort_keys=True)
    target = data.resolve() / manifest.stage
    if (target / MANIFEST).is_file() and (target / MANIFEST).read_text(encoding="utf-8") == text:
        return target
    beside = target.with_name(f".{manifest.stage}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    for name in manifest.outputs:
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(step.path / name, beside / name)
    atomic_write(beside / MANIFEST, text)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(beside, target)
    return target


def _begin(recipe_name: str) -> tuple[Platform, Recipe, StagePanel]:
    recipe = get_recipe(recipe_name)
    check_start(recipe)
    platform = open_platform()
    return platform, recipe, StagePanel(live=False, fault=platform.store.fault if platform.settings.fault else None)


def _carry_out(platform: Platform, result: StepResult) -> Made:
    return result, carry_out(result.step, platform.settings.data)
