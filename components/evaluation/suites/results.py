"""What a policy reached on a suite: per task, per tier and altogether, each with an exact interval. Pure: a suite and a report in.

An interval over several tasks is that of Clopper and Pearson for the pooled trials. With as many trials of each task it covers the mean of
the tasks' rates: unequal rates only make a sum of successes vary less than a binomial one (Hoeffding 1956, Ann. Math. Statist. 27:713-721).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from components.config.records import EvalReport, RolloutRow
from components.evaluation.intervals import percent
from components.evaluation.suites.benchmark import Benchmark, PublishedResult
from model_core.spec.contract import digest_of
from model_core.spec.errors import SpecError, require
from model_core.spec.types import StopReason
from model_core.statistics.intervals import clopper_pearson

TIER_MEAN = "mean of tiers"
CONFIDENCE = 0.95
UNSEEN = frozenset(("first_seed",))  # of the protocol: a suite numbers its states itself


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """Trials of one task, one tier or all. low, high: exact 95 % interval. void: trials that the simulator broke. progress: mean stage."""

    name: str
    successes: int
    trials: int
    low: float
    high: float
    void: int = 0
    progress: float = 0.0

    @property
    def rate(self) -> float:
        """Success rate; 0 without trials."""
        return self.successes / self.trials if self.trials else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """A policy on a suite. policy: digest of its checkpoint. rules: the protocol of the report. task_mean, tier_mean: means of rates, as
    some tables have them (tier_mean: None where the suite has no tiers). states: the first and the last that was run. published: of
    others, for comparison. lack: in what the run falls short of the whole suite.
    """

    suite: str
    version: str
    policy: str
    contract: str
    rules: Mapping[str, Any]
    tasks: tuple[ScoreRow, ...]
    whole: ScoreRow
    task_mean: float
    tiers: tuple[ScoreRow, ...] = ()
    tier_mean: float | None = None
    success_rule: str = ""
    progress_rule: str = ""
    states: tuple[int, int] = (0, 0)
    published: tuple[PublishedResult, ...] = ()
    lack: tuple[str, ...] = field(default=())

    @property
    def key(self) -> str:
        """16 hex digits that name the trials: results of equal keys are of the same ones."""
        rules = {name: value for name, value in self.rules.items() if name not in UNSEEN}
        return digest_of([self.suite, self.version, rules, list(self.states), [row.name for row in self.tasks]])[:16]

    def of_tier(self, tier: str) -> float | None:
        """Success rate (0..1) of a tier, of the whole suite (""), or the mean of tiers; None for a tier that this result does not have."""
        if tier == TIER_MEAN:
            return self.tier_mean
        return self.whole.rate if not tier else next((row.rate for row in self.tiers if row.name == tier), None)


def result_of(suite: Benchmark, report: EvalReport) -> SuiteResult:
    """Count the trials of `report`, an evaluation on `suite`."""
    tier_of = {task.name: task.tier for task in suite.chosen_tasks}
    tiers = [_row(tier, [row for row in report.episodes if tier_of.get(row.task) == tier]) for tier in suite.tiers]
    tiers = [tier for tier in tiers if tier.trials]
    return replace(
        result_of_tasks(report, list(tier_of), (suite.first, suite.first + suite.count - 1)),
        tiers=tuple(tiers),
        tier_mean=_mean(row.rate for row in tiers) if tiers else None,
        success_rule=suite.success_rule,
        progress_rule=suite.progress_rule,
        published=suite.published,
        lack=_lacks(suite),
    )


def result_of_tasks(report: EvalReport, tasks: Sequence[str], states: tuple[int, int]) -> SuiteResult:
    """Count the trials of `report`, task by task. states: the first and the last that was run."""
    by_task = [_row(task, [row for row in report.episodes if row.task == task]) for task in tasks]
    return SuiteResult(
        suite=str(report.protocol["suite"]),
        version=str(report.protocol["suite_version"]),
        policy=report.checkpoint_digest,
        contract=report.contract_id,
        rules=dict(report.protocol),
        tasks=tuple(by_task),
        whole=_row("all", report.episodes),
        task_mean=_mean(row.rate for row in by_task if row.trials),
        states=states,
    )


def check_same_suite(results: Sequence[SuiteResult]) -> None:
    """Raise `SpecError` unless all results are of one suite, version and set of rules: only then are they of the same trials."""
    first = results[0]
    for other in results[1:]:
        unlike = [
            f"{name} {ours!r} and {theirs!r}"
            for name, ours, theirs in (
                ("suite", first.suite, other.suite),
                ("suite version", first.version, other.version),
                *((rule, first.rules.get(rule), other.rules.get(rule)) for rule in sorted({*first.rules, *other.rules} - UNSEEN)),
                ("states", list(first.states), list(other.states)),
                ("tasks", [row.name for row in first.tasks], [row.name for row in other.tasks]),
            )
            if ours != theirs
        ]
        if unlike:
            raise SpecError(
                f"policies {first.policy[:12]} and {other.policy[:12]} were not judged on the same trials: {'; '.join(unlike)}. "
                f"Fix: run the older one again: `actwright suite run {first.suite} POLICY`"
            )


def markdown(result: SuiteResult) -> str:
    """The result as a table, with what was published for the suite beside it."""
    lines = [
        f"# {result.suite}: {result.whole.successes} of {result.whole.trials} solved ({percent(result.whole.rate)})",
        "",
        f"Policy {result.policy[:16]}, contract {result.contract}, suite version: {result.version}; initial states {result.states[0]} to "
        f"{result.states[1]} of each task.",
        "",
        "| task | solved | rate | exact 95 % interval | mean progress | void |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in (*result.tasks, *result.tiers, result.whole)),
        "",
        f"Mean of the tasks {percent(result.task_mean)}"
        + (f", mean of the tiers {percent(result.tier_mean)}" if result.tier_mean is not None else "")
        + ".",
        "",
        *(f"- {sentence}" for sentence in result.lack),
    ]
    if result.published:
        lines += ["", "## Published, for comparison", "", "| model | numbers (%) | source |", "|---|---|---|"]
        lines += [f"| {one.model} | {_numbers(one.scores)} | {one.source} |" for one in result.published]
        lines += ["", *(f"What differs: {text}." for text in dict.fromkeys(one.differs for one in result.published))]
    return "\n".join(lines) + "\n"


def _row(name: str, episodes: Iterable[RolloutRow]) -> ScoreRow:
    rows = list(episodes)
    trials = [row for row in rows if row.stop_reason != StopReason.ENV_ERROR]
    successes = sum(row.success for row in trials)
    low, high = clopper_pearson(successes, len(trials), CONFIDENCE)
    progress = _mean(row.progress for row in trials)
    return ScoreRow(
        name=name, successes=successes, trials=len(trials), low=low, high=high, void=len(rows) - len(trials), progress=round(progress, 6)
    )


def _lacks(suite: Benchmark) -> tuple[str, ...]:
    """In what this run falls short of the whole suite, in sentences."""
    require(suite.count >= 1, "a suite is run on at least one state")
    found = []
    if len(suite.chosen_tasks) < len(suite.tasks):
        found.append(f"{len(suite.chosen_tasks)} of the suite's {len(suite.tasks)} tasks were run.")
    if (official := suite.official_trials) > suite.count:
        found.append(f"{suite.count} trials a task were run; a published evaluation has {official}.")
    return tuple(found)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _line(row: ScoreRow) -> str:
    return (
        f"| {row.name} | {row.successes}/{row.trials} | {percent(row.rate)} | {percent(row.low)} to {percent(row.high)} | "
        f"{row.progress:.2f} | {row.void} |"
    )


def _numbers(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{tier} {score:g}" if tier else f"{score:g}" for tier, score in scores.items())
