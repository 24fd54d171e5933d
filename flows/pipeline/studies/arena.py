"""Finished evaluations, found by what their commands printed, and the arena of them: files in a folder of the runs, runs of the tracker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.config.judging.suite_stages import SUITE
from components.config.ports import Metric
from components.config.records import EvalReport
from flows.pipeline.stages.suite import RESULT, read_result
from flows.platform.wiring import Platform
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from components.evaluation.arena.standings import ArenaResult, ArenaRules, Evaluated, Standing
    from components.evaluation.suites.results import SuiteResult

ARENA, TABLE, PICTURE, PAGE = "arena.json", "arena.md", "arena.svg", "page.html"
REPORT, SUMMARY = "report.json", "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaRequest:
    """What is compared. evaluations: "PLACE" or "NAME=PLACE". command: how a person would make it again."""

    evaluations: tuple[str, ...]
    rules: ArenaRules
    command: str


def run_arena(platform: Platform, asked: ArenaRequest) -> tuple[ArenaResult, Path]:
    """Compare the policies, write arena.json, arena.md, arena.svg and page.html, and record a run of the tracker for each policy.

    Returns the standings and the folder. Raises `SpecError` for an evaluation that is not found, and as `arena_of` does.
    """
    from components.evaluation.arena.standings import arena_of

    result = arena_of(_named([evaluated(platform, words) for words in asked.evaluations]), asked.rules)
    return result, write_arena(platform, result, asked.command)


def write_arena(platform: Platform, result: ArenaResult, command: str) -> Path:
    """Write the files of an arena and record its runs; returns the folder. command: what makes it again."""
    from components.evaluation.arena.documents import arena_markdown
    from components.report.arena import arena_page, arena_picture

    folder = platform.settings.runs / f"arena-{result.suite.rpartition(':')[2] or 'cases'}-{result.key[:12]}"
    atomic_write(folder / ARENA, json.dumps(to_document(result), indent=1, sort_keys=True) + "\n")
    atomic_write(folder / TABLE, arena_markdown(result))
    atomic_write(folder / PICTURE, arena_picture(result))
    atomic_write(folder / PAGE, arena_page(result, command))
    for one in result.standings:
        _log(platform, result, one, (folder / PAGE).read_text(encoding="utf-8"))
    return folder


def evaluated(platform: Platform, words: str) -> Evaluated:
    """The evaluation that "PLACE" or "NAME=PLACE" names; without a name it is called by the first digits of its checkpoint.

    PLACE: a folder of `actwright suite run` or `actwright run`, or of a step with a report.json. Raises `SpecError` where it is none.
    """
    from components.evaluation.arena.standings import Evaluated

    name, is_named, place = words.rpartition("=")
    if is_named and not name:
        raise SpecError(f"{words!r}: expected NAME=EVALUATION, got no name. Fix: write the name, or the folder alone")
    report = find_report(platform, Path(place).expanduser())
    return Evaluated(name=name or report.checkpoint_digest[:12], report=report)


def find_report(platform: Platform, place: Path) -> EvalReport:
    """The rows of an evaluation. Raises `SpecError` for a place that names none, or whose rows are not in this home."""
    if (place / REPORT).is_file() or place.name == REPORT:
        return _read_report(place if place.name == REPORT else place / REPORT)
    if (place / RESULT).is_file() or place.name == RESULT:
        return _rows_of(platform, read_result(place), place)
    if (place / SUMMARY).is_file():
        digest = str(json.loads((place / SUMMARY).read_text(encoding="utf-8"))["stages"]["evaluate"]["digest"])
        step = platform.store.by_digest("evaluate", digest)
        if step is None:
            raise SpecError(
                f"{place}: its evaluation {digest[:12]} is not in {platform.store.root}. Fix: run the same command again, in this home"
            )
        return _read_report(step.path / REPORT)
    raise SpecError(
        f"{place}: expected a finished evaluation, got none. Fix: name the folder that `actwright suite run` or `actwright run` printed, "
        "or one with a report.json"
    )


def _rows_of(platform: Platform, result: SuiteResult, place: Path) -> EvalReport:
    """The rows that a result was counted from, among the finished evaluations on suites: a result holds sums, and pairs need cases."""
    from components.evaluation.suite import open_benchmark

    first, last = result.states
    tasks = tuple(row.name for row in result.tasks)
    cases = {
        (case.seed, case.task) for case in open_benchmark(result.suite).chosen(tasks=tasks, first=first, count=last - first + 1).cases()
    }
    for step in reversed(platform.store.steps(SUITE.name)):
        report = _read_report(step.path / REPORT)
        is_same = report.checkpoint_digest == result.policy and dict(report.protocol) == dict(result.rules)
        if is_same and {(row.seed, row.task) for row in report.episodes} == cases:
            return report
    raise SpecError(
        f"{place}: the cases that it was counted from are not in {platform.store.root}, and sums cannot be paired. Fix: run the command "
        "of its page again, in this home"
    )


def _read_report(file: Path) -> EvalReport:
    try:
        return from_document(EvalReport, json.loads(file.read_text(encoding="utf-8")), where=str(file))
    except (OSError, ValueError) as error:
        raise SpecError(f"{file}: expected the report of an evaluation, got {error}. Fix: name the folder of a finished one") from error


def _named(entries: Sequence[Evaluated]) -> list[Evaluated]:
    """One checkpoint at several levels of reasoning is several policies: where names are equal, the level follows the name."""
    from dataclasses import replace

    names = [one.name for one in entries]
    return [
        replace(one, name=f"{one.name} {one.report.protocol.get('reasoning', '')}".strip()) if names.count(one.name) > 1 else one
        for one in entries
    ]


def _log(platform: Platform, result: ArenaResult, one: Standing, page: str) -> None:
    """A run for each policy, so that MLflow's page compares them; the same arena again is the same run."""
    tracker = platform.tracker()
    params: dict[str, Any] = {"suite": result.suite, "version": result.version, "policy": one.policy, "contract": one.contract}
    params |= {"cases": result.cases, "rules": to_document(result.rules), "policy_rules": dict(one.rules)}
    tags = {"stage": "arena", "arena": result.key, "policy_name": one.name, "group": str(one.group)}
    run_id = f"arena-{result.key}-{[other.name for other in result.standings].index(one.name)}"
    tracker.start_run(f"arena {one.name}", params, tags, run_id=run_id)
    values = {"elo": one.rating, "elo_low": one.rating_low, "elo_high": one.rating_high, "group": one.group}
    values |= {"success_rate": one.rate, "success_low": one.low, "success_high": one.high, "mean_progress": one.mean_progress}
    values |= {f"success/{task}": successes / trials for task, (successes, trials) in one.by_task.items()}
    tracker.log_metrics([Metric(name, float(value), 0) for name, value in values.items()])
    tracker.log_text(PAGE, page)
    tracker.finish()
