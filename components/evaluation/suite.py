"""What a benchmark suite is, and which one an evaluation runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, runtime_checkable

from components.config.data_config import CollectConfig
from components.config.judging.suites import suite_entry
from components.config.recipe import EvalConfig
from components.simulation.interface import Simulator
from model_core.spec.contract import PolicyContract
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


@runtime_checkable
class FitsPolicies(Protocol):
    """A suite that adapts what is the policy's to choose (image size, control rate), and refuses a policy that it is not for."""

    def fitted(self, contract: PolicyContract) -> Suite:
        """The suite as this policy sees it; raises `ContractError`."""
        ...


class NamedSuite(Suite, FitsPolicies, Protocol):
    """A built-in suite: its states are numbered, and some of them are chosen."""

    def chosen(self, *, tasks: Sequence[str] = (), first: int = 0, count: int = 1) -> NamedSuite:
        """The same suite on `count` states of each of `tasks` (none: of all), from state `first`."""
        ...


class OpenBenchmark(Protocol):
    """What the entry of a built-in suite names (`components.config.judging.suites`)."""

    def __call__(self) -> NamedSuite:
        """The whole suite; raises `SpecError` where what it needs is not installed."""
        ...


def installed_version(package: str) -> str:
    """Of a package that decides a suite's numbers; "absent" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


class OpenSuite(Protocol):
    """What `evaluate.suite` names, as "package.module:function"."""

    def __call__(self, cfg: EvalConfig, collect: CollectConfig) -> Suite:
        """The suite for this evaluation. collect: simulator, tasks and camera of the recipe."""
        ...


def open_benchmark(name: str) -> NamedSuite:
    """The whole built-in suite `name`. Raises `SpecError` for an unknown one, and where it is not installed."""
    entry = suite_entry(name)
    if entry is None:
        raise SpecError(f"{name!r} is a function, not the name of a built-in suite. Fix: name one that `actwright suite list` shows")
    module_name, _, function_name = entry.source.partition(":")
    made: OpenBenchmark = getattr(importlib.import_module(module_name), function_name)
    return made()


def open_suite(cfg: EvalConfig, collect: CollectConfig) -> Suite:
    """The suite that `cfg` names: a built-in one on the states that `cfg` chooses, or what a function makes of `cfg` and `collect`.

    By default the tasks of the recipe's own simulator. Raises `SpecError` for a name that does not exist.
    """
    if cfg.suite and suite_entry(cfg.suite) is not None:
        return open_benchmark(cfg.suite).chosen(tasks=cfg.tasks, first=cfg.first_state, count=cfg.seeds_per_task)
    source = cfg.suite or DEFAULT_SUITE
    module_name, _, function_name = source.partition(":")
    try:
        function: OpenSuite = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"no suite {source!r} ({error}); evaluate.suite: expected 'package.module:function' that can be imported here"
        ) from error
    return function(cfg, collect)
