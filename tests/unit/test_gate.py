"""The truth table of verdicts."""

from dataclasses import replace

import pytest

from components.config.judging.verdict import IMAGE_SWAP_CHANGE, NOT_ENOUGH, GateVerdict
from components.config.recipe import GateConfig
from components.config.records import EvalReport, Interval, RolloutRow, TaskScore
from components.evaluation.gate import gate
from components.evaluation.intervals import wilson
from model_core.spec.documents import from_document, to_document

BAR = GateConfig(floor=0.5, margin=0.3, min_trials=20, max_refusal_rate=0.05, min_image_swap_change=0.2)


def score(successes, trials):
    low, high = wilson(successes, trials)
    return TaskScore(successes=successes, trials=trials, interval=Interval(low=low, high=high))


def report(refusals=0, swap=0.8, protocol=None, seeds=(), **tasks):
    per_task = {task: score(*counts) for task, counts in tasks.items()}
    s, n = sum(t.successes for t in per_task.values()), sum(t.trials for t in per_task.values())
    rows = tuple(
        RolloutRow(
            task=task,
            seed=seed,
            success=(i * 7) % count < won,
            stop_reason="success" if (i * 7) % count < won else "horizon",
            steps=40,
            decisions=100,
            refusals=0,
        )
        for task, (won, count) in tasks.items()
        for i, seed in enumerate(seeds or range(count))
    )
    broken = RolloutRow(task="press", seed=1, success=False, stop_reason="env_error", steps=0, decisions=100, refusals=0)
    rows = rows or (broken,)
    rows = tuple(replace(row, refusals=refusals if i == 0 else 0, decisions=100 if i == 0 else 0) for i, row in enumerate(rows))
    return EvalReport(
        checkpoint_digest="c" * 64,
        contract_id="0" * 16,
        successes=s,
        trials=n,
        interval=score(s, n).interval,
        per_task=per_task,
        episodes=rows,
        protocol=protocol or {},
        blindness={} if swap is None else {IMAGE_SWAP_CHANGE: swap},
    )


def failed(verdict):
    return {check.name for check in verdict.checks if not check.passed}


CASES = [
    # (candidate, champion, names of the criteria that do not hold)
    (report(press=(20, 20), close=(18, 20)), None, set()),
    (report(press=(20, 20), close=(9, 20)), None, {"floor/close"}),
    (report(press=(12, 20)), None, {"floor/press"}),
    (report(press=(10, 10)), None, {"trials/press"}),
    (report(press=(0, 0)), None, {"trials/press", "floor/press"}),
    (report(), None, {"trials"}),
    (report(press=(20, 20), refusals=5), None, set()),
    (report(press=(20, 20), refusals=6), None, {"refusals"}),
    (report(press=(20, 20), swap=0.19), None, {"image"}),
    (report(press=(20, 20), swap=None), None, {"image"}),
    (report(press=(18, 20), close=(17, 20)), report(press=(18, 20), close=(19, 20)), {"non-inferior/close"}),
    (report(press=(18, 20), close=(18, 20)), report(press=(18, 20), close=(18, 20)), set()),
    (report(press=(16, 20)), report(press=(20, 20)), {"non-inferior/press"}),
    (report(press=(20, 20)), report(press=(20, 20), close=(5, 20)), {"non-inferior/close"}),
    (report(press=(20, 20), new=(19, 20)), report(press=(20, 20)), set()),
    (report(press=(72, 100)), report(press=(95, 100)), {"non-inferior/press"}),
    (report(press=(60, 100)), report(press=(95, 100)), {"non-inferior/press"}),
    (
        report(press=(20, 20), protocol={"horizon_sim_steps": 500}),
        report(press=(20, 20), protocol={"horizon_sim_steps": 300}),
        {"protocol"},
    ),
]


@pytest.mark.parametrize(("candidate", "champion", "names"), CASES)
def test_truth_table(candidate, champion, names):
    verdict = gate(BAR, candidate, champion)
    assert failed(verdict) == names
    assert verdict.promote == (not names)


def test_every_criterion_has_a_sentence_and_the_failures_come_first():
    verdict = gate(BAR, report(press=(9, 20), refusals=50), report(press=(20, 20)))
    assert len(verdict.reasons) == len(verdict.checks) == 6
    assert len({*verdict.reasons}) == len(verdict.reasons)
    assert "9 of 20" in " ".join(verdict.reasons[:3])
    assert all(check.got is not None for check in verdict.checks if check.name != "protocol")


def test_too_few_trials_are_called_so_and_not_a_failure():
    floor = next(c for c in gate(BAR, report(press=(12, 20)), None).checks if c.name == "floor/press")
    assert floor.reason.startswith(NOT_ENOUGH)
    below = next(c for c in gate(BAR, report(press=(9, 20)), None).checks if c.name == "floor/press")
    assert "below the floor" in below.reason
    assert not below.reason.startswith(NOT_ENOUGH)


def test_undecided_comparison_says_how_many_trials_would_decide():
    check = next(c for c in gate(BAR, report(press=(17, 20)), report(press=(19, 20))).checks if c.name.startswith("non-inferior"))
    assert not check.passed
    assert check.reason.startswith(NOT_ENOUGH)
    assert "trials each would decide" in check.reason


def test_clearly_worse_is_said_so():
    check = next(c for c in gate(BAR, report(press=(40, 100)), report(press=(95, 100))).checks if c.name.startswith("non-inferior"))
    assert "worse than the champion" in check.reason


def test_overall_margin_is_tighter_than_that_of_a_task():
    weak = replace(BAR, margin=0.3)
    verdict = gate(weak, report(a=(85, 100), b=(85, 100), c=(85, 100)), report(a=(96, 100), b=(96, 100), c=(96, 100)))
    assert failed(verdict) == set()
    verdict = gate(weak, report(a=(80, 100), b=(80, 100), c=(80, 100)), report(a=(96, 100), b=(96, 100), c=(96, 100)))
    assert failed(verdict) == {"non-inferior/all tasks"}


def test_measured_blindness_can_be_given_beside_the_report():
    assert gate(BAR, report(press=(20, 20), swap=None), None, {IMAGE_SWAP_CHANGE: 0.5}).promote


def test_verdict_survives_json():
    verdict = gate(BAR, report(press=(9, 20)), report(press=(20, 20)))
    assert from_document(GateVerdict, to_document(verdict)) == verdict


RULES = {"suite": "metaworld", "suite_version": "metaworld 3.0.0", "horizon_sim_steps": 500, "sim_steps_per_action": 4}
RULES |= {"control_hz": 20.0, "reasoning": "full", "execute_horizon": 1, "first_seed": 930_000}
SEEDS = range(930_000, 930_020)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"execute_horizon": 8}, "execute_horizon 1 -> 8"),
        ({"suite_version": "metaworld 3.1.0"}, "suite_version 'metaworld 3.0.0' -> 'metaworld 3.1.0'"),
        ({"suite": "libero"}, "suite 'metaworld' -> 'libero'"),
        ({"sim_steps_per_action": 5}, "sim_steps_per_action 4 -> 5"),
        ({"reasoning": "action"}, "reasoning 'full' -> 'action'"),
        ({"clutter": 3}, "clutter 'not recorded' -> 3"),  # a rule of a suite of one's own
        ({"seeds": range(940_000, 940_020)}, "scenes of press: seeds 930000 to 930019 -> 940000 to 940019"),
        ({"seeds": range(930_010, 930_030)}, "scenes of press: seeds 930000 to 930019 -> 930010 to 930029"),
    ],
)
def test_what_was_evaluated_by_other_rules_or_on_other_scenes_is_not_compared(changed, said):
    changes = dict(changed)
    seeds = changes.pop("seeds", SEEDS)
    champion = report(press=(19, 20), protocol=RULES, seeds=SEEDS)
    verdict = gate(BAR, report(press=(20, 20), protocol=RULES | changes, seeds=seeds), champion)
    assert failed(verdict) == {"protocol"}
    reason = next(check.reason for check in verdict.checks if check.name == "protocol")
    assert f"evaluated differently ({said}), so they are not compared. Fix:" in reason
    assert not [check for check in verdict.checks if check.name.startswith("non-inferior")]


def test_the_same_scenes_or_more_of_them_under_the_same_rules_are_compared():
    champion = report(press=(19, 20), protocol=RULES, seeds=SEEDS)
    old = {rule: value for rule, value in RULES.items() if not rule.startswith("suite")}  # reports of before there were suites
    for seeds, protocol in ((SEEDS, RULES), (range(930_000, 930_050), RULES | {"first_seed": 929_999}), (SEEDS, old)):
        verdict = gate(BAR, report(press=(20, 20), protocol=protocol, seeds=seeds), champion)
        assert verdict.promote, verdict.reasons
        assert {check.name for check in verdict.checks} >= {"protocol", "non-inferior/press"}
