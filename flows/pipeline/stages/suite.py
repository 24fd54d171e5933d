"""A policy on a built-in suite, as one resumable step of the store; nothing of it belongs to a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.artifacts.code_version import code_version
from components.artifacts.files import dataset_digest
from components.artifacts.step_manifest import checkpoint_digest
from components.artifacts.step_store import run_step
from components.config.data_config import CollectConfig
from components.config.judging.suite_stages import RECORDED, SUITE
from components.config.judging.suites import suite_entry
from components.config.recipe import EvalConfig
from components.config.records import EvalReport, Progress
from flows.platform.wiring import Platform
from model_core.contracts import read_contracts
from model_core.spec.contract import PolicyContract
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import CheckpointError, ContractError, SpecError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from components.evaluation.suites.recorded import RecordedResult
    from components.evaluation.suites.results import SuiteResult

STEERING = ("none", "whole", "ahead")  # of `EvalConfig.steering`
RESULT, TABLE, PAGE = "result.json", "result.md", "page.html"


class SpreadCases(Protocol):
    """Has the cases of an evaluation run elsewhere, with their results in `out`."""

    def __call__(self, cfg: EvalConfig, checkpoint: Path, out: Path, progress: Progress) -> None:
        """Return when all are finished; raises `JobError` where they cannot be."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRequest:
    """What is run. suite: its name. checkpoint: the policy. tasks: () for all. states: of each task, from number `first`; 0: as many as a
    published evaluation has. reasoning: "" for the level that the policy answers at by default. steering: see `EvalConfig`. command: how a
    person would run it again. spread: has the cases run on a cluster; none: here.
    """

    suite: str
    checkpoint: Path
    command: str
    tasks: tuple[str, ...] = ()
    states: int = 0
    first: int = 0
    reasoning: str = ""
    steering: str = "none"
    workers: int = 2
    batch: int = 10
    spread: SpreadCases | None = None


def run_suite(platform: Platform, asked: SuiteRequest, progress: Progress) -> tuple[SuiteResult, Path]:
    """Run it, or go on where it was stopped; writes result.json, result.md and page.html into a folder of the runs, and returns both.

    Raises `SpecError` for a suite that is unknown or not installed and for cases that it does not have, `ContractError` for a policy that
    it is not for.
    """
    from components.evaluation.evaluate import evaluate
    from components.evaluation.suite import open_suite
    from components.evaluation.suites.benchmark import Benchmark
    from components.evaluation.suites.results import result_of

    entry = suite_entry(asked.suite)
    if entry is None:
        raise SpecError(
            f"{asked.suite!r} is no built-in suite. Fix: name one that `actwright suite list` shows, or evaluate a recipe that names it"
        )
    cfg = _config(asked, entry.trials)
    suite = open_suite(cfg, CollectConfig())
    assert isinstance(suite, Benchmark)

    def work(out: Path) -> Mapping[str, Any]:
        if asked.spread is not None:
            asked.spread(cfg, asked.checkpoint, out, progress)
        return evaluate(cfg, asked.checkpoint, out, progress, suite=suite)

    step = run_step(
        platform.store,
        stage=SUITE.name,
        config={"evaluate": cfg},
        inputs={"checkpoint": checkpoint_digest(asked.checkpoint)},
        work=work,
        code_version=code_version((*SUITE.modules, entry.module), (*SUITE.packages, *entry.packages)),
    ).step
    report = from_document(EvalReport, json.loads((step.path / "report.json").read_text(encoding="utf-8")))
    result = result_of(suite, report)
    return result, _written(platform, result, asked.command)


def take_in(platform: Platform, file: Path, checkpoint: Path, command: str) -> tuple[SuiteResult, Path]:
    """A result of vla-eval as one of ours, for the policy that its episodes were run with; where it was written.

    Raises `SpecError` for a file that is none.
    """
    from components.evaluation.suites.foreign import result_of_vla_eval

    result = result_of_vla_eval(_foreign(file), checkpoint_digest(checkpoint), _first_contract(checkpoint).contract_id)
    return result, _written(platform, result, command)


def taken_in(file: Path, checkpoint: Path) -> EvalReport:
    """The episodes of a result of vla-eval as trials of the policy in `checkpoint`. Raises `SpecError` for a file that is none."""
    from components.evaluation.suites.foreign import report_of_vla_eval

    return report_of_vla_eval(_foreign(file), checkpoint_digest(checkpoint), _first_contract(checkpoint).contract_id)


def _foreign(file: Path) -> Mapping[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{file}: expected a result of vla-eval, got {error}. Fix: name the aggregate JSON that it wrote") from error


def run_recorded(platform: Platform, checkpoint: Path, frozen: Path, reasoning: str, progress: Progress) -> tuple[RecordedResult, Path]:
    """A policy on the held-out episodes of a frozen data set: its error in each dimension and the likelihood of what was recorded.

    Writes result.json and result.md into a folder of the runs, and returns both. Raises `SpecError` for a set of several embodiments,
    `DatasetError` for a folder that is none, `ContractError` for a set of another embodiment than the policy's.
    """
    from components.data.frozen_members import open_frozen
    from components.evaluation.suites.held_out import evaluate_open_loop
    from components.evaluation.suites.recorded import likelihood_of, recorded_markdown, recorded_result
    from model_core.spec.contract import mismatches

    contract, members = _first_contract(checkpoint), open_frozen(frozen).members
    if len(members) != 1:
        named = ", ".join(str(one.folder) for one in members)
        raise SpecError(f"{frozen} holds {len(members)} embodiments. Fix: name the folder of one: {named}")
    if found := mismatches(contract.embodiment, members[0].contract.embodiment):
        told = "; ".join(one.explain() for one in found)
        raise ContractError(f"{frozen} was recorded with another embodiment than the policy's: {told}. Fix: name a set of its embodiment")
    cfg = EvalConfig(
        reasoning=_level(contract, reasoning), execute_horizon=contract.execute_horizon, image_swap_frames=0, min_image_swap_change=0.0
    )

    def work(out: Path) -> Mapping[str, Any]:
        record = evaluate_open_loop(cfg, checkpoint, frozen, out, progress)
        try:
            likelihood, lack = likelihood_of(checkpoint, members[0].folder), ""
        except CheckpointError as error:
            likelihood, lack = {}, f"No likelihood was measured: {error}."
        units = {dim.name: dim.unit for dim in contract.embodiment.action.dims}
        result = recorded_result(from_document(EvalReport, record), units, likelihood, lack)
        return {"result": to_document(result)}

    step = run_step(
        platform.store,
        stage=RECORDED.name,
        config={"evaluate": cfg},
        inputs={"checkpoint": checkpoint_digest(checkpoint), "frozen": dataset_digest(frozen)},
        work=work,
        code_version=code_version(RECORDED.modules, RECORDED.packages),
    ).step
    result = from_document(_recorded_kind(), step.record["result"])
    folder = platform.settings.runs / f"suite-recorded-{result.policy[:12]}-{step.digest[:8]}"
    atomic_write(folder / RESULT, json.dumps(to_document(result), indent=1, sort_keys=True) + "\n")
    atomic_write(folder / TABLE, recorded_markdown(result))
    return result, folder


def _recorded_kind() -> type[RecordedResult]:
    from components.evaluation.suites.recorded import RecordedResult

    return RecordedResult


def read_result(path: Path) -> SuiteResult:
    """A result that `run_suite` wrote: its result.json, or the folder that holds it. Raises `SpecError` where it is none."""
    from components.evaluation.suites.results import SuiteResult

    file = path / RESULT if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{file}: expected the result of `actwright suite run`, got {error}. Fix: name the folder that the command printed"
        ) from error
    return from_document(SuiteResult, document, where=str(file))


def _config(asked: SuiteRequest, official: int) -> EvalConfig:
    contract = _first_contract(asked.checkpoint)
    return EvalConfig(
        steering=_steering(contract, asked.steering),
        suite=asked.suite,
        tasks=asked.tasks,
        first_state=asked.first,
        seeds_per_task=asked.states or official,
        execute_horizon=contract.execute_horizon,
        reasoning=_level(contract, asked.reasoning),
        batch=asked.batch,
        workers=asked.workers,
        image_swap_frames=0,
        min_image_swap_change=0.0,
    )


def _level(contract: PolicyContract, named: str) -> Any:
    """The level that is asked for: the named one, else the policy's own."""
    level = named or contract.reasoning.levels[0]
    if level not in contract.reasoning.levels:
        known = ", ".join(contract.reasoning.levels)
        raise SpecError(f"--reasoning {level}: the policy answers at {known}. Fix: name one of these, or none")
    return level


def _steering(contract: PolicyContract, named: str) -> Any:
    if named not in STEERING:
        raise SpecError(f"--steering {named}: expected {', '.join(STEERING)}. Fix: name one of these")
    if named != "none" and not contract.reasoning.steering:
        raise SpecError(f"--steering {named}: this policy takes no traces (reasoning.steering of its contract is false). Fix: leave it out")
    return named


def _first_contract(checkpoint: Path) -> PolicyContract:
    """Of the one embodiment, or of the first of several: chunks and levels are the network's."""
    return next(iter(read_contracts(checkpoint).values()))


def _written(platform: Platform, result: SuiteResult, command: str) -> Path:
    from components.evaluation.suites.results import markdown
    from components.report.reproduction import reproduction_page

    name = result.suite.replace("/", "-")
    folder = platform.settings.runs / f"suite-{name}-{result.policy[:12]}-{result.key[:8]}"
    atomic_write(folder / RESULT, json.dumps(to_document(result), indent=1, sort_keys=True) + "\n")
    atomic_write(folder / TABLE, markdown(result))
    atomic_write(folder / PAGE, reproduction_page([result], command))
    return folder
