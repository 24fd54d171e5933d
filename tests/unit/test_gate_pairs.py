"""The gate's comparison on pairs: its four outcomes, its further blocks, what is expected before, and its documents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepStore, run_step
from components.config.judging.gate_config import GateConfig
from components.config.judging.verdict import Check, GateVerdict, outcome_of
from components.config.recipe import Recipe
from components.config.records import EvalReport, Interval, RolloutRow, Silent, TaskScore
from components.evaluation.gate import gate, needs_pairs
from components.evaluation.judging.documents import verdict_junit, verdict_markdown
from components.evaluation.judging.pairs import pairs_of
from components.evaluation.judging.plan import plan_of
from components.evaluation.studies.design import read_design
from components.evaluation.studies.ledger import problem_of, read_ledger
from components.evaluation.studies.plan import sides_of_block
from flows.commands.overrides import with_changes
from flows.pipeline.stages.comparison import Comparison, block_recipe, further_pairs
from model_core.spec.documents import to_document
from model_core.spec.errors import SpecError
from model_core.statistics.intervals import PairCounts

BAR = GateConfig()
TASKS = ("close", "press")


def row(task, seed, success, stop="", refusals=0):
    stop = stop or ("success" if success else "horizon")
    return RolloutRow(task=task, seed=seed, success=success, stop_reason=stop, steps=40, decisions=100, refusals=refusals)


def report(rows, digest="c", protocol=None) -> EvalReport:
    def score(found):
        won, trials = sum(one.success for one in found), len(found)
        return TaskScore(successes=won, trials=trials, interval=Interval(low=0.0, high=1.0))

    trials = [one for one in rows if one.stop_reason != "env_error"]
    total = score(trials)
    return EvalReport(
        checkpoint_digest=digest * 64,
        contract_id="0" * 16,
        successes=total.successes,
        trials=total.trials,
        interval=total.interval,
        per_task={task: score([one for one in trials if one.task == task]) for task in sorted({one.task for one in rows})},
        episodes=tuple(rows),
        protocol=protocol or {},
        blindness={"image_swap_change": 0.9},
    )


def drawn(rate, seeds, luck):
    """Rollouts with this success rate; scenes of the same luck are the same for every policy."""
    draws = np.random.default_rng(luck)
    return [row(task, seed, bool(draws.random() < rate)) for seed in seeds for task in TASKS]


def both(candidate, champion, seeds=range(20), luck=(1, 1)):
    return report(drawn(candidate, seeds, luck[0]), "a"), report(drawn(champion, seeds, luck[1]), "c")


def test_a_candidate_alone_is_promoted_rejected_or_undecided_by_its_exact_bound():
    found = {won: gate(BAR, report([row("press", i, i < won) for i in range(20)]), None).outcome for won in (20, 16, 15, 11, 10)}
    assert found == {20: "promote", 16: "promote", 15: "not enough", 11: "not enough", 10: "reject"}


def test_pairs_of_champion_and_candidate_lead_to_each_of_the_four_outcomes():
    alike = both(0.97, 0.97, range(60))
    assert gate(BAR, *alike).outcome == "promote"
    assert gate(BAR, *both(0.8, 1.0, range(300), (1, 2))).outcome == "reject"
    few = gate(BAR, *both(0.97, 0.97))
    assert (few.outcome, needs_pairs(few)) == ("not enough", True)
    other = replace(alike[1], protocol={"suite": "another"})
    unlike = gate(BAR, replace(alike[0], protocol={"suite": "one"}), other)
    assert (unlike.outcome, unlike.promote) == ("invalid", False)


def test_better_is_only_written_where_the_test_showed_it():
    words = " ".join(gate(BAR, *both(1.0, 0.8, range(60), (1, 2))).reasons)
    assert "better" not in words
    claims = replace(BAR, claim="superiority")
    shown = gate(claims, *both(1.0, 0.75, range(60), (1, 2)))
    assert shown.outcome == "promote"
    assert any("better than the champion" in check.reason for check in shown.checks if check.name == "superior/all tasks")
    alike = gate(claims, *both(0.97, 0.97, range(60)))
    assert alike.outcome == "not enough"
    assert "better" not in " ".join(alike.reasons)


def test_a_planned_look_shows_superiority_too():
    planned = replace(BAR, claim="superiority", test="group-sequential", max_pairs=60)
    assert gate(planned, *both(1.0, 0.75, range(60), (1, 2))).outcome == "promote"
    assert gate(planned, *both(0.97, 0.97, range(60))).outcome == "not enough"
    with pytest.raises(SpecError, match=r"gate\.claim=superiority"):
        GateConfig(test="group-sequential")


def test_a_trial_that_the_simulator_broke_voids_its_pair_and_is_told():
    candidate, champion = both(0.97, 0.97, range(60))
    broken = replace(candidate, episodes=(row("close", 0, False, "env_error"), *candidate.episodes[1:]))
    pairs = pairs_of([(broken, champion)], TASKS)
    assert pairs.void == {"close": 1}
    assert sum(map(len, pairs.rounds)) == 119
    assert any("1 void" in check.reason for check in gate(BAR, broken, champion).checks)


def test_counts_are_of_all_pairs_so_far_after_each_round():
    rounds = [both(1.0, 1.0, range(3)), both(1.0, 0.0, range(3, 5))]
    assert pairs_of(rounds, TASKS).looks("press") == [
        PairCounts(both=3, wins=0, losses=0, neither=0),
        PairCounts(both=3, wins=2, losses=0, neither=0),
    ]


def test_trials_with_refusals_above_their_limit_veto():
    rows = [row("press", i, True, refusals=1 if i < 15 else 0) for i in range(20)]
    verdict = gate(BAR, report(rows), None)
    assert verdict.outcome == "reject"
    assert "15 of 20 trials had a refused decision" in verdict.reasons[0]
    assert gate(BAR, report([row("press", i, True, refusals=1 if i < 11 else 0) for i in range(20)]), None).outcome == "promote"


def test_blocks_go_on_where_the_evaluation_ended_up_to_the_maximum():
    recipe = Recipe(name="x")
    blocks = [block_recipe(recipe, number) for number in range(5)]
    first = recipe.evaluate.first_seed
    assert [(one.evaluate.first_seed, one.evaluate.seeds_per_task) for one in blocks if one] == [
        (first + 20 + 10 * number, 10) for number in range(4)
    ]
    assert blocks[4] is None
    assert block_recipe(with_changes(recipe, ["evaluate.suite=a.b:c"]), 0) is None
    odd = with_changes(recipe, ["gate.max_pairs=25"])
    assert [one.evaluate.seeds_per_task for one in (block_recipe(odd, 0), block_recipe(odd, 1)) if one] == [5]


@pytest.fixture
def store(tmp_path: Path) -> StepStore:
    return StepStore(tmp_path)


def recorded(store: StepStore, found: EvalReport) -> Step:
    def work(out: Path) -> dict[str, object]:
        (out / "report.json").write_text(json.dumps(to_document(found)))
        return {}

    return run_step(store, stage="pairs", config=to_document(found), inputs={}, work=work, code_version="1").step


@pytest.mark.parametrize(
    ("rates", "blocks", "outcome"), [((0.97, 0.97), 1, "promote"), ((0.7, 0.7), 3, "not enough"), ((0.3, 0.9), 0, "reject")]
)
def test_further_blocks_are_run_until_the_comparison_is_decided(store, rates, blocks, outcome):
    asked: list[tuple[str, int]] = []

    def run_trials(_platform, block, trained, _progress):
        asked.append((trained, block.evaluate.first_seed))
        seeds = range(block.evaluate.first_seed, block.evaluate.first_seed + block.evaluate.seeds_per_task)
        return recorded(
            store, report(drawn(rates[trained == "champion"], seeds, seeds.start + (trained == "champion") * (rates[0] == 0.7)), trained[1])
        )

    recipe = with_changes(Recipe(name="x"), ["gate.floor=0"])
    first = recipe.evaluate.first_seed
    candidate, champion = both(*rates, range(first, first + 20), (5, 6) if rates[0] == 0.7 else (5, 5))
    compared = Comparison(
        candidate=candidate,
        champion=champion,
        evidence=("e1", "e2"),
        trained="candidate",  # type: ignore[arg-type]
        trained_before="champion",  # type: ignore[arg-type]
    )
    platform = SimpleNamespace(store=store, settings=SimpleNamespace(home=store.root))
    found = further_pairs(platform, recipe, compared, Silent(), run_trials)  # type: ignore[arg-type]
    assert len(found.blocks) == blocks
    assert problem_of(store.root / "studies" / found.study, found.head) == ""
    design = read_design(store.root / "studies" / found.study)
    ledger = read_ledger(store.root / "studies" / found.study, design)
    assert len(ledger.trials) == 2 * 2 * (20 + 10 * blocks)
    assert {trial.block for trial in ledger.trials} == set(range(blocks + 1))
    assert asked == [(side, first + 20 + 10 * number) for number in range(blocks) for side in sides_of_block(design, number)]
    orders = [sides_of_block(design, number) for number in range(40)]
    assert 8 <= orders.count(("champion", "candidate")) <= 32
    assert orders == [sides_of_block(design, number) for number in range(40)]
    assert gate(recipe.gate, candidate, champion, further=[block.reports for block in found.blocks]).outcome == outcome


def test_the_plan_says_what_an_equal_candidate_can_expect():
    [sentence] = plan_of(BAR, {"press": 0.93})
    assert "the champion solves 93%" in sentence
    assert "60 at most" in sentence
    assert "without enough evidence" in sentence
    assert plan_of(replace(BAR, margin=1.0), {"press": 0.5}) == ()


def test_documents_for_continuous_integration_name_every_criterion_by_its_state():
    verdict = replace(gate(BAR, *both(0.97, 0.97)), plan=("one sentence",))
    suite = ElementTree.fromstring(verdict_junit(verdict))
    assert suite.get("tests") == str(len(verdict.checks))
    assert suite.get("skipped") == str(sum(check.stands in ("open", "not enough") for check in verdict.checks))
    page = verdict_markdown(verdict)
    assert page.startswith("# Held: not enough evidence")
    assert page.endswith("- one sentence")
    invalid = GateVerdict(
        promote=False, reasons=("x <&>",), checks=(Check(name="protocol", passed=False, reason="x <&>", state="invalid"),)
    )
    assert ElementTree.fromstring(verdict_junit(invalid)).find("testcase/error") is not None


def test_a_verdict_of_an_older_version_has_the_outcome_of_its_criteria():
    held = Check(name="floor", passed=False, reason="not enough evidence: few")
    assert GateVerdict(promote=False, reasons=(), checks=(held,)).decided == "not enough"
    assert GateVerdict(promote=False, reasons=(), checks=(held, Check(name="x", passed=False, reason="bad"))).decided == "reject"
    assert GateVerdict(promote=True, reasons=()).decided == "promote"
    assert outcome_of([], promote=False) == "reject"
