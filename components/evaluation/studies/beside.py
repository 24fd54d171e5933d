"""Finished studies beside each other: what both sides did with exact intervals, what the verdict showed, who cannot be told apart. Pure.

"Better" is said only where the study's own test said so. Rates of different studies are shown and not compared: their scenes differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.config.judging.verdict import Check, GateVerdict
from components.config.recipe import GateConfig
from components.evaluation.arena.pairs import grouped
from components.evaluation.judging.pairs import ALL_TASKS
from components.evaluation.studies.design import StudyDesign
from components.evaluation.studies.ledger import Ledger, Trial
from model_core.spec.documents import from_document
from model_core.statistics.intervals import PairCounts, clopper_pearson, tango

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRate:
    """One side on one task. low, high: exact 95 % interval of the success rate (Clopper-Pearson). score: mean of what a trial counted for,
    in 0..1."""

    successes: int
    trials: int
    low: float
    high: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBeside:
    """Both sides on one task, in pairs that are not void. wins: pairs in which only the candidate succeeded. difference: of the success
    rates, candidate's less champion's, with its 95 % interval (Tango). void: pairs that count for nothing."""

    task: str
    candidate: SideRate
    champion: SideRate
    wins: int
    losses: int
    difference: float
    low: float
    high: float
    void: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyBeside:
    """One study. candidate, champion: digests. shown: what its test showed, a sentence each. better, worse: digests where it showed that
    over all tasks, else "". alpha: how often its verdict may be wrong. head: last hash of its ledger."""

    study: str
    candidate: str
    champion: str
    setting: str
    metric: str
    tasks: tuple[TaskBeside, ...]
    outcome: str
    checks: tuple[Check, ...]
    shown: tuple[str, ...]
    better: str
    worse: str
    alpha: float
    trials: int
    head: str
    remarks: tuple[str, ...]


def study_beside(study: str, design: StudyDesign, ledger: Ledger, verdict: GateVerdict, names: Mapping[str, str]) -> StudyBeside:
    """What a study shows of itself. names: digest -> what the policy is called."""
    cfg = from_document(GateConfig, dict(design.gate), where=f"design of study {study}: gate")
    mine, theirs = (names.get(digest, digest[:12]) for digest in (design.candidate, design.champion))
    shown = tuple(_claims(verdict, mine, theirs))
    over_all = {ALL_TASKS, design.tasks[0]} if len(design.tasks) == 1 else {ALL_TASKS}
    states = {(kind, check.stands) for check in verdict.checks for kind, _, task in (check.name.partition("/"),) if task in over_all}
    order = (design.candidate, design.champion) if ("superior", "holds") in states else ("", "")
    if ("non-inferior", "fails") in states or ("superior", "fails") in states:
        order = (design.champion, design.candidate)
    remarks = [f"amended after trial {place}{f' by {one.by}' if one.by else ''}: {one.reason}" for place, one in ledger.amendments]
    if design.evaluated_before:
        remarks.append("the candidate's evaluation was finished before this design was locked")
    return StudyBeside(
        study=study,
        candidate=design.candidate,
        champion=design.champion,
        setting=design.setting,
        metric=design.metric,
        tasks=tuple(_task(task, ledger.trials) for task in design.tasks),
        outcome=verdict.decided,
        checks=verdict.checks,
        shown=shown or (f"No difference between {mine} and {theirs} was shown.",),
        better=order[0],
        worse=order[1],
        alpha=cfg.alpha,
        trials=len(ledger.trials),
        head=ledger.head,
        remarks=tuple(remarks),
    )


def groups_of_studies(found: Sequence[StudyBeside]) -> tuple[tuple[str, ...], ...]:
    """The policies of these studies in groups, the better ones first: a group ends only where tests showed that all above are better than
    all below."""
    shown = {(one.better, one.worse) for one in found if one.better}
    names = sorted({digest for one in found for digest in (one.candidate, one.champion)})
    rank = {name: sum(below == name for _, below in shown) - sum(above == name for above, _ in shown) for name in names}
    ordered = sorted(names, key=lambda name: (rank[name], name))
    numbers = grouped(ordered, shown)
    placed = list(zip(ordered, numbers, strict=True))
    return tuple(tuple(name for name, number in placed if number == group) for group in dict.fromkeys(numbers))


def joint_error(found: Sequence[StudyBeside]) -> float:
    """The probability that any of these verdicts is wrong, at most (Bonferroni)."""
    return min(1.0, sum(one.alpha for one in found))


def _claims(verdict: GateVerdict, mine: str, theirs: str) -> list[str]:
    told = []
    for check in verdict.checks:
        kind, _, where = check.name.partition("/")
        if kind == "superior" and check.stands == "holds":
            told.append(f"{mine} is better than {theirs} over {where}.")
        if kind in ("non-inferior", "superior") and check.stands == "fails":
            told.append(f"{mine} is worse than {theirs} on {where}.")
        if kind == "non-inferior" and check.stands == "holds" and check.needed is not None and check.needed > -1.0:
            told.append(f"{mine} is not worse than {theirs} by more than {-check.needed:.2g} on {where}.")
    return told


def _task(task: str, trials: Sequence[Trial]) -> TaskBeside:
    scenes: dict[tuple[int, int], dict[str, Trial]] = {}
    for trial in trials:
        if trial.task == task:
            scenes.setdefault((trial.block, trial.seed), {})[trial.side] = trial
    pairs = [(both["candidate"], both["champion"]) for both in scenes.values() if len(both) == 2]
    good = [(mine, theirs) for mine, theirs in pairs if not (mine.void or theirs.void)]
    outcomes = [(mine.success, theirs.success) for mine, theirs in good]
    counts = PairCounts(
        both=outcomes.count((True, True)),
        wins=outcomes.count((True, False)),
        losses=outcomes.count((False, True)),
        neither=outcomes.count((False, False)),
    )
    low, high = tango(counts, CONFIDENCE) if good else (-1.0, 1.0)
    return TaskBeside(
        task=task,
        candidate=_of_trials([mine for mine, _ in good]),
        champion=_of_trials([theirs for _, theirs in good]),
        wins=counts.wins,
        losses=counts.losses,
        difference=counts.difference if good else 0.0,
        low=low,
        high=high,
        void=len(pairs) - len(good),
    )


def _of_trials(trials: Sequence[Trial]) -> SideRate:
    score = sum(trial.score for trial in trials) / len(trials) if trials else 0.0
    return side_rate(sum(trial.success for trial in trials), len(trials), score)


def side_rate(successes: int, trials: int, score: float = 0.0) -> SideRate:
    """Counts with their exact interval; 0 to 1 without trials."""
    low, high = clopper_pearson(successes, trials, CONFIDENCE) if trials else (0.0, 1.0)
    return SideRate(successes=successes, trials=trials, low=low, high=high, score=score)
