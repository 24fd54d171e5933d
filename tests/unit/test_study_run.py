"""A study from its locked design to its verdict: the order of trials, kills, amendments, and what is void."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from components.config.judging.gate_config import GateConfig
from components.config.records import Silent
from components.evaluation.studies.amending import amend
from components.evaluation.studies.design import BLOCKS, LEDGER, ROBOT_RULE, Scene, StudyDesign, lock, read_design
from components.evaluation.studies.ledger import append, problem_of, read_ledger, whole_ledger
from components.evaluation.studies.plan import planned_blocks
from components.evaluation.studies.run import RUNNING, Trialled, run_study
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError, SpecError

TASKS = ("close", "press")


def scenes(count, first=0):
    return tuple(Scene(task=task, seed=first + number) for number in range(count) for task in TASKS)


def design(pairs=20, seed=3, **more):
    gate = GateConfig(max_pairs=pairs, pairs_per_block=5, margin=0.3)
    values = {"candidate": "a" * 64, "champion": "c" * 64, "tasks": TASKS, "gate": to_document(gate), "rules": {"suite": "toys"}}
    return StudyDesign(**{**values, "first_seed": 0, "version": 2, "assignment": BLOCKS, "seed": seed, "scenes": scenes(pairs), **more})


def luck(*what):
    return int(hashlib.sha256(repr(what).encode()).hexdigest()[:8], 16) / 2**32


def outcomes(candidate=0.9, champion=0.9, run=None):
    """The same trial comes out the same whenever it is run. run: collects what was run."""

    def trial(planned):
        if run is not None:
            run.append(planned)
        rate = candidate if planned.side == "candidate" else champion
        success = luck(planned.task, planned.seed, planned.side) < rate
        return Trialled(success=success, stop_reason="success" if success else "max_steps", steps=40, decisions=5, progress=float(success))

    return trial


def test_blocks_are_complete_their_order_is_drawn_and_anybody_can_draw_it_again():
    blocks = planned_blocks(design())
    assert [len(block) for block in blocks] == [20] * 4
    for number, block in enumerate(blocks):
        met = Counter((trial.task, trial.seed, trial.side) for trial in block)
        assert set(met.values()) == {1}
        assert {(s.task, s.seed) for s in scenes(5, 5 * number)} == {(trial.task, trial.seed) for trial in block}
        assert all(a.seed == b.seed and {a.side, b.side} == {"candidate", "champion"} for a, b in zip(block[::2], block[1::2], strict=True))
    trials = [trial for block in blocks for trial in block]
    assert [trial.place for trial in trials] == list(range(80))
    firsts = Counter(trial.side for trial in trials if trial.turn == 1)
    assert min(firsts.values()) >= 10, "both sides go first about as often"
    assert len({trial.blind for trial in trials}) == 80
    assert planned_blocks(design()) == blocks
    assert planned_blocks(design(seed=4)) != blocks


def test_the_design_is_locked_and_equal_policies_are_told_not_worse(tmp_path):
    folder = lock(tmp_path, design(pairs=60))
    verdict, ledger = run_study(folder, outcomes(), Silent())
    assert verdict.decided == "promote", verdict.reasons
    assert len(ledger.trials) % 20 == 0
    assert len(ledger.trials) < 240, "it ends when it is decided"
    assert problem_of(folder, ledger.head) == ""
    again = list[object]()
    assert run_study(folder, outcomes(run=again), Silent())[0] == verdict
    assert again == []


@pytest.mark.parametrize(("rates", "outcome", "pairs"), [((0.2, 0.95), "reject", 60), ((0.7, 0.7), "not enough", 10)])
def test_a_worse_candidate_is_rejected_and_the_planned_maximum_can_be_too_small(tmp_path, rates, outcome, pairs):
    folder = lock(tmp_path, design(pairs=pairs))
    assert run_study(folder, outcomes(*rates), Silent())[0].decided == outcome


class KilledError(BaseException):
    """As SIGKILL: nothing is tidied up."""


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_a_study_killed_at_random_points_ends_with_the_ledger_of_an_undisturbed_one(tmp_path, kills):
    whole = lock(tmp_path / "whole", design())
    run_study(whole, outcomes(), Silent())
    expected = (whole / LEDGER).read_bytes()
    rng, killed = random.Random(7), lock(tmp_path / "killed", design())
    for _ in range(kills):
        left = rng.randrange(1, 8)

        def dies(planned, left=[left]):  # noqa: B006
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return outcomes()(planned)

        try:
            run_study(killed, dies, Silent())
        except KilledError:
            written = (killed / LEDGER).read_bytes() if (killed / LEDGER).exists() else b""
            (killed / LEDGER).write_bytes(written[: len(written) - rng.choice((0, 0, 17))])  # a line that was being written
    run_study(killed, outcomes(), Silent())
    assert (killed / LEDGER).read_bytes() == expected


def test_a_robots_trial_that_was_running_when_the_program_ended_is_void_and_not_repeated(tmp_path):
    folder = lock(tmp_path, design(pairs=10, setting="robot", void_rule=ROBOT_RULE))

    def moves_then_dies(planned):
        (folder / RUNNING).write_text(f"{planned.place}\n")
        if planned.place == 3:
            raise KilledError
        return outcomes()(planned)

    with pytest.raises(KilledError):
        run_study(folder, moves_then_dies, Silent())
    run = list[object]()
    verdict, ledger = run_study(folder, outcomes(run=run), Silent())
    assert (ledger.trials[3].void, ledger.trials[3].stop_reason) == (True, "interrupted")
    assert 3 not in [planned.place for planned in run]
    assert "1 void" in " ".join(verdict.reasons)


def test_void_trials_void_their_pair_and_count_for_nothing(tmp_path):
    folder = lock(tmp_path, design(pairs=10))

    def some_crash(planned):
        if planned.seed == 2 and planned.side == "champion":
            return Trialled(success=True, stop_reason="env_error", void=True, detail="the physics blew up")
        return outcomes()(planned)

    verdict, ledger = run_study(folder, some_crash, Silent())
    assert [(t.score, t.success) for t in ledger.trials if t.void] == [(0.0, False)] * 2
    assert "18" not in verdict.reasons[0] or verdict.decided
    assert sum("1 void" in reason for reason in verdict.reasons) == 2  # of each task


def test_an_amendment_is_a_line_of_the_chain_and_adds_scenes(tmp_path):
    folder = lock(tmp_path, design(pairs=10))
    assert run_study(folder, outcomes(0.7, 0.7), Silent())[0].decided == "not enough"
    amend(folder, "the lamp was replaced", by="Ada")
    with pytest.raises(SpecError, match="no scene is new"):
        amend(folder, "more", scenes=scenes(10))
    with pytest.raises(SpecError, match="scenes of tasks that the study does not have: open"):
        amend(folder, "more", scenes=[Scene(task="open", seed=1)])
    amend(folder, "still open", scenes=scenes(30))
    verdict, ledger = run_study(folder, outcomes(0.7, 0.7), Silent())
    assert (len(ledger.trials), verdict.decided) == (100, "not enough")  # four further blocks of the five
    assert [(place, one.reason, one.by, len(one.scenes)) for place, one in ledger.amendments] == [
        (20, "the lamp was replaced", "Ada", 0),  # the first block had shown that ten pairs cannot decide
        (20, "still open", "", 40),
    ]
    lines = (folder / LEDGER).read_text().splitlines()
    changed = json.loads(lines[20])
    changed["amendment"]["reason"] = "nothing"
    (folder / LEDGER).write_text("\n".join([*lines[:20], json.dumps(changed), *lines[21:]]) + "\n")
    assert problem_of(folder).startswith("trial 21 of ")


def test_stage_scores_decide_where_successes_do_not(tmp_path):
    gate = to_document(GateConfig(max_pairs=40, pairs_per_block=10, margin=0.1, claim="superiority"))

    def partly(planned):
        progress = 0.7 if planned.side == "candidate" else 0.2 + 0.2 * luck(planned.task, planned.seed)
        return Trialled(success=False, stop_reason="max_steps", decisions=5, progress=progress)

    scored = lock(tmp_path, design(pairs=40, gate=gate, metric="score"))
    verdict, _ = run_study(scored, partly, Silent())
    assert verdict.decided == "promote", verdict.reasons
    assert any("better than the champion" in reason for reason in verdict.reasons)
    counted = lock(tmp_path, design(pairs=40, gate=gate))
    assert run_study(counted, partly, Silent())[0].decided == "not enough"


def test_safety_counters_of_the_candidate_veto(tmp_path):
    folder = lock(tmp_path, design(pairs=20))

    def clipped(planned):
        return replace(outcomes()(planned), clips=3 if planned.side == "candidate" else 0)

    verdict, _ = run_study(folder, clipped, Silent())
    assert verdict.decided == "reject"
    assert "trials had a command that the safety envelope clipped" in " ".join(verdict.reasons)


def test_trials_in_another_order_than_the_plans_are_refused(tmp_path):
    folder = lock(tmp_path, design())
    run_study(folder, outcomes(), Silent())
    first = read_ledger(folder, read_design(folder)).trials[0]
    (folder / LEDGER).unlink()
    append(folder, whole_ledger(folder), [replace(first, seed=first.seed + 1)])
    with pytest.raises(
        DatasetError, match=r"trial 1 of .*by its design expected champion on close, scene 4, got champion on close, scene 5"
    ):
        run_study(folder, outcomes(), Silent())
