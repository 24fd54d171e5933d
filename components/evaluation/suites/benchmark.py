"""What every built-in suite is made of: tasks, numbered initial states, rules of success and progress, the embodiment that it is for."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from components.config.judging.suites import SUITES
from components.evaluation.suite import Case, installed_version
from components.simulation.interface import Simulator
from model_core.spec.contract import EmbodimentSpec, PolicyContract, mismatches
from model_core.spec.errors import ContractError, SpecError, require
from model_core.tokenization.compact.vocabulary import words_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteTask:
    """One task: the sentence by which it is asked for, and the tier in which published tables count it ("" for none)."""

    name: str
    instruction: str
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedResult:
    """What somebody published for this suite. scores: tier, or "" for the whole suite -> success in percent. differs: from a run here."""

    model: str
    scores: Mapping[str, float]
    source: str
    differs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(abc.ABC):
    """A built-in suite. It knows nothing of recipes; a worker process works with a copy.

    edition: changes with every change of its own that makes a case another one. states: numbers of the initial states of each task;
    first_seed: the seed of state 0. horizon: simulator steps of an episode at most. body: the embodiment as policies of it are controlled.
    settings: further rules of the environment. tiers: in the order of published tables. first, count, only: which states of which tasks are
    run (only: () for all).
    """

    name: str
    edition: str
    tasks: tuple[SuiteTask, ...]
    states: int
    horizon: int
    body: EmbodimentSpec
    success_rule: str
    progress_rule: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[PublishedResult, ...] = ()
    tiers: tuple[str, ...] = ()
    first_seed: int = 0
    first: int = 0
    count: int = 1
    only: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The edition, and the versions of the packages that decide its numbers."""
        packages = [f"{package} {installed_version(package)}" for package in SUITES[self.name].packages]
        return ", ".join([f"edition {self.edition}", *packages])

    @property
    def rules(self) -> Mapping[str, Any]:
        """What else decides a result: part of the report's protocol."""
        camera = self.body.cameras[0]
        return {
            "horizon_sim_steps": self.horizon,
            "image_size": [camera.width, camera.height],
            "cameras": [one.name for one in self.body.cameras],
            **self.settings,
        }

    @property
    def official_trials(self) -> int:
        """How many trials a task a published evaluation has."""
        return SUITES[self.name].trials

    @property
    def chosen_tasks(self) -> tuple[SuiteTask, ...]:
        """The tasks that are run."""
        return tuple(task for task in self.tasks if not self.only or task.name in self.only)

    def cases(self) -> Sequence[Case]:
        """State after state, the tasks in turn."""
        numbers = range(self.first, min(self.first + self.count, self.states))
        return [Case(task=task.name, seed=self.first_seed + number) for number in numbers for task in self.chosen_tasks]

    def chosen(self, *, tasks: Sequence[str] = (), first: int = 0, count: int = 1) -> Benchmark:
        """The same suite on `count` states of each of `tasks` (none: of all), from state `first`.

        Raises `SpecError` for what is not there.
        """
        known = {task.name for task in self.tasks}
        strangers = [name for name in tasks if name not in known]
        require(
            not strangers,
            f"suite {self.name!r} has no task {', '.join(strangers)}. Fix: `actwright suite show {self.name}` lists its tasks",
        )
        require(
            first >= 0 and count >= 1 and first + count <= self.states,
            f"suite {self.name!r} has {self.states} initial states a task (0 to {self.states - 1}); asked for {count} from {first}. "
            "Fix: ask for fewer",
        )
        return replace(self, only=tuple(tasks), first=first, count=count)

    def fitted(self, contract: PolicyContract) -> Benchmark:
        """This suite as the policy of `contract` sees and acts.

        Raises `ContractError` for another body, and for instructions that it refuses.
        """
        made = self.seen_by(contract.embodiment)
        if found := mismatches(contract.embodiment, made.body):
            raise ContractError(
                f"suite {self.name!r} is for the embodiment {self.body.name!r}, the policy is for {contract.embodiment.name!r}: "
                + "; ".join(one.explain() for one in found)
                + ". Fix: name a suite of the policy's embodiment (`actwright suite list`), or a policy of the suite's"
            )
        _check_instructions(made, contract)
        return made

    @abc.abstractmethod
    def seen_by(self, body: EmbodimentSpec) -> Benchmark:
        """This suite with the image sizes and the control rate of `body`, as far as they are the policy's to choose."""

    @abc.abstractmethod
    def open(self, case: Case) -> Simulator:
        """A simulator in which `reset` lays out `case`, and every other case of the suite afterwards."""


def _check_instructions(suite: Benchmark, contract: PolicyContract) -> None:
    """Every instruction that will be given is one that the policy takes: else the whole evaluation would be one of refusals."""
    refused: dict[str, str] = {}
    for task in suite.chosen_tasks:
        reason = contract.refused_instruction(task.instruction)
        unknown = sorted({*words_of(task.instruction)} - {*contract.words}) if contract.words else []
        if unknown and not reason:
            reason = f"the policy was never taught {', '.join(map(repr, unknown))}"
        if reason:
            refused[task.name] = f"{task.name} ({task.instruction!r}): {reason}"
    if refused:
        taken = [task.name for task in suite.chosen_tasks if task.name not in refused]
        fix = f"--tasks {','.join(taken)}" if taken else "a policy that was trained on tasks of this suite"
        told = "; ".join(list(refused.values())[:3]) + (f"; and {len(refused) - 3} more" if len(refused) > 3 else "")
        raise ContractError(
            f"suite {suite.name!r} asks in words that the policy does not take, for {len(refused)} of {len(suite.chosen_tasks)} tasks: "
            f"{told}. Fix: choose what it was taught ({fix})"
        )


def missing_packages(name: str) -> list[str]:
    """The packages of a suite that are not installed here."""
    return [package for package in SUITES[name].packages if installed_version(package) == "absent"]


def require_installed(name: str) -> None:
    """Raise `SpecError` where a package of the suite is not installed."""
    entry = SUITES[name]
    if missing := missing_packages(name):
        how = f"pip install 'actwright[{entry.extra}]'" if entry.extra else "make setup"
        raise SpecError(f"suite {name!r} is not installed here: {', '.join(missing)} missing. Fix: {how}")
