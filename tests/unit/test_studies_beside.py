"""Finished studies beside each other: exact intervals, no "better" that no test showed, groups, and what is not finished or not proven."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.config.judging.gate_config import GateConfig
from components.config.records import Silent
from components.evaluation.studies.beside import StudyBeside, groups_of_studies, joint_error, study_beside
from components.evaluation.studies.design import LEDGER, lock, read_design
from components.evaluation.studies.ledger import whole_ledger
from components.evaluation.studies.run import run_study
from model_core.spec.documents import to_document
from model_core.statistics.intervals import clopper_pearson
from tests.console_parts import console_over
from tests.unit.test_study_run import KilledError, design, outcomes

NAMES = {"a" * 64: "arm/2", "c" * 64: "arm/1"}


def run(folder, candidate, champion, pairs=60, **gate):
    chosen = GateConfig(max_pairs=pairs, pairs_per_block=5, margin=0.3, **gate)
    study = lock(folder, design(pairs=pairs, gate=to_document(chosen), first_seed=int(100 * candidate)))
    return study, run_study(study, outcomes(candidate, champion), Silent())


def beside(found) -> StudyBeside:
    folder, (verdict, ledger) = found
    return study_beside(folder.name, read_design(folder), ledger, verdict, NAMES)


def test_both_sides_are_counted_from_whole_pairs_with_exact_intervals(tmp_path):
    folder, (verdict, ledger) = run(tmp_path, 0.9, 0.9)
    found = beside((folder, (verdict, ledger)))
    trials = whole_ledger(tmp_path / found.study).trials
    for task in found.tasks:
        mine = [trial for trial in trials if trial.task == task.task and trial.side == "candidate"]
        assert (task.candidate.trials, task.candidate.successes) == (len(mine), sum(trial.success for trial in mine))
        assert (task.candidate.low, task.candidate.high) == clopper_pearson(task.candidate.successes, task.candidate.trials)
        assert task.wins - task.losses == task.candidate.successes - task.champion.successes
        assert task.low <= task.difference <= task.high
    void = replace(ledger, trials=(replace(trials[0], void=True), *trials[1:]))
    less = study_beside(found.study, read_design(tmp_path / found.study), void, verdict, NAMES)
    assert sum(task.void for task in less.tasks) == 1
    assert sum(task.candidate.trials for task in less.tasks) == sum(task.candidate.trials for task in found.tasks) - 1


def test_better_is_said_only_where_the_test_said_so(tmp_path):
    equal, worse = beside(run(tmp_path, 0.9, 0.9)), beside(run(tmp_path, 0.2, 0.95))
    better = beside(run(tmp_path, 0.95, 0.3, pairs=100, claim="superiority"))
    assert (equal.outcome, equal.better) == ("promote", "")
    assert all("is not worse than arm/1 by more than" in told for told in equal.shown)
    assert (worse.better, worse.worse) == ("c" * 64, "a" * 64)
    assert any("arm/2 is worse than arm/1" in told for told in worse.shown)
    assert (better.better, better.worse) == ("a" * 64, "c" * 64)
    assert "arm/2 is better than arm/1 over all tasks." in better.shown
    # a higher rate alone shows nothing
    open_one = beside(run(tmp_path, 0.8, 0.6, pairs=10))
    assert (open_one.outcome, open_one.better, open_one.shown) == ("not enough", "", ("No difference between arm/2 and arm/1 was shown.",))
    assert joint_error([equal, worse]) == pytest.approx(equal.alpha + worse.alpha)


def test_policies_that_no_test_told_apart_are_one_group(tmp_path):
    better = beside(run(tmp_path, 0.95, 0.3, pairs=100, claim="superiority"))
    assert groups_of_studies([better]) == (("a" * 64,), ("c" * 64,))
    third = replace(better, candidate="d" * 64, better="", worse="")
    assert groups_of_studies([better, third]) == (("a" * 64, "d" * 64, "c" * 64),)
    chain = replace(better, candidate="d" * 64, better="d" * 64, worse="a" * 64)
    assert groups_of_studies([better, chain]) == (("d" * 64, "a" * 64, "c" * 64),)  # the ends were never compared
    ends = replace(better, candidate="d" * 64, better="d" * 64)
    assert groups_of_studies([better, chain, ends]) == (("d" * 64,), ("a" * 64,), ("c" * 64,))


def test_the_pages_give_finished_studies_and_refuse_what_is_open_or_changed(tmp_path):
    studies = tmp_path / "studies"
    done, _ = run(studies, 0.9, 0.9)
    left = lock(studies, design(pairs=30, seed=9))

    def killed(planned):
        if planned.place == 3:
            raise KilledError
        return outcomes()(planned)

    with pytest.raises(KilledError):
        run_study(left, killed, Silent())
    client = console_over(tmp_path)
    listed = {one["study"]: one for one in client.get("/api/studies").json()["studies"]}
    assert (listed[done.name]["outcome"], listed[done.name]["candidate"]) == ("promote", "a" * 12)
    assert (listed[left.name]["outcome"], listed[left.name]["open"]) == ("", "3 of at most 120 trials are run")
    told = client.get(f"/api/studies/beside?of={done.name[:6]}").json()
    assert told["groups"] == [["a" * 12, "c" * 12]]
    assert {task["task"] for task in told["studies"][0]["tasks"]} == {"close", "press"}
    refused = client.get(f"/api/studies/beside?of={done.name},{left.name}")
    assert (refused.status_code, "is not finished" in refused.json()["reason"]) == (400, True)
    lines = (done / LEDGER).read_text().splitlines()
    row = json.loads(lines[7])
    row["trial"]["success"] = not row["trial"]["success"]
    (done / LEDGER).write_text("\n".join([*lines[:7], json.dumps(row), *lines[8:]]) + "\n")
    changed = {one["study"]: one for one in client.get("/api/studies").json()["studies"]}[done.name]
    assert (changed["outcome"], "was changed after it was written" in changed["problem"]) == ("", True)
    assert "was changed" in client.get(f"/api/studies/beside?of={done.name}").json()["reason"]
