"""A stage as a step of the store: found by its cache key, or made and logged to the tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.code_version import code_version, named_modules
from components.artifacts.files import dataset_digest, sha256_file
from components.artifacts.stage_log import StageRun, log_stage
from components.artifacts.step_manifest import Step, input_digests, step_key
from components.artifacts.step_store import StepResult, run_step
from components.config.recipe import Recipe
from components.config.stages import Stage, extra_simulator, named_suite, recipe_sections
from flows.platform.wiring import Platform

Work = Callable[[Path], Mapping[str, Any]]
Inputs = Mapping[str, Step | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKey:
    """What the cache key of a step is made of: the row of its stage, the recipe's sections that the row names, and the inputs.

    extra: what else decides the result and stands in no recipe, such as the version that is packaged.
    """

    stage: Stage
    recipe: Recipe
    inputs: Inputs
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, object]:
        """What was chosen for this step."""
        return recipe_sections(self.recipe, self.stage) | dict(self.extra)

    @property
    def code_version(self) -> str:
        """A digest of the code, packages and files that the result depends on, with the plug-ins that the config names."""
        stage, found = self.stage, (extra_simulator(self.recipe, self.stage), named_suite(self.recipe, self.stage))
        named = [entry for entry in found if entry is not None]
        modules = (*stage.modules, *named_modules(self.config), *(entry.module for entry in named))
        packages = dict.fromkeys((*stage.packages, *(package for entry in named for package in entry.packages)))
        return code_version(modules, tuple(packages), stage.files)


def folder_input(name: str, place: str) -> dict[str, str]:
    """What a folder or file that a recipe names holds, by digest, as an input of a step: a name says nothing about contents.

    Empty where `place` is empty or is nothing on this disk, such as a hub id.
    """
    path = Path(place)
    if not place or not path.exists():
        return {}
    return {name: dataset_digest(path) if path.is_dir() else sha256_file(path)}


def is_made(platform: Platform, key: StepKey) -> bool:
    """Whether the step is finished, so that nothing of it would be worked on."""
    name = key.stage.name
    return platform.store.find(name, step_key(name, key.config, input_digests(key.inputs), key.code_version)) is not None


def stage_step(platform: Platform, key: StepKey, work: Work) -> StepResult:
    """Find or make the step of a stage; one that is made becomes a run of the tracker."""
    stage, config = key.stage.name, key.config

    def tracked(out: Path) -> Mapping[str, Any]:
        record = work(out)
        if stage != "train":  # a training logs to its tracker while it runs
            name = out.name.removesuffix(".partial")
            run = StageRun(stage=stage, key=name, recipe=key.recipe.name, config=config, record=record, out=out)
            log_stage(platform.tracker(), run)
        return record

    return run_step(platform.store, stage=stage, config=config, inputs=key.inputs, work=tracked, code_version=key.code_version)
