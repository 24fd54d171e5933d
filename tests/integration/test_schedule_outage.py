"""Prefect's server is killed while a retraining waits for its approval, and again while a stage computes: nothing is lost or made twice."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from components.release.retraining_proposals import ProposalBook, ProposalState, due
from flows.pipeline.recipes import get_recipe
from flows.platform.settings import Settings
from tests.integration.loop_runs import RUN, Home, eventually, kill_tree
from tests.integration.test_rollout_requests import Prefect

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3000)]  # short: tests/unit/test_flow_runs.py


def test_prefect_is_away_while_a_person_approves_and_while_a_stage_computes(tmp_path: Path) -> None:
    """The second time for longer than its clients try again, so that the flow's process ends without a word."""
    home, recipe = Home(tmp_path), str(tmp_path / "small.json")
    prefect = Prefect(settings=Settings(home=tmp_path / "prefect-home"))  # pyright: ignore[reportCallIssue]
    assert home.actwright("recipe", *RUN[1:], "--set", "train.threads=1", "--out", recipe).returncode == 0
    book, store = ProposalBook(tmp_path / "home" / "proposals"), tmp_path / "home" / "store"
    found = due(get_recipe(recipe), (), (), ever_run=False)
    assert found is not None
    proposal = book.propose(found)

    def flows() -> list[psutil.Process]:
        return [one for one in home.processes() if "prefect.engine" in " ".join(one.cmdline())]

    process = None
    try:
        prefect.start()
        process = home.start("schedule", recipe, "--cron", "0 0 1 1 *", ACTWRIGHT_PREFECT_API_URL=prefect.api)
        assert process.stdout is not None
        assert process.stdout.readline()
        prefect.kill()
        assert json.loads(home.actwright("approve", proposal.proposal_id, "--scheduled").stdout)["state"] == "requested"
        prefect.start()
        eventually(lambda: any(store.glob("validate/*")), timeout_s=900)
        prefect.kill()
        eventually(lambda: not flows(), timeout_s=600)
        assert book.find(proposal.proposal_id).state is ProposalState.APPROVED
        made = home.digests()
        prefect.start()
        eventually(lambda: book.find(proposal.proposal_id).state is ProposalState.DONE, timeout_s=1200, every_s=2.0)
        ours = [one for one in prefect.runs() if one["deployment_id"] and not one["auto_scheduled"]]
        assert [one["idempotency_key"] for one in ours] == [proposal.proposal_id]
        (run,) = eventually(lambda: [one for one in prefect.runs() if one["id"] == ours[0]["id"] and one["state_type"] == "COMPLETED"], 120)  # type: ignore[misc]
        assert run["run_count"] == 2
        assert made.items() <= home.digests().items(), "what was finished was not made again"
        assert home.summary()["verdict"]
    finally:
        if process is not None:
            kill_tree(process.pid)
            process.communicate()
        for left in home.processes():
            kill_tree(left.pid)
        prefect.kill()
