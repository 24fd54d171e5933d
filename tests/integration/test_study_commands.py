"""`actwright study run` with real parts: two policies in Meta-World, and a cell of its own process against two services."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.config.data_config import CollectConfig
from components.config.judging.gate_config import GateConfig
from components.config.recipe import EvalConfig
from components.config.records import Silent
from components.evaluation.studies.design import lock
from components.evaluation.studies.ledger import problem_of
from components.evaluation.studies.run import run_study
from components.evaluation.studies.simulated import open_contestants, simulated_design, simulated_trials
from components.evaluation.suite import open_suite
from flows.commands.main import command_line
from model_core.spec.errors import SpecError
from tests.fakes import EchoPolicy, make_contract
from tests.loopback import echo_gateway, serve

TOY = "tests.toy_policy:open_toy"
COLLECT = CollectConfig(tasks=("drawer-close-v3",))
CFG = EvalConfig(seeds_per_task=2, horizon_sim_steps=48, execute_horizon=8)
GATE = GateConfig(max_pairs=2, pairs_per_block=1, margin=0.3)


def checkpoint(folder: Path, **plan: object) -> Path:
    folder.mkdir()
    (folder / "toy.json").write_text(json.dumps(plan))
    return folder


def test_two_policies_meet_the_same_scenes_in_a_simulator(tmp_path: Path) -> None:
    suite = open_suite(CFG, COLLECT)
    both = {"candidate": checkpoint(tmp_path / "a", blind=True), "champion": checkpoint(tmp_path / "b", blind=False)}
    opened = open_contestants(CFG, suite, both, tmp_path / "parts", TOY)
    folder = lock(tmp_path, simulated_design(CFG, GATE, opened, seed=1, metric="success"))
    _, ledger = run_study(folder, simulated_trials(CFG, opened, folder / "film"), Silent())
    assert problem_of(folder, ledger.head) == ""
    assert len(ledger.trials) in (2, 4)
    first = ledger.trials[0]
    assert first.policy == opened.digests[first.side]
    assert (first.turn, first.suite, first.steps > 0, first.contract) == (1, "metaworld", True, opened.contracts[first.side])
    assert (folder / first.video).is_file()
    again = lock(tmp_path / "again", simulated_design(CFG, GATE, opened, seed=1, metric="success"))
    assert run_study(again, simulated_trials(CFG, opened), Silent())[1].trials[0].steps == first.steps
    with pytest.raises(SpecError, match="candidate and champion are one checkpoint"):
        open_contestants(CFG, suite, {**both, "champion": both["candidate"]}, tmp_path / "parts", TOY)


@pytest.fixture
def services(tmp_path: Path):
    """Two gateways, each over a policy with its own version."""
    contract = tmp_path / "contract.json"
    contract.write_text(json.dumps(make_contract().to_json()))
    policies = [EchoPolicy(contract=make_contract(), model_version=version) for version in ("arm/4", "arm/3")]
    with serve(echo_gateway(policies[0])) as candidate, serve(echo_gateway(policies[1])) as champion:
        yield contract, (f"http://{candidate}", f"http://{champion}")


@pytest.mark.parametrize("is_stopped", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_cell_is_driven_against_two_services_and_a_person_labels_blindly(tmp_path, monkeypatch, services, is_stopped):
    contract, (candidate, champion) = services
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    answers = tmp_path / "answers.txt"
    words = [
        "study",
        "run",
        "loop",
        "--url",
        f"candidate={candidate}",
        "--url",
        f"champion={champion}",
        "--robot",
        "strict",
        "--task",
        "wave",
    ]
    words += ["--option", f"contract={contract}", "--option", "steps=12", "--operator", "Ada", "--answers", str(answers)]
    words += ["--set", "gate.max_pairs=2", "--set", "gate.pairs_per_block=1"]
    if is_stopped:
        answers.write_text("yes\n")
        stopped = CliRunner().invoke(command_line("study"), words)
        assert "no answer for trial 2" in str(stopped.exception), stopped.output
    answers.write_text("yes\nno 0.4\n")
    done = CliRunner().invoke(command_line("study"), words)
    assert done.exit_code == 4, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["trials"], told["outcome"]) == (2, "not enough")
    rows = [json.loads(line)["trial"] for line in (Path(told["study"]) / "trials.jsonl").read_text().splitlines()]
    assert [(row["success"], row["progress"], row["operator"]) for row in rows] == [(True, 1.0, "Ada"), (False, 0.4, "Ada")]
    assert {row["side"] for row in rows} == {"candidate", "champion"}
    assert all(row["audit"] and row["blind"].startswith("policy ") and not row["void"] for row in rows)
    assert list((Path(told["study"]) / "audit").glob("*.mcap"))
    assert "arm/" not in done.output, "the person is not told which policy it is"
    amended = CliRunner().invoke(
        command_line("study"), ["study", "amend", Path(told["study"]).name[:6], "--reason", "new lamp", "--by", "Ada"]
    )
    assert amended.exit_code == 0, amended.output
    status = CliRunner().invoke(command_line("study"), ["study", "status"])
    assert "AMENDED after trial 2 by Ada: new lamp" in status.output
