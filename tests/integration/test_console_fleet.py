"""The console's fleet pages over a real controller on loopback: what they show, who may order what, and in whose name it is done."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from components.adapters.processes import free_port
from flows.commands.main import command_line
from flows.web.http.people import People
from model_core.access import Tokens
from tests.console_parts import console_over
from tests.fleet_console import NEW, OLD, live_fleet, token_of


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with live_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.start()
        yield fleet


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def asked(fleet, home):
    client = console_over(home, people=People(Tokens.from_file(fleet.tokens)), fleet_url=fleet.url)

    def call(path, body=None, *, by="lou", expect=200):
        headers = {"authorization": f"Bearer {token_of(by)}"}
        reply = client.get(path, headers=headers) if body is None else client.post(path, json=body, headers=headers)
        assert reply.status_code == expect, reply.text
        return reply.json()

    return call


def test_cells_are_shown_by_what_they_report_and_a_silent_one_is_stale(fleet, asked):
    fleet.round(3, silent="cell-4")
    page = asked("/api/fleet")
    assert (page["absent"], page["controller"]) == ("", fleet.url)
    assert {one["digest"]: one["model_version"] for one in page["releases"]} == {NEW: "pick/4", OLD: "pick/3"}
    cells = {one["name"]: one for one in page["state"]["cells"]}
    assert {name: one["site"] for name, one in cells.items()} == {"cell-1": "lab", "cell-2": "lab", "cell-3": "plant", "cell-4": "plant"}
    assert {name: one["running"] for name, one in cells.items()} == {one.name: one.running for one in fleet.cells}
    assert [name for name, one in cells.items() if one["is_stale"]] == ["cell-4"]
    rollout = page["state"]["rollouts"][-1]
    assert (rollout["status"], rollout["stage"], rollout["stages"]) == ("running", "one cell", ["one cell", "fleet"])
    assert (rollout["reached"], rollout["proposed"], rollout["stale"]) == (1, 1, 1)
    assert "1 approvals of stage fleet" in rollout["missing"]
    assert "1 stale since" in rollout["told"]


def test_what_ran_where_at_a_time_is_told_with_its_evidence(fleet, asked, monkeypatch):
    fleet.round(2)
    ran = asked("/api/fleet/ran")
    assert {one["cell"]: one["release"] for one in ran["cells"]} == {one.name: one.running for one in fleet.cells}
    assert {one["proof"] for one in ran["cells"]} == {"reports"}
    assert {one["model_version"] for one in ran["cells"]} == {"pick/3", "pick/4"}
    before = asked(f"/api/fleet/ran?at_s={ran['now_s'] - 1e6}")["cells"]
    assert {(one["proof"], one["release"]) for one in before} == {("none", "")}
    assert "future" in asked(f"/api/fleet/ran?at_s={ran['now_s'] + 60}", expect=409)["reason"]
    monkeypatch.setenv("ACTWRIGHT_TOKEN", token_of("lou"))
    at = datetime.fromtimestamp(ran["now_s"] - 20.0, UTC).isoformat()
    done = CliRunner().invoke(command_line("fleet"), ["fleet", "ran", "--url", fleet.url, "--at", at])
    assert "4 of 4 cells are proven" in done.output
    told = json.loads(done.stdout.splitlines()[-1])["cells"]
    assert [one["release"] for one in told] == [one["release"] for one in ran["cells"]]
    assert CliRunner().invoke(command_line("fleet"), ["fleet", "ran", "--url", fleet.url, "--at", "noon"]).exit_code == 2


def test_lineage_goes_from_a_release_to_the_robots_that_run_it(fleet, asked):
    page = asked(f"/api/lineage?of={NEW[:8]}")
    [start] = page["starts"]
    assert (start["id"], [line["id"] for line in start["made_of"]]) == (f"release:{NEW}", ["version:pick/4"])
    running = [one.name for one in fleet.cells if one.running == NEW]
    assert running
    assert page["told"] == f"Made with it: runs on {', '.join(running)}."
    back = asked(f"/api/lineage?of={running[0]}")["starts"][0]["made_of"]
    assert {f"release:{NEW}", f"release:{OLD}"} <= {line["id"] for line in back}  # the one before, too
    assert {"kind": "cell", "name": "cell-1"}.items() <= next(
        one for one in asked("/api/lineage")["things"] if one["id"] == "cell:cell-1"
    ).items()
    assert "Fix:" in asked("/api/lineage?of=0000", expect=404)["reason"]


def test_each_order_needs_its_role_and_reaches_the_controller_in_the_name_of_the_person(asked, home):
    orders = "/api/fleet/rollouts/1/orders"
    for path, body in ((orders, {"kind": "pause"}), ("/api/fleet/freeze", {}), ("/api/fleet/kills", {"scope": "fleet", "reason": "r"})):
        asked(path, body, by="lou", expect=403)
    for path, body in (("/api/fleet/rollouts/1/skip", {"reason": "r"}), ("/api/fleet/unfreeze", {}), ("/api/fleet/kills/1/release", {})):
        asked(path, body, by="ada", expect=403)
    assert "reason" in asked(orders, {"kind": "rollback"}, by="ada", expect=400)["reason"]
    asked("/api/fleet/rollouts/..%2fkills/orders", {"kind": "pause"}, by="ada", expect=404)
    assert "paused" in asked(orders, {"kind": "pause", "reason": "a look at cell-4"}, by="ada")["told"]
    refused = asked(orders, {"kind": "pause"}, by="ada", expect=409)
    assert "pause does not fit" in refused["reason"]
    assert "running" in asked(orders, {"kind": "resume"}, by="bo")["told"]
    log = asked("/api/fleet/log")
    assert log["problem"] == ""
    assert [(line["subject"], "resume by bo" in line["detail"]) for line in log["lines"][:2]] == [("bo", True), ("ada", False)]
    assert asked(f"/api/fleet/log?until_s={log['lines'][-1]['at_s']}")["lines"][-1] == log["lines"][-1]
    kept = asked("/api/operators")
    assert kept["problem"] == ""
    assert [(line["person"], bool(line["refused"])) for line in kept["lines"][:3]] == [("bo", False), ("ada", True), ("ada", False)]
    assert "token-of" not in (home / "console/operators.jsonl").read_text()


def test_a_kill_is_released_by_two_persons(asked):
    asked("/api/fleet/kills", {"scope": "cell", "target": "cell-1", "reason": "loose cable"}, by="bo")
    kill = asked("/api/fleet")["state"]["kills"][0]
    assert (kill["scope"], kill["target"], kill["ordered_by"]) == ("cell", "cell-1", "bo")
    release = f"/api/fleet/kills/{kill['id']}/release"
    assert "a second person" in asked(release, {}, by="bo")["told"]
    assert "second person" in asked(release, {}, by="bo", expect=409)["reason"]
    assert asked(release, {}, by="cy")["told"] == f"kill {kill['id']} is released, by bo and cy"
    assert asked("/api/fleet")["state"]["kills"] == []


def test_a_rollout_is_rolled_back_for_a_reason_that_stays_in_both_logs(fleet, asked):
    asked("/api/fleet/freeze", {"reason": "inventory"}, by="ada")
    assert asked("/api/fleet")["state"]["is_frozen"]
    asked("/api/fleet/unfreeze", {"reason": "done"}, by="bo")
    asked("/api/fleet/rollouts/1/orders", {"kind": "rollback", "reason": "drops cups"}, by="ada")
    fleet.round(2)
    page = asked("/api/fleet")["state"]
    assert (page["rollouts"][-1]["status"], page["rollouts"][-1]["reason"]) == ("rolled back", "rollback by ada: drops cups")
    assert {one["running"] for one in page["cells"]} == {OLD}
    assert "drops cups" in asked("/api/fleet/log")["lines"][0]["detail"]
    assert json.loads(asked("/api/operators")["lines"][0]["asked"])["reason"] == "drops cups"


def test_a_controller_that_is_not_there_is_a_page_that_says_what_to_start(fleet, home):
    nowhere = console_over(home, fleet_url=f"http://127.0.0.1:{free_port()}")
    page = nowhere.get("/api/fleet").json()
    assert page["state"] is None
    assert "actwright fleet up" in page["absent"]
    # tokens are shown to a controller only where one was named
    unnamed = console_over(home, people=People(Tokens.from_file(fleet.tokens)))
    told = unnamed.get("/api/fleet", headers={"authorization": f"Bearer {token_of('lou')}"}).json()
    assert (told["controller"], told["state"]) == ("", None)
    assert "ACTWRIGHT_FLEET_URL" in told["absent"]
