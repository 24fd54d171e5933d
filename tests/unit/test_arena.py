"""The arena: pairs by case, groups that the tests can tell apart, ratings, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from components.config.records import EvalReport, Interval, RolloutRow
from components.evaluation.arena.documents import arena_markdown
from components.evaluation.arena.pairs import PairResult, groups_of
from components.evaluation.arena.standings import ArenaResult, ArenaRules, Evaluated, arena_of
from components.report.arena import arena_page, arena_picture
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError

FEW = ArenaRules(resamples=100)


def evaluated(
    name: str, successes: Sequence[bool], *, first: int = 0, void: Sequence[int] = (), progress: float = 0.0, **rules: object
) -> Evaluated:
    """`successes` of cases first, first + 1, ..., in turn of the tasks "push" and "reach"; the simulator broke the numbers `void`."""
    rows = [
        RolloutRow(
            task=("push", "reach")[number % 2],
            seed=number,
            success=bool(success),
            stop_reason="env_error" if number in void else "success" if success else "max_steps",
            steps=9,
            decisions=3,
            refusals=0,
            progress=1.0 if success else progress,
        )
        for number, success in enumerate(successes, start=first)
    ]
    return Evaluated(
        name=name,
        report=EvalReport(
            checkpoint_digest=name * 8,
            contract_id="0" * 16,
            successes=0,
            trials=0,
            interval=Interval(low=0.0, high=1.0),
            per_task={},
            episodes=tuple(rows),
            protocol={"suite": "bench", "suite_version": "1", "horizon": 50, "reasoning": "full", **rules},
        ),
    )


def drawn(rates: dict[str, float], cases: int = 60, seed: int = 3) -> list[Evaluated]:
    rng = np.random.default_rng(seed)
    return [evaluated(name, (rng.random(cases) < rate).tolist()) for name, rate in rates.items()]


def test_policies_that_cannot_be_told_apart_are_one_group_and_never_called_better() -> None:
    found = arena_of(drawn({"high": 0.9, "also": 0.88, "low": 0.2}), FEW)
    assert {one.name: one.group for one in found.standings} == {"high": 1, "also": 1, "low": 2}
    assert {(pair.first, pair.second): pair.better for pair in found.pairs} == {
        ("also", "high"): "",
        ("also", "low"): "also",
        ("high", "low"): "high",
    }
    table = arena_markdown(found)
    assert table.count("is better than") == 2
    assert "are one group: the trials do not tell all of them apart" in table
    assert all(one.rating_low < one.rating < one.rating_high for one in found.standings)
    assert sum(one.rating for one in found.standings) == pytest.approx(3000, abs=0.01)


def test_without_a_shown_difference_the_word_is_not_printed() -> None:
    found = arena_of(drawn({"a": 0.5, "b": 0.55, "c": 0.6}, cases=30), FEW)
    assert {one.group for one in found.standings} == {1}
    assert "Arena: 3 policies on bench, no difference shown" in arena_markdown(found)
    for text in (arena_markdown(found), arena_page(found, "actwright study arena a b c")):
        assert "better" not in text


def test_a_pair_is_tested_exactly_and_corrected_for_all_pairs() -> None:
    a = evaluated("a", [True] * 8 + [False] * 12)
    b = evaluated("b", [False] * 6 + [True] * 2 + [True] * 1 + [False] * 11)
    c = evaluated("c", [True] * 8 + [False] * 12)
    found = arena_of([c, b, a], FEW)
    pair = found.pairs[0]
    # a alone 6, b alone 1 of 7 decided cases: two-sided 2 * (1 + 7) / 2^7; Holm over three pairs
    assert (pair.wins, pair.losses, pair.ties) == (6, 1, 13)
    assert pair.p == pytest.approx(16 / 128)
    assert pair.adjusted == pytest.approx(3 * 16 / 128)
    assert (found.pairs[1].p, found.pairs[1].adjusted) == (1.0, 1.0)
    assert arena_of([a, b, c], FEW) == found


def test_equal_policies_are_told_apart_no_more_often_than_declared() -> None:
    wrong = sum(any(pair.better for pair in arena_of(drawn(dict.fromkeys("abcd", 0.5), 40, seed), FEW).pairs) for seed in range(60))
    assert wrong <= 7  # 0.05 of 60 is 3; 8 or more have a probability of 0.01


def test_groups_end_only_where_all_above_are_better_than_all_below() -> None:
    def pair(first: str, second: str, better: str) -> PairResult:
        return PairResult(first=first, second=second, wins=0, losses=0, ties=0, p=0, difference=0, low=0, high=0, better=better)

    chain = [pair("a", "b", ""), pair("b", "c", ""), pair("a", "c", "a")]
    assert groups_of(["a", "b", "c"], chain) == [1, 1, 1]
    assert groups_of(["a", "b", "c"], [pair("a", "b", "a"), pair("b", "c", ""), pair("a", "c", "a")]) == [1, 2, 2]
    cycle = [pair("a", "b", "a"), pair("b", "c", "b"), pair("a", "c", "c")]
    assert groups_of(["a", "b", "c"], cycle) == [1, 1, 1]


def test_progress_is_compared_where_it_is_asked_for() -> None:
    far, near = evaluated("far", [False] * 20, progress=0.5), evaluated("near", [False] * 20)
    assert [pair.better for pair in arena_of([far, near], FEW).pairs] == [""]
    assert [pair.better for pair in arena_of([far, near], ArenaRules(score="progress", resamples=100)).pairs] == ["far"]


def test_broken_and_absent_cases_count_for_no_pair() -> None:
    a, b = evaluated("a", [True] * 10, void=(0, 1)), evaluated("b", [True] * 8)
    found = arena_of([a, b], FEW)
    assert found.pairs[0].cases == 6
    assert {one.name: (one.trials, one.missing) for one in found.standings} == {"a": (8, 2), "b": (8, 2)}


def test_a_level_of_reasoning_may_differ_and_is_shown() -> None:
    found = arena_of([evaluated("a", [True, False] * 9), evaluated("b", [False, True] * 9, reasoning="action")], FEW)
    assert "Policies differ in reasoning: a full, b action." in arena_markdown(found)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([], r"two policies or more.*Fix: name further"),
        ([evaluated("a", [True])], r"names of their own"),
        ([evaluated("b", [True], suite_version="2")], r"not judged on the same trials: suite_version '1' and '2'.*Fix: run both"),
        ([evaluated("b", [True] * 4, first=90)], r"b and a have no case in common.*Fix: run them on the same initial states"),
        ([evaluated("b", [])], r"b: expected trials in closed loop, got none"),
    ],
)
def test_what_cannot_be_compared_is_refused(others: list[Evaluated], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        arena_of([evaluated("a", [True, False]), *others], FEW)


def test_document_and_pictures_repeat_and_escape() -> None:
    entries = [evaluated("<b>", [True, False, True] * 5), evaluated("plain", [False, True, True] * 5)]
    found = arena_of(entries, FEW)
    assert from_document(ArenaResult, json.loads(json.dumps(to_document(found)))) == found
    assert arena_of(entries, FEW).key == found.key != arena_of(entries, ArenaRules(seed=1, resamples=100)).key
    page = arena_page(found, "actwright study arena")
    assert arena_picture(found) in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
