"""An agent that is killed before each of its changes to the disk: F19, F20. After each kill the robot has a working release, and the
next agent finishes the update."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.adapters.processes import free_port
from tests.faults.fork_server import ForkServer
from tests.faults.verdicts import covers
from tests.fleet_agent import Offered, Robot, end_services, make_site, offer, robot_of

IMPORTED = (
    *("tests.fleet_agent", "flows.commands.main", "flows.terminal.output", "tuf.ngclient", "tuf.api.metadata", "securesystemslib.signer"),
    *("model_signing.verifying", "model_signing.hashing", "cryptography.hazmat.primitives.asymmetric.ed25519"),
)


LONG = [pytest.mark.soak, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> Offered:
    return make_site(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def updating(offered, tmp_path_factory) -> Iterator[Robot]:
    """A robot on release 1 whose controller proposes release 2; its folder is copied for each kill, its agent does not run."""
    with robot_of(offered, tmp_path_factory.mktemp("robot")) as robot:
        one, two = (made.release.digest for made in offered.made[:2])
        robot.controller.propose(one)
        robot.turn_until(lambda: robot.runs(one))
        end_services(robot.home)
        offer(offered, robot.place, offered.made[1])
        robot.controller.propose(two)
        yield robot


@contextlib.contextmanager
def copy_of(robot: Robot, folder: Path, *, shares: bool = False) -> Iterator[Path]:
    """Another computer in the same state, with ports of its own; gives its settings file. shares: its services are for several cells."""
    shutil.copytree(robot.folder, folder, ignore=shutil.ignore_patterns("service.log"))
    config = folder / "agent.json"
    changes: dict[str, object] = {"ports": [free_port(), free_port()], "services": "services" if shares else None}
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    try:
        yield config
    finally:
        end_services(folder if shares else folder / "agent")


def what_is_wrong(folder: Path, offered: Offered) -> list[str]:
    """By the files alone, with none of the agent's code: the permitted slot holds exactly one release that was offered, byte for byte."""
    permit = json.loads((folder / "cell" / "permit.json").read_text())
    made = {one.release.digest: one.folder for one in offered.made[:2]}
    if permit["release"] not in made:
        return [f"the permit names {permit['release'][:16]}"]
    listed = json.loads((made[permit["release"]] / "release.json").read_text())
    expected = {**listed["files"], **((listed["base"] or {}).get("files", {}))}
    expected = {path: file["sha256"] for path, file in expected.items() if path.startswith("bundle/")}
    slot = folder / "agent" / "slots" / permit["slot"]
    there = {
        path.relative_to(slot).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (slot / "bundle").rglob("*")
        if path.is_file()
    }
    return [f"{path}: {there.get(path)}" for path in {**expected, **there} if there.get(path) != expected.get(path)]


def served_by(folder: Path) -> str:
    """The bundle that the permitted service says it serves."""
    url = (
        json.loads((folder / "cell" / "permit.json").read_text())["url"].replace("ws://", "http://").replace("/v1/session", "/v1/contract")
    )
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())["bundle_digest"]


@covers(
    "F19",
    I5="the permit changes in one step, under the lock",
    I9="killed before any of its changes, the permitted slot is whole; the next agent finishes",
)
@pytest.mark.parametrize(("kills", "shares"), [(2, False), pytest.param(10_000, False, marks=LONG), pytest.param(40, True, marks=LONG)])
def test_an_agent_that_is_killed_before_any_of_its_changes(updating, offered, tmp_path, kills, shares, record_property) -> None:
    """kills: so many, spread evenly over the changes of report, download, verify, probe and swap; or before each one. shares: its policy
    services are for several cells, and what it writes of their use is among the changes."""
    two = offered.made[1].release.digest
    with ForkServer(imported=IMPORTED) as server:

        def update(config: Path, **fault: object):
            return server.run("call", "tests.fleet_agent:turn_to", str(config), two, under=config.parent, **fault)

        with copy_of(updating, tmp_path / "whole", shares=shares) as config:
            whole = update(config)
            assert (whole.code, what_is_wrong(config.parent, offered)) == (0, []), whole.told
        assert whole.changes > 20
        every = max(whole.changes // kills, 1)
        moments = range(1 + every // 2, whole.changes + 1, every)
        for at in moments:
            with copy_of(updating, tmp_path / f"kill-{at}", shares=shares) as config:
                killed = update(config, fault="kill", at=at)
                assert killed.code in (-9, 0), killed.told  # fewer changes than in the first run: it was done before
                assert what_is_wrong(config.parent, offered) == [], at
                after = update(config)
                assert (after.code, what_is_wrong(config.parent, offered)) == (0, []), after.told
                permit = json.loads((config.parent / "cell" / "permit.json").read_text())
                assert (permit["release"], served_by(config.parent)) == (two, permit["bundle_digest"])
            shutil.rmtree(config.parent)
    record_property("kills", f"{len(moments)} in {whole.changes} changes")


@covers("F20", I9="a disk that is full from any change on: the running release stays whole; with room again the update goes on")
@pytest.mark.parametrize("every", [60, pytest.param(4, marks=pytest.mark.soak)])
def test_a_disk_that_is_full_from_any_change_on(updating, offered, tmp_path, every) -> None:
    two = offered.made[1].release.digest
    with ForkServer(imported=IMPORTED) as server:

        def update(config: Path, **fault: object):
            return server.run("call", "tests.fleet_agent:turn_to", str(config), two, "4", under=config.parent, **fault)

        for at in range(4, 60, every):
            with copy_of(updating, tmp_path / f"full-{at}") as config:
                full = update(config, fault="full", at=at)
                assert full.code in (0, 9), full.told
                assert what_is_wrong(config.parent, offered) == [], at
                after = server.run("call", "tests.fleet_agent:turn_to", str(config), two, under=config.parent)
                assert (after.code, what_is_wrong(config.parent, offered)) == (0, []), after.told
            shutil.rmtree(config.parent)
