"""Studies: a design that is locked once, and a chain of trials that shows every change."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from components.config.judging.gate_config import GateConfig
from components.evaluation.studies.design import DESIGN, LEDGER, lock, read_design
from components.evaluation.studies.evidence import design_of, record_study
from components.evaluation.studies.ledger import problem_of, read_ledger
from flows.commands.main import command_line
from model_core.spec.errors import DatasetError
from tests.unit.test_gate_pairs import both

ROUNDS = [tuple(zip(both(0.9, 0.9, range(5 * n, 5 * n + 5), (n, n + 50)), ("mine", "theirs"), strict=True)) for n in range(3)]


def design():
    return design_of(GateConfig(), ROUNDS[0][0][0], ROUNDS[0][1][0])


@pytest.fixture
def study(tmp_path):
    return record_study(tmp_path, design(), ROUNDS)[0]


def test_every_trial_of_both_sides_is_on_record_in_order(study):
    found = read_ledger(study, read_design(study))
    assert [(t.block, t.side) for t in found.trials[:4]] == [(0, "candidate"), (0, "champion")] * 2
    assert len(found.trials) == 3 * 5 * 2 * 2
    assert problem_of(study, found.head) == ""


def test_a_study_killed_at_any_point_ends_with_the_ledger_of_an_undisturbed_one(study, tmp_path):
    whole = (study / LEDGER).read_bytes()
    rng = random.Random(0)
    for place in [rng.randrange(len(whole)) for _ in range(20)]:
        (study / LEDGER).write_bytes(whole[:place])
        assert problem_of(study) == ""
        record_study(tmp_path, design(), ROUNDS)
        assert (study / LEDGER).read_bytes() == whole
    record_study(tmp_path, design(), ROUNDS[:1])  # fewer than it has: nothing is taken out
    assert (study / LEDGER).read_bytes() == whole


def changed_row(lines):
    row = json.loads(lines[7])
    row["trial"]["success"] = not row["trial"]["success"]
    lines[7] = json.dumps(row)


def moved_rows(lines):
    lines[3], lines[4] = lines[4], lines[3]


@pytest.mark.parametrize(
    ("change", "place"), [(changed_row, 8), (lambda lines: lines.pop(7), 8), (moved_rows, 4), (lambda lines: lines.insert(2, lines[2]), 4)]
)
def test_a_changed_row_a_removed_row_a_moved_and_a_doubled_one_are_found_where_they_are(study, tmp_path, change, place):
    lines = (study / LEDGER).read_text().splitlines()
    change(lines)
    (study / LEDGER).write_text("\n".join(lines) + "\n")
    assert problem_of(study).startswith(f"trial {place} of ")
    with pytest.raises(DatasetError, match="restore the ledger"):
        record_study(tmp_path, design(), ROUNDS)


def test_rows_that_are_missing_at_the_end_are_found_by_the_head(study):
    head = read_ledger(study, read_design(study)).head
    lines = (study / LEDGER).read_text().splitlines()
    (study / LEDGER).write_text("\n".join(lines[:-1]) + "\n")
    assert problem_of(study) == ""
    assert "taken out" in problem_of(study, head)


def test_a_changed_design_is_found_and_cannot_be_locked_over(study, tmp_path):
    document = json.loads((study / DESIGN).read_text())
    document["gate"]["margin"] = 0.4
    (study / DESIGN).write_text(json.dumps(document))
    assert "was changed" in problem_of(study)
    with pytest.raises(DatasetError, match="changed since it was locked"):
        lock(tmp_path, design())
    (study / DESIGN).unlink()
    assert "expected the design of a study" in problem_of(study)


def test_another_margin_is_another_study(tmp_path):
    first = lock(tmp_path, design())
    other = lock(tmp_path, replace(design(), gate={"margin": 0.4}))
    assert first != other


def test_a_trial_is_run_once(study, tmp_path):
    again = [tuple(zip(both(0.1, 0.9, range(5), (0, 50)), ("mine", "theirs"), strict=True))]
    with pytest.raises(DatasetError, match="A trial is run once"):
        record_study(tmp_path, design(), again)


def test_a_home_without_studies_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path))
    done = CliRunner().invoke(command_line("study"), ["study", "status"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout.splitlines()[-1]) == {"studies": []}
    assert "no study in this home yet; `actwright run` makes one" in done.output
