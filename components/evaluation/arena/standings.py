"""Several policies on the same cases: Bradley-Terry ratings with intervals, and the groups that the tests could tell apart.

As preferences between policies are reported (MolmoAct, arXiv 2508.07917, section 5.5: Elo ratings from votes on two at a time), with the
outcomes of a case in place of votes: the policy with the higher score beats the other, equal scores are a tie. Which of two is better is
decided by the test of that pair, never by ratings: their intervals say nothing about a difference. Pure: reports in, standings out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from components.config.records import EvalReport, RolloutRow
from components.evaluation.arena.pairs import PairResult, all_pairs, groups_of
from components.evaluation.judging.comparison import by_scene
from components.evaluation.suites.results import CONFIDENCE
from model_core.spec.contract import digest_of
from model_core.spec.errors import SpecError, require
from model_core.spec.types import StopReason
from model_core.statistics.binomial import FloatArray
from model_core.statistics.bradley_terry import elo_ratings, outcomes_of_scores, strengths_with_intervals
from model_core.statistics.intervals import clopper_pearson

OF_THE_POLICY = ("control_hz", "execute_horizon", "reasoning", "steering")  # rules that a policy brings; they may differ and are shown
_UNCOMPARED = frozenset((*OF_THE_POLICY, "first_seed"))  # the cases themselves say where they begin
Score = Literal["success", "progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A policy under a name of the reader's choice, and what it did."""

    name: str
    report: EvalReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaRules:
    """What is declared. score: what is compared in a case: success, or the stage of the task that was reached. alpha: the probability of
    any wrong "better" among all pairs. resamples, seed: of the bootstrap.
    """

    score: Score = "success"
    alpha: float = 0.05
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        require(0.0 < self.alpha < 1.0, "alpha must be between 0 and 1", got=self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One policy. group: 1 is the highest. rating with rating_low and rating_high: Elo's scale, mean 1000, 95 % interval of the bootstrap.

    low, high: exact 95 % interval of the success rate. missing: cases that others had, and that it was not run on or the simulator broke.
    by_task: task -> (successes, trials). rules: those that the policy brings, such as its level of reasoning.
    """

    name: str
    policy: str
    contract: str
    group: int
    rating: float
    rating_low: float
    rating_high: float
    successes: int
    trials: int
    low: float
    high: float
    missing: int
    mean_progress: float
    by_task: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Success rate; 0 without trials."""
        return self.successes / self.trials if self.trials else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaResult:
    """Standings, the highest rating first, and every pair. added_ties: of each pair, so that ratings are finite: 0 or 1."""

    suite: str
    version: str
    rules: ArenaRules
    cases: int
    tasks: tuple[str, ...]
    standings: tuple[Standing, ...]
    pairs: tuple[PairResult, ...]
    added_ties: float

    @property
    def key(self) -> str:
        """16 hex digits that name what was compared, and how."""
        policies = sorted([one.name, one.policy, sorted(one.rules.items()), one.successes, one.trials] for one in self.standings)
        rules = [self.rules.score, self.rules.alpha, self.rules.resamples, self.rules.seed]
        return digest_of([self.suite, self.version, rules, self.cases, list(self.tasks), policies])[:16]


def arena_of(entries: Sequence[Evaluated], rules: ArenaRules | None = None) -> ArenaResult:
    """Compare the policies; the order of `entries` changes nothing.

    Raises `SpecError` for fewer than two, equal names, evaluations of other trials (suite, version, rules), and policies that no chain of
    common cases joins.
    """
    rules, entries = rules or ArenaRules(), sorted(entries, key=lambda one: one.name)
    names = [one.name for one in entries]
    _check(entries)
    rows = [by_scene(one.report) for one in entries]
    scenes = sorted({scene for found in rows for scene in found}, key=lambda scene: (scene[1], scene[0]))
    scores = np.array([[_score(found.get(scene), rules.score) for found in rows] for scene in scenes])
    pairs = all_pairs(names, scores, rules.alpha)
    _check_joined(names, pairs)
    tasks = [task for _, task in scenes]
    found = strengths_with_intervals(outcomes_of_scores(scores), tasks, confidence=CONFIDENCE, resamples=rules.resamples, seed=rules.seed)
    ratings = np.stack([elo_ratings(part) for part in (found.log_strengths, found.low, found.high)], axis=1)
    order = sorted(range(len(names)), key=lambda place: (-ratings[place, 0], names[place]))
    groups = groups_of([names[place] for place in order], pairs)
    first = entries[0].report.protocol
    return ArenaResult(
        suite=str(first.get("suite", "")),
        version=str(first.get("suite_version", "")),
        rules=rules,
        cases=len(scenes),
        tasks=tuple(sorted(set(tasks))),
        standings=tuple(
            _standing(entries[place], group, ratings[place], int(np.isnan(scores[:, place]).sum()))
            for place, group in zip(order, groups, strict=True)
        ),
        pairs=pairs,
        added_ties=found.added_ties,
    )


def _check(entries: Sequence[Evaluated]) -> None:
    names = [one.name for one in entries]
    require(len(names) >= 2, "an arena needs two policies or more. Fix: name further evaluations", got=len(names))
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "policies need names of their own. Fix: write NAME=EVALUATION for each", got=twice)
    first = entries[0].report
    for other in entries:
        if not any(row.stop_reason != StopReason.ENV_ERROR for row in other.report.episodes):
            raise SpecError(f"{other.name}: expected trials in closed loop, got none. Fix: name an evaluation on a suite or in a simulator")
        rules = sorted({*first.protocol, *other.report.protocol} - _UNCOMPARED)
        both = [(rule, first.protocol.get(rule), other.report.protocol.get(rule)) for rule in rules]
        if unlike := [f"{rule} {ours!r} and {theirs!r}" for rule, ours, theirs in both if ours != theirs]:
            raise SpecError(
                f"{entries[0].name} and {other.name} were not judged on the same trials: {'; '.join(unlike)}. Fix: run both on one version "
                "of one suite: `actwright suite run SUITE POLICY`"
            )


def _check_joined(names: Sequence[str], pairs: Sequence[PairResult]) -> None:
    """Raise `SpecError` unless chains of common cases join all policies: without them no rating compares two parts."""
    joined = {names[0]}
    for _ in names:
        for pair in pairs:
            if pair.cases and not joined.isdisjoint((pair.first, pair.second)):
                joined |= {pair.first, pair.second}
    if apart := sorted(set(names) - joined):
        raise SpecError(
            f"{', '.join(apart)} and {', '.join(sorted(joined))} have no case in common, not even through others, so nothing compares "
            "them. Fix: run them on the same initial states (--first and --cases of `actwright suite run`)"
        )


def _standing(one: Evaluated, group: int, ratings: FloatArray, missing: int) -> Standing:
    report = one.report
    trials = [row for row in by_scene(report).values() if row.stop_reason != StopReason.ENV_ERROR]
    successes = sum(row.success for row in trials)
    low, high = clopper_pearson(successes, len(trials), CONFIDENCE)
    rating, rating_low, rating_high = (round(float(value), 3) for value in ratings)
    of_task = {task: [row.success for row in trials if row.task == task] for task in sorted({row.task for row in trials})}
    return Standing(
        name=one.name,
        policy=report.checkpoint_digest,
        contract=report.contract_id,
        group=group,
        rating=rating,
        rating_low=rating_low,
        rating_high=rating_high,
        successes=successes,
        trials=len(trials),
        low=low,
        high=high,
        missing=missing,
        mean_progress=round(sum(_score(row, "progress") for row in trials) / len(trials), 6),
        by_task={task: (sum(found), len(found)) for task, found in of_task.items()},
        rules={rule: str(report.protocol[rule]) for rule in OF_THE_POLICY if rule in report.protocol},
    )


def _score(row: RolloutRow | None, score: Score) -> float:
    if row is None or row.stop_reason == StopReason.ENV_ERROR:
        return math.nan
    return float(row.success) if score == "success" else max(row.progress, float(row.success))  # older reports have no progress
