"""What a benchmark suite is, and which one an evaluation runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from components.config.data_config import CollectConfig
from components.config.recipe import EvalConfig
from components.simulation.interface import Simulator
from model_core.spec.errors import SpecError

DEFAULT_SUITE = "components.evaluation.suites.simulated_tasks:SimulatedTasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One episode of a suite: a task from one initial state."""

    task: str
    seed: int


class Suite(Protocol):
    """A set of cases that policies are compared on. Its values are plain: a worker process works with a copy."""

    @property
    def name(self) -> str:
        """Names the suite in reports."""
        ...

    @property
    def version(self) -> str:
        """Changes when the same case would be another: two reports compare only if it is equal."""
        ...

    @property
    def rules(self) -> Mapping[str, Any]:
        """What else decides a result, such as the horizon: part of the report's protocol."""
        ...

    def cases(self) -> Sequence[Case]:
        """Every episode, in order."""
        ...

    def open(self, case: Case) -> Simulator:
        """A simulator in which `reset` lays out `case`, and every other case of the suite afterwards."""
        ...


class OpenSuite(Protocol):
    """What `evaluate.suite` names, as "package.module:function"."""

    def __call__(self, cfg: EvalConfig, collect: CollectConfig) -> Suite:
        """The suite for this evaluation. collect: simulator, tasks and camera of the recipe."""
        ...


def open_suite(cfg: EvalConfig, collect: CollectConfig) -> Suite:
    """The suite that `cfg` names; by default the tasks of the recipe's own simulator. Raises `SpecError` for a name that does not exist."""
    source = cfg.suite or DEFAULT_SUITE
    module_name, _, function_name = source.partition(":")
    try:
        function: OpenSuite = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"no suite {source!r} ({error}); evaluate.suite: expected 'package.module:function' that can be imported here"
        ) from error
    return function(cfg, collect)
