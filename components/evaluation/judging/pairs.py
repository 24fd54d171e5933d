"""Champion against candidate on pairs: one trial each from one initial state.

A trial that the simulator broke is void, by this rule and never by choice, and voids its pair: nothing of the pair counts. The tests are
looked at after each round: the two evaluations are the first, every block of pairs that follows is another.

    non-inferior/<task>     the difference of success rates is above -`margin`. Every task must be shown, so each is tested at alpha
                            (intersection-union test). "Fails" names a task on which the candidate was shown to be worse by more: corrected
                            for the number of tasks (Holm), for any one of them would do.
    non-inferior/all tasks  of all pairs together, above -`margin` / sqrt(tasks)
    superior/all tasks      of all pairs together, above 0; only where the recipe claims superiority
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np

from components.config.judging.verdict import NOT_ENOUGH, Check, State
from components.config.recipe import GateConfig
from components.config.records import EvalReport
from components.evaluation.judging.comparison import by_scene
from model_core.spec.types import StopReason
from model_core.statistics.betting import BettingDesign, betting_test_of_counts, log_evidence_of_counts
from model_core.statistics.decision import Decision, Outcome
from model_core.statistics.group_sequential import GroupSequentialDesign, group_sequential_test
from model_core.statistics.intervals import PairCounts, tango
from model_core.statistics.multiplicity import holm

Rounds = Sequence[tuple[EvalReport, EvalReport]]  # candidate and champion on the same scenes, in order of work
ALL_TASKS = "all tasks"
_MOST_ADVISED = 5_000


class Pair(NamedTuple):
    """Both trials of one initial state."""

    task: str
    seed: int
    candidate: bool
    champion: bool

    @property
    def difference(self) -> int:
        """1: only the candidate succeeded; -1: only the champion; 0: both or neither."""
        return int(self.candidate) - int(self.champion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Every pair, by round, and how many were void, by task. tasks: of the champion, how many there are. counts: see `looks`."""

    rounds: tuple[tuple[Pair, ...], ...]
    void: Mapping[str, int]
    tasks: int
    counts: Mapping[str, list[PairCounts]]

    def looks(self, task: str = "") -> list[PairCounts]:
        """The counts of all pairs so far, of one task or of all, after each round that brought some: when the test is looked at."""
        return self.counts.get(task, [])

    @property
    def differences(self) -> list[int]:
        """Of every pair, in order."""
        return [pair.difference for found in self.rounds for pair in found]


NO_PAIRS = PairCounts(both=0, wins=0, losses=0, neither=0)


def added(first: PairCounts, second: PairCounts) -> PairCounts:
    """The pairs of both."""
    return PairCounts(
        both=first.both + second.both,
        wins=first.wins + second.wins,
        losses=first.losses + second.losses,
        neither=first.neither + second.neither,
    )


def pairs_of(rounds: Rounds, tasks: Sequence[str]) -> Pairs:
    """Pair the trials of both sides by task and seed. A seed that only one side has is no pair."""
    found: list[tuple[Pair, ...]] = []
    void: dict[str, int] = {}
    for candidate, champion in rounds:
        mine, theirs = by_scene(candidate), by_scene(champion)
        block: list[Pair] = []
        for seed, task in sorted(scene for scene in mine.keys() & theirs.keys() if scene[1] in tasks):
            ours, other = mine[seed, task], theirs[seed, task]
            if StopReason.ENV_ERROR in (ours.stop_reason, other.stop_reason):
                void[task] = void.get(task, 0) + 1
            else:
                block.append(Pair(task, seed, ours.success, other.success))
        found.append(tuple(block))
    return Pairs(rounds=tuple(found), void=void, tasks=len(tasks), counts=_counts_by_task(found))


def _counts_by_task(rounds: Sequence[Sequence[Pair]]) -> dict[str, list[PairCounts]]:
    """Of each task, and under "" of all together."""
    counts: dict[str, list[PairCounts]] = {}
    for found in rounds:
        by_task: dict[str, list[Pair]] = {}
        for pair in found:
            by_task.setdefault(pair.task, []).append(pair)
        fresh = {task: counts_of(mine) for task, mine in by_task.items()}
        if fresh:
            fresh[""] = reduce(added, fresh.values())
        for name, count in fresh.items():
            looks = counts.setdefault(name, [])
            looks.append(added(looks[-1], count) if looks else count)
    return counts


def paired_checks(cfg: GateConfig, rounds: Rounds) -> Iterator[Check]:
    """The comparison of every task of the champion, then of all together. rounds: the first holds the evaluations of both."""
    tasks = sorted(rounds[0][1].per_task)
    pairs = pairs_of(rounds, tasks)
    missing = [task for task in tasks if task not in rounds[0][0].per_task]
    for task in missing:
        reason = f"{NOT_ENOUGH}: {task} is a task of the champion, the candidate was not evaluated on it"
        yield Check(name=f"non-inferior/{task}", passed=False, reason=reason, needed=-cfg.margin, state="not enough")
    compared = [task for task in tasks if task not in missing]
    yield from _task_checks(cfg, compared, pairs)
    if len(tasks) > 1 and pairs.looks() and cfg.margin < 1.0:
        decision = _tested(cfg, pairs.looks(), cfg.margin / math.sqrt(pairs.tasks), cfg.max_pairs * pairs.tasks)
        yield _check(cfg, ALL_TASKS, pairs, decision, worse=decision.outcome is Outcome.REFUTED)
    if cfg.claim == "superiority":
        yield _superiority(cfg, pairs)


def _task_checks(cfg: GateConfig, tasks: Sequence[str], pairs: Pairs) -> Iterator[Check]:
    if cfg.margin >= 1.0:  # permits every difference, so that there is nothing to test
        for task in tasks:
            counts = pairs.looks(task)[-1] if pairs.looks(task) else NO_PAIRS
            reason = f"{task}: {told(counts, pairs.void.get(task, 0))}; a margin of 1 permits every difference"
            yield Check(name=f"non-inferior/{task}", passed=True, reason=reason, needed=-1.0, got=counts.difference, state="holds")
        return
    decided = {task: _tested(cfg, pairs.looks(task), cfg.margin, cfg.max_pairs) for task in tasks}
    adjusted = holm({task: decision.refuting for task, decision in decided.items()})
    for task, decision in decided.items():
        yield _check(cfg, task, pairs, decision, worse=adjusted[task] <= cfg.alpha)


def _tested(cfg: GateConfig, looks: Sequence[PairCounts], margin: float, maximum: int) -> Decision:
    most = max(maximum, looks[-1].pairs if looks else 0)
    return betting_test_of_counts(looks, BettingDesign(margin=margin, alpha=cfg.alpha, maximum=most))


def _check(cfg: GateConfig, what: str, pairs: Pairs, decision: Decision, *, worse: bool) -> Check:
    """Non-inferiority of one task, or of all. worse: whether inferiority was shown, corrected for the number of tasks."""
    is_all = what == ALL_TASKS
    looks, void = (pairs.looks(), sum(pairs.void.values())) if is_all else (pairs.looks(what), pairs.void.get(what, 0))
    counts = looks[-1] if looks else NO_PAIRS
    margin = cfg.margin / math.sqrt(pairs.tasks) if is_all else cfg.margin
    state, name = _state(decision, worse=worse), f"non-inferior/{what}"
    reason = f"{what}: {told(counts, void)}; may be down to {-margin:+.2f}; {decision.detail}"
    if state == "fails":
        reason += ": worse than the champion"
    elif state != "holds":
        advice = pairs_to_decide(counts, margin, cfg.alpha)
        reason = f"{NOT_ENOUGH}: {reason}" + (f"; about {advice} trials each would decide" if advice else "")
    return Check(name=name, passed=state == "holds", reason=reason, needed=-margin, got=counts.difference, state=state)


def _state(decision: Decision, *, worse: bool) -> State:
    if decision.outcome is Outcome.SHOWN:
        return "holds"
    if worse:
        return "fails"
    return "not enough" if decision.outcome is Outcome.NOT_ENOUGH else "open"


def _superiority(cfg: GateConfig, pairs: Pairs) -> Check:
    looks = pairs.looks()
    counts = looks[-1] if looks else NO_PAIRS
    decision = (
        _tested(cfg, looks, 0.0, cfg.max_pairs * pairs.tasks)
        if cfg.test == "anytime"
        else group_sequential_test(pairs.differences, group_sequential_design(cfg, pairs.tasks))
    )
    state = _state(decision, worse=decision.outcome is Outcome.REFUTED)
    reason = f"{ALL_TASKS}: {told(counts, sum(pairs.void.values()))}; must be above 0; {decision.detail}"
    if state == "holds":
        reason += ": better than the champion"
    elif state == "fails":
        reason += ": worse than the champion"
    else:
        reason = f"{NOT_ENOUGH}: {reason}"
    return Check(name=f"superior/{ALL_TASKS}", passed=state == "holds", reason=reason, needed=0.0, got=counts.difference, state=state)


def group_sequential_design(cfg: GateConfig, tasks: int) -> GroupSequentialDesign:
    """A look after every block of all tasks together, and at the maximum."""
    step, maximum = cfg.pairs_per_block * tasks, cfg.max_pairs * tasks
    looks = (*range(step, maximum, step), maximum)
    return GroupSequentialDesign(looks=looks, alpha=cfg.alpha, shape=0.5)


def counts_of(found: Sequence[Pair]) -> PairCounts:
    """The pairs by who succeeded."""
    count = Counter(pair[2:] for pair in found)
    return PairCounts(both=count[True, True], wins=count[True, False], losses=count[False, True], neither=count[False, False])


def told(counts: PairCounts, void: int) -> str:
    """The pairs, and the difference with its interval, in words."""
    low, high = tango(counts)
    without = f", {void} void" if void else ""
    return (
        f"{counts.both + counts.wins}/{counts.pairs} against the champion's {counts.both + counts.losses}/{counts.pairs} on the same "
        f"scenes{without} (only the candidate {counts.wins}, only the champion {counts.losses}), difference {counts.difference:+.2f}, "
        f"95 % interval {low:+.2f} to {high:+.2f}"
    )


def pairs_to_decide(counts: PairCounts, margin: float, alpha: float) -> int | None:
    """About how many pairs with outcomes in these proportions would show a difference above -`margin`; None if no number would."""
    if not 0 < counts.pairs <= _MOST_ADVISED or counts.difference <= -margin:
        return None
    pairs = [counts.pairs]
    while (further := math.ceil(pairs[-1] * 1.1)) <= _MOST_ADVISED:
        pairs.append(further)
    scale = np.array(pairs) / counts.pairs
    ties = counts.both + counts.neither
    is_enough = log_evidence_of_counts(counts.wins * scale, counts.losses * scale, ties * scale, -margin) >= math.log(1.0 / alpha)
    return pairs[int(is_enough.argmax())] if is_enough.any() else None
