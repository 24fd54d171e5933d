"""`actwright champion`: a person's decisions, each a compare-and-set that stays on record."""

from __future__ import annotations

import json
from dataclasses import replace

from typer.testing import CliRunner

from components.adapters.mlflow.registry import MlflowRegistry
from components.adapters.mlflow.server import TrackingAddress
from components.artifacts.empty_databases import copy_database
from flows.commands.main import command_line
from flows.pipeline.recipes import get_recipe
from flows.pipeline.run import champion_since
from flows.pipeline.run_context import RunContext
from flows.platform.settings import load_settings
from flows.platform.wiring import open_platform
from flows.terminal.stage_progress import StagePanel
from tests.report_data import run_summary


def test_promote_roll_back_and_withdraw_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path))
    copy_database("mlflow", tmp_path / "mlflow.db")
    registry = MlflowRegistry(TrackingAddress(home=tmp_path))
    for letter in "abc":
        registry.create_version(
            "arm",
            checkpoint_uri=f"file:///{letter}",
            checkpoint_digest=letter * 64,
            contract_id="0123456789abcdef",
            run_id=f"train-{letter}",
            lineage={"dataset_version": "d" * 64},
        )

    def call(*words):
        done = CliRunner().invoke(command_line("champion"), ["champion", *words])
        told = json.loads(done.stdout.splitlines()[-1]) if done.exit_code == 0 else {}
        return done, told

    assert "arm never had a champion" in call("status", "arm")[0].output
    for number in (1, 2, 3):
        done, told = call("promote", f"arm/{number}", "--reason", "passed the pilot")
        assert (done.exit_code, told["number"], told["version"], told["how"]) == (0, number, number, "person")
    done, _ = call("promote", "arm/1", "--reason", "late", "--expected", "2")
    assert "champion of arm is version 3, expected 2" in str(done.exception)
    assert "no version arm/9 is registered; there are: arm/1, arm/2, arm/3" in str(call("promote", "arm/9", "--reason", "no")[0].exception)
    assert call("rollback", "arm", "--reason", "drops the cup")[1]["version"] == 2
    assert call("rollback", "arm", "--reason", "again")[1]["version"] == 1
    assert "its champion replaced no other version" in str(call("rollback", "arm", "--reason", "again")[0].exception)
    context = RunContext(platform=open_platform(load_settings()), recipe=get_recipe("loop"), panel=StagePanel(live=False))
    summary = run_summary(tmp_path / "run")
    found = replace(summary, model_version=replace(summary.model_version, name="arm", version=3))
    found = replace(found, stages={**found.stages, "gate": replace(found.stages["gate"], cached=True)})
    told = "arm/3 was promoted by this verdict; since number 5 version 1 is champion (rollback: again). To make it champion again: "
    assert champion_since(context, found) == f"{told}`actwright champion promote arm/3 --reason TEXT`"
    assert champion_since(context, replace(found, model_version=replace(found.model_version, version=1))) == ""
    assert call("withdraw", "arm", "--reason", "mislabelled")[1]["number"] == 6
    done, told = call("status", "arm")
    assert (told["champion"], [one["how"] for one in told["history"]]) == (None, ["person"] * 3 + ["rollback"] * 2 + ["withdrawn"])
    assert "arm number 4: version 2, before version 3 (rollback, " in done.output
    assert registry.champion("arm") is None
