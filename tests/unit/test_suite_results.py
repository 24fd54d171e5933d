"""What is counted of a suite's trials: exact intervals, tiers, means, the page beside published numbers, and whom it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.artifacts.files import sha256_file
from components.config.recipe import Recipe
from components.config.records import EvalReport, Interval, RolloutRow
from components.evaluation.gate import gate
from components.evaluation.studies.design import read_design
from components.evaluation.studies.ledger import problem_of, read_ledger
from components.evaluation.suites.metaworld import EASY, HARD, metaworld_loop, metaworld_mt50
from components.evaluation.suites.results import check_same_suite, markdown, result_of
from components.report.reproduction import reproduction_page
from components.simulation.metaworld import embodiment
from flows.commands.main import command_line
from flows.pipeline.stages.suite import RESULT
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from tests.tiny_checkpoint import write_tiny_checkpoint


def called(*words: object):
    return CliRunner().invoke(command_line("suite"), ["suite", *map(str, words)])


def told_in(result) -> str:
    """What was printed, without the frame and line ends of the message."""
    return " ".join(result.stderr.replace("│", " ").split())


def report(suite, solved: dict[str, int], *, void: int = 0, digest: str = "c" * 64) -> EvalReport:
    """`solved` of the trials of each task, and in the first task `void` trials that the simulator broke."""
    rows = []
    for task in suite.chosen_tasks:
        for number in range(suite.count):
            success = number < solved.get(task.name, 0)
            is_void = task == suite.chosen_tasks[0] and suite.count - number <= void
            reason = "env_error" if is_void else "success" if success else "max_steps"
            given = {"task": task.name, "seed": number, "steps": 9, "decisions": 3, "refusals": 0}
            rows.append(RolloutRow(success=success, stop_reason=reason, progress=1.0 if success else 0.5, **given))
    protocol = {**suite.rules, "suite": suite.name, "suite_version": suite.version, "first_seed": 5, "reasoning": "full"}
    return EvalReport(
        checkpoint_digest=digest,
        contract_id="0" * 16,
        successes=0,
        trials=0,
        interval=Interval(low=0.0, high=1.0),
        per_task={},
        episodes=tuple(rows),
        protocol=protocol,
    )


def test_rows_tiers_and_means_are_counted_as_published_tables_count_them() -> None:
    suite = metaworld_mt50().chosen(tasks=("reach-v3", "door-open-v3", "push-v3"), count=10)
    found = result_of(suite, report(suite, {"reach-v3": 10, "door-open-v3": 4, "push-v3": 1}, void=0))
    assert [(row.name, row.successes, row.trials) for row in found.tiers] == [(EASY, 14, 20), (HARD, 1, 10)]
    assert found.whole.successes == 15
    assert found.task_mean == pytest.approx(0.5)
    assert found.tier_mean == pytest.approx((0.7 + 0.1) / 2)
    by_name = {row.name: row for row in found.tasks}
    # Clopper-Pearson by hand: 0.025 ** (1 / 10) for ten of ten
    assert (by_name["reach-v3"].low, by_name["reach-v3"].high) == (pytest.approx(0.025**0.1, abs=1e-9), 1.0)
    assert by_name["push-v3"].progress == pytest.approx(0.55)
    assert found.lack == ("3 of the suite's 50 tasks were run.", "10 trials a task were run; a published evaluation has 50.")
    assert from_document(type(found), json.loads(json.dumps(to_document(found)))) == found


def test_a_trial_that_the_simulator_broke_is_no_trial() -> None:
    suite = metaworld_loop().chosen(count=5)
    found = result_of(suite, report(suite, {}, void=2))
    assert (found.tasks[0].trials, found.tasks[0].void, found.whole.trials) == (3, 2, 8)


def test_table_and_page_stand_beside_what_was_published() -> None:
    suite = metaworld_mt50().chosen(tasks=("reach-v3", "push-v3"), count=10)
    found = result_of(suite, report(suite, {"reach-v3": 9}))
    table = markdown(found)
    assert "| reach-v3 | 9/10 | 90.0 % | 55.5 % to 99.7 % |" in table
    assert "| SmolVLA 0.45B | easy 82.5, medium 41.8" in table
    assert "What differs: 10 trials a task" in table
    page = reproduction_page([found], "actwright suite run metaworld_mt50 models/<mine>")
    for text in ("models/&lt;mine&gt;", "mujoco 3.3.0", "SmolVLA 0.45B", "82.5", "90.0 (55 to 100)", "arXiv 2506.01844", "What differs"):
        assert text in page, text
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_results_of_other_trials_are_refused_on_one_page(tmp_path: Path) -> None:
    suite = metaworld_loop().chosen(count=4)
    one = result_of(suite, report(suite, {"drawer-close-v3": 4}))
    two = result_of(suite, report(suite, {"drawer-close-v3": 2}, digest="d" * 64))
    older = replace(two, version="edition 0, metaworld 3.1.1, mujoco 3.2.0")
    fewer = result_of(suite.chosen(count=3), report(suite.chosen(count=3), {}, digest="e" * 64))
    for name, result in {"one": one, "two": two, "older": older, "fewer": fewer}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULT).write_text(json.dumps(to_document(result)))
    page = tmp_path / "page.html"
    both = called("page", tmp_path / "one", tmp_path / "two", "--out", page)
    assert both.exit_code == 0, both.stderr
    assert "metaworld_loop, 2 policies" in page.read_text()
    for name, what in (("older", "suite version"), ("fewer", "states")):
        refused = called("page", tmp_path / "one", tmp_path / name, "--out", tmp_path / "none.html")
        assert refused.exit_code == 2
        assert f"not judged on the same trials: {what}" in told_in(refused)
        assert "Fix: run the older one again: `actwright suite run metaworld_loop" in told_in(refused)
    assert not (tmp_path / "none.html").exists()
    missing = called("page", tmp_path / "nowhere")
    assert missing.exit_code == 2
    assert "Fix: name the folder" in told_in(missing)


def test_a_champion_that_was_judged_under_another_suite_version_is_not_compared() -> None:
    suite = metaworld_loop().chosen(count=20)
    candidate = report(suite, {"drawer-close-v3": 20, "coffee-button-v3": 20})
    champion = replace(report(suite, {"drawer-close-v3": 20}, digest="d" * 64))
    older = replace(champion, protocol={**champion.protocol, "suite_version": "edition 0"})
    verdict = gate(Recipe(name="x").gate, candidate, older)
    assert verdict.decided == "invalid"
    (told,) = [check.reason for check in verdict.checks if check.name == "protocol"]
    assert "suite_version 'edition 0' -> 'edition 1, metaworld 3.1.1" in told
    assert "Fix: evaluate the champion under the candidate's rules" in told


# --- results of vla-eval ----------------------------------------------------------------------------------------------

FOREIGN = {
    "benchmark": "LIBEROBenchmark_libero_object",
    "mode": "sync",
    "harness_version": "0.8.0",
    "created_at": "2026-11-29T10:00:00+00:00",
    "config": {"params": {"suite": "libero_object", "seed": 7}},
    "tasks": [
        {
            "task": "pick up the milk and place it in the basket",
            "num_episodes": 4,
            "mean_success": 0.25,  # it counts as a failure what the simulator broke
            "episodes": [
                {"episode_id": 0, "metrics": {"success": True}, "steps": 120},
                {"episode_id": 1, "metrics": {"success": False}, "steps": 280},
                {"episode_id": 2, "metrics": {"success": False}, "failure_reason": "model_act", "failure_detail": "UNSAFE"},
                {"episode_id": 3, "metrics": {}, "failure_reason": "env_reset", "failure_detail": "no renderer"},
            ],
        }
    ],
}


def test_episodes_of_vla_eval_are_trials_and_what_it_leaves_out_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACTWRIGHT_RUNS", str(tmp_path / "runs"))
    checkpoint = tmp_path / "checkpoint"
    contract = write_tiny_checkpoint(checkpoint, embodiment=embodiment())
    file = tmp_path / "result.json"
    file.write_text(json.dumps(FOREIGN))
    done = called("take-in", file, checkpoint)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    # the refusal is a trial of the policy; what the simulator broke is none
    assert (told["suite"], told["version"]) == ("vla-eval/libero_object", "vla-eval 0.8.0")
    assert (told["successes"], told["trials"], told["void"]) == (1, 3, 1)
    result = json.loads(Path(told["result"]).read_text())
    assert result["contract"] == contract.contract_id
    assert result["rules"]["seed"] == 7
    assert "vla-eval 0.8.0" in Path(told["page"]).read_text()
    ours = result_of(metaworld_loop().chosen(count=4), report(metaworld_loop().chosen(count=4), {}))
    with pytest.raises(SpecError, match=r"not judged on the same trials: suite 'metaworld_loop' and 'vla-eval/libero_object'"):
        check_same_suite([ours, from_document(type(ours), result)])


def episodes(wins: str, **params: object) -> str:
    """A result in which episode n succeeded where letter n is "s", failed at "f", and was not finished at "-"."""
    found = [
        {"episode_id": n, "metrics": {"success": letter == "s"}, **({"failure_reason": "env_reset"} if letter == "-" else {})}
        for n, letter in enumerate(wins)
    ]
    task = {"task": "pick up the milk", "episodes": found}
    return json.dumps(FOREIGN | {"tasks": [task], "config": {"params": {"suite": "libero_object", **params}}})


def test_two_results_of_vla_eval_are_a_study_with_every_episode_on_record(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    new, old = tmp_path / "new", tmp_path / "old"
    write_tiny_checkpoint(new, embodiment=embodiment())
    write_tiny_checkpoint(old, embodiment=embodiment(), seed=1)
    files = [tmp_path / name for name in ("new.json", "old.json", "other.json")]
    for file, content in zip(files, (episodes("s" * 39 + "-"), episodes("fs" * 20), episodes("s", seed=8)), strict=True):
        file.write_text(content)

    def judged(candidate: Path, its: Path, champion: Path, theirs: Path):
        words = ("--candidate", candidate, "--candidate-file", its, "--champion", champion, "--champion-file", theirs)
        return CliRunner().invoke(command_line("study"), ["study", "take-in", *map(str, words)])

    done = judged(new, files[0], old, files[1])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    folder = Path(told["study"])
    assert (told["outcome"], told["trials"], problem_of(folder, told["head"])) == ("promote", 80, "")
    design = read_design(folder)
    trials = read_ledger(folder, design).trials
    assert (design.evaluated_before, sum(trial.void for trial in trials)) == (True, 1)
    assert {trial.evidence for trial in trials} == {sha256_file(file) for file in files[:2]}
    assert judged(old, files[1], new, files[0]).exit_code == 3
    for refused, why in ((judged(new, files[0], new, files[1]), "one checkpoint"), (judged(new, files[2], old, files[1]), "other trials")):
        assert refused.exit_code == 2
        assert why in told_in(refused)


@pytest.mark.parametrize("content", ["{}", "[1]", json.dumps(FOREIGN | {"tasks": []}), "no json"])
def test_another_document_is_refused_with_what_to_do(content: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    write_tiny_checkpoint(tmp_path / "checkpoint", embodiment=embodiment())
    (tmp_path / "result.json").write_text(content)
    refused = called("take-in", tmp_path / "result.json", tmp_path / "checkpoint")
    assert refused.exit_code == 2, refused.output
    assert "vla-eval" in told_in(refused)
    assert "Fix:" in told_in(refused)
