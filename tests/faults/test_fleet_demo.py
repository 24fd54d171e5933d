"""`actwright fleet demo` in small: a real controller, real agents, real cells and drivers; a stub policy in place of a trained one."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from components.deployment.fleet_demo.course import CANARY, Sizes
from components.deployment.fleet_demo.demo import DemoOptions, run_demo
from components.deployment.fleet_demo.proof import prove
from components.deployment.fleet_demo.site import Site
from components.deployment.fleet_demo.timeline import EPISODE, EVIDENCE, UPDATE, Timeline
from components.deployment.fleet_demo.versions import Versions
from components.report.fleet_demo import sentences, write_demo_page
from flows.terminal.fleet_view import FleetView
from model_core.spec.fleet.release import Override
from serving.gateway.inference.stub_policy import stub_contract
from tests.faults.verdicts import covers
from tests.fleet import bundle, release

CONTRACT = json.dumps(stub_contract(control_hz=8.0, chunk_length=16).to_json())
AUDITS = Path(__file__).parents[1] / "golden" / "home_aa4ee54" / "audit" / "cell-02"
# as the demonstration's own: a service ends with the agent that started it
_ENDING = 'exec "{python}" -m serving.lifeline $PPID "{python}" -m tests.faults.poor_service "{bundle}" {port} "{candidate}"'
SERVICE = ("sh", "-c", _ENDING)


def versions_of(site: Site) -> Versions:
    """Version 3 refuses every decision, and passes by override alone."""
    packed = [bundle(site.folder / f"packed-{number}", f"arm/{number}", contract=CONTRACT) for number in (1, 2, 3)]
    made = [release(one, site.folder / "releases", site.keys) for one in packed[:2]]
    override = Override(name="ada", reason="to see it come back")
    return Versions(
        first=made[0], second=made[1], worse=release(packed[2], site.folder / "releases", site.keys, verdict=None, override=override)
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    site = Site(folder=tmp_path_factory.mktemp("fleet"), service=SERVICE)
    site.make()
    (site.folder / "contract.json").write_text(CONTRACT)
    robot = {"contract": str(site.folder / "contract.json"), "steps": 6, "goal": 3, "log": "{folder}/driver.jsonl"}
    options = DemoOptions(
        cells=2,
        tasks=("stub",),
        minutes=3.0,
        sizes=Sizes(bench=1, shadow=3, canary=10, cohort=2, fleet=2),
        guards={"interventions": 0.1},  # cells in real time hold often on a machine that is busy
        robot="serving.workcell.robot.strict_driver:make_robot",
        robot_options=robot,
        realtime=True,
    )
    return site, run_demo(site, versions_of(site), options)


@pytest.mark.soak  # two cells, three versions and some thirty processes' starts: about a minute of processor time
@covers(
    "F18",
    I5="two rollouts and a rollback over agents and cells of their own processes: no episode is cut, none sees two versions",
    I6="every record of every episode is there, by audits and drivers' logs alone",
)
def test_a_version_reaches_every_cell_and_a_worse_one_comes_back_without_cutting_an_episode(shown) -> None:
    site, result = shown
    assert result.problem == ""
    assert result.proof.holds, result.document["proof"]
    assert sorted(lock.parent.name for lock in site.services.glob("*/service.lock")) == ["0", "1"]  # all cells shared two services
    assert not list(site.folder.glob("cells/*/agent/services"))
    good, poor = result.document["rollouts"]
    assert [stage["stage"] for stage in good["stages_s"]][-1] == "passed"
    assert (poor["status"], poor["override"]) == ("rolled back", "ada: to see it come back")
    assert "shadow" in [stage["stage"] for stage in good["stages_s"]]
    assert poor["stage"] == CANARY
    assert "shown to be worse" in poor["reason"]
    reached = result.document["reached"]
    assert reached["cells"] == 2
    assert sum(reached["parts"].values()) == pytest.approx(reached["seconds"], abs=0.01)
    second = good["release"]
    assert [cells[-1]["release"] for cells in result.document["cells"].values()] == [second, second]
    page = write_demo_page(result.document, site.folder).read_text()
    for words in ("OVERRIDE by ada", "rolled back", "cell-2", result.proof.told):
        assert words in page
    assert any("to version 2 on 2 of 2 cells" in line for line in sentences(result.document))


@pytest.fixture
def recorded(tmp_path) -> Path:
    """A cell's folder with two recorded audits, and a driver's log of two episodes on two versions."""
    shutil.copytree(AUDITS, tmp_path / "cell-02" / "audit")
    (tmp_path / "cell-02" / "cell").mkdir()
    (tmp_path / "cell-02" / "cell" / "begun.json").write_text('{"begun": 2}')
    move = {"chunk_id": "c1", "contract_id": "c"}
    lines = [
        {"event": "reset"},
        {**move, "model_version": "arm/1"},
        {"event": "reset"},
        {**move, "model_version": "arm/2"},
        {"chunk_id": ""},
    ]
    write_log(tmp_path / "cell-02", lines)
    return tmp_path / "cell-02"


def write_log(folder: Path, lines: list[dict[str, str]]) -> None:
    (folder / "driver.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_whole_records_prove_a_fleet(recorded) -> None:
    found = prove({"cell-02": recorded})
    assert (found.episodes, found.holds) == (2, True)
    assert sum(trials for _, trials in found.bundles.values()) == 2


def test_an_audit_that_is_torn_or_missing_is_found(recorded) -> None:
    first, second = sorted(recorded.glob("audit/**/[0-9]*-*.mcap"))
    first.write_bytes(first.read_bytes()[:-400])
    second.unlink()
    found = prove({"cell-02": recorded})
    assert any("2 episodes were begun, 1 are audited" in one for one in found.lost)
    assert any(first.name in one for one in found.lost)


def test_a_version_that_changes_inside_an_episode_is_found_in_the_drivers_log(recorded) -> None:
    move = {"chunk_id": "c1", "contract_id": "c"}
    write_log(recorded, [{"event": "reset"}, {**move, "model_version": "arm/1"}, {**move, "model_version": "arm/2"}])
    (found,) = prove({"cell-02": recorded}).changed
    assert "line 3: a command of arm/2 in an episode of another version" in found


def cell(name: str, running: str, proposed: str, phase: str = "idle", shadow: str = "", shadowed: int = 0) -> dict[str, object]:
    told = {"name": name, "running": running, "proposed": proposed, "phase": phase}
    return told | {"shadow": shadow, "shadowed": shadowed, "error": ""}


def test_the_live_view_shows_shadows_guards_with_their_limits_and_overrides() -> None:
    rollout = {"id": 2, "status": "running", "stage": "shadow", "told": "version 3: running", "override": "ada: to see it come back"}
    rollout |= {"finished": 20, "guards": {"holds": "3 of 20"}, "decisions": 7, "distances": {"action": 0.031, "refused": 0.5}}
    sample = Timeline().add(
        0.0, {"cells": [cell("a", "1", "1", shadow="3", shadowed=7), cell("b", "1", "3", "probe")], "rollouts": [rollout]}
    )
    view = FleetView({"1": 1, "3": 3}, {"holds": 0.6, "interventions": 0.1}, live=True)
    view.console = Console(width=160, file=io.StringIO(), record=True)
    with view.shown():
        view.update(sample)
    shown = view.console.export_text()
    for words in (
        "version 3 in its shadow, 7 decisions compared",
        "1>3",
        "probe",
        "holds in 3 of 20 (at most 60%), interventions in 0 of 20 (at most 10%)",
        "in shadow: 7 decisions compared, first actions 3.1% of their range apart, 50% refused",
        "OVERRIDE by ada: to see it come back",
    ):
        assert words in shown


def test_the_time_is_told_by_what_it_went_by_with() -> None:
    timeline = Timeline()
    rows = [
        (0.0, [cell("a", "1", "1"), cell("b", "1", "1")]),
        (2.0, [cell("a", "1", "2", "probe"), cell("b", "1", "1")]),
        (3.0, [cell("a", "1", "2", "ready"), cell("b", "1", "2", "verify")]),
        (5.0, [cell("a", "1", "2", "ready"), cell("b", "1", "2", "ready")]),
        (6.0, [cell("a", "2", "2"), cell("b", "2", "2")]),
        (9.0, [cell("a", "2", "2"), cell("b", "1", "1")]),
    ]
    for at_s, cells in rows:
        timeline.add(at_s, {"cells": cells, "rollouts": []})
    reached = timeline.reached("2", 0.5)
    assert reached is not None
    assert (reached.seconds, reached.cells) == (5.5, 2)
    assert dict(reached.parts) == {UPDATE: 2.5, EPISODE: 2.0, EVIDENCE: 1.0}
    assert timeline.reached("3", 0.0) is None
    assert [(one.release, one.from_s, one.to_s) for one in timeline.stretches("b")] == [("1", 0.0, 5.0), ("2", 5.0, 6.0), ("1", 6.0, 9.0)]
