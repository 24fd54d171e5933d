"""Cells of one computer that share its policy services: one process for each release, whichever cells are on it and whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.adapters.processes import free_port
from serving.fleet.intake.problems import UpdateRefused
from tests.faults.verdicts import covers
from tests.fleet_agent import Offered, Robot, end_services, make_site, offer, robot_of


@dataclass(frozen=True, slots=True)
class Computer:
    """Two cells on it, each with its agent; releases 1, 2 and 3 are offered."""

    robots: tuple[Robot, Robot]
    services: Path
    releases: tuple[str, ...]

    def turn_until(self, claim: Callable[[], object]) -> None:
        """Turns of both agents."""
        first, second = self.robots

        def is_so() -> object:
            (second.agent or second.start()).turn()
            return claim()

        first.turn_until(is_so)

    def propose(self, *numbers: int) -> None:
        """To each cell a release."""
        for robot, number in zip(self.robots, numbers, strict=True):
            robot.controller.propose(self.releases[number - 1])

    def move(self, *numbers: int) -> None:
        """Until each cell runs that release, and nobody needs another one."""
        self.propose(*numbers)
        wanted = [self.releases[number - 1] for number in numbers]
        self.turn_until(lambda: all(robot.runs(release) for robot, release in zip(self.robots, wanted, strict=True)))
        self.turn_until(lambda: set(self.alive()) == set(wanted))

    def alive(self) -> dict[str, int]:
        """Release -> process id, of the services that live."""
        found: dict[str, int] = {}
        for lock in self.services.glob("*/service.lock"):
            note: dict[str, Any] = json.loads(lock.read_bytes())
            with contextlib.suppress(OSError):
                if str(lock.parent.parent.parent).encode() in Path(f"/proc/{note['pid']}/cmdline").read_bytes():
                    found[note["release"]] = note["pid"]
        return found

    def number(self, robot: Robot) -> int:
        """Of the release that a cell is permitted."""
        permit = robot.permit
        assert permit is not None
        return self.releases.index(permit.release) + 1


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> Offered:
    return make_site(tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def computer(offered, tmp_path) -> Iterator[Computer]:
    """Both cells run release 1, on one service. Release 3 does not answer its probes as it should."""
    shared = {"services": str(tmp_path / "services"), "ports": [free_port(), free_port()]}
    with contextlib.ExitStack() as stack:
        stack.callback(end_services, tmp_path)
        cells = [stack.enter_context(robot_of(offered, tmp_path / f"cell-{n}", cell=f"cell-{n}", **shared)) for n in (1, 2)]
        for robot in cells:
            for made in offered.made[1:]:
                offer(offered, robot.place, made)
        made = Computer((cells[0], cells[1]), tmp_path / "services", tuple(one.release.digest for one in offered.made))
        made.move(1, 1)
        yield made


@covers("F18", I5="the service of a release goes on for the cell that stays on it", I9="each cell runs the release of its own permit")
def test_cells_go_from_one_service_to_the_other_each_for_itself(computer) -> None:
    (first,) = computer.alive().values()
    unused = computer.robots[0].agent.update.service("b")
    assert (unused.is_alive(), unused.started_for(), unused.candidate(), unused.status().state) == (False, "", "", "failed")
    with pytest.raises(UpdateRefused, match="uses no policy service"):
        unused.served()
    computer.move(2, 1)
    running = computer.alive()
    assert running[computer.releases[0]] == first
    urls = {robot.permit.url for robot in computer.robots}
    assert len(urls) == 2
    computer.move(2, 2)
    assert computer.alive() == {computer.releases[1]: running[computer.releases[1]]}  # joined, not started again
    assert len({robot.permit.url for robot in computer.robots}) == 1


@covers("F19", I8="a shared service that is killed is started once; agents that were killed find what they use", I9="nobody takes its room")
def test_a_killed_service_comes_back_once_and_no_other_release_takes_its_room(computer) -> None:
    computer.move(2, 1)
    before = computer.alive()
    os.kill(before[computer.releases[0]], signal.SIGKILL)
    for robot in computer.robots:
        robot.start()  # as after a kill of the agents too
    computer.robots[0].controller.propose(computer.releases[2])
    computer.turn_until(lambda: computer.robots[0].error == "NO_SPACE")  # one for 1, which cell 2 is permitted, and one for 2
    computer.turn_until(lambda: computer.robots[1].runs(computer.releases[0]))
    after = computer.alive()
    assert after[computer.releases[1]] == before[computer.releases[1]]
    assert [computer.number(robot) for robot in computer.robots] == [2, 1]

    for _ in range(12):  # however long it has waited: room is looked for again within seconds
        computer.robots[0].clock.ahead_s += 400
        computer.robots[0].agent.turn()

    computer.robots[1].controller.propose(computer.releases[1])  # it leaves the service of 1, and 3 is tried: its probes differ here
    computer.turn_until(lambda: computer.robots[1].runs(computer.releases[1]))
    computer.robots[0].clock.ahead_s += 15
    computer.turn_until(lambda: computer.robots[0].error == "PROBES")
    computer.turn_until(lambda: set(computer.alive()) == {computer.releases[1]})
    assert [computer.number(robot) for robot in computer.robots] == [2, 2]


@covers(
    "F19",
    I5="a cell that alone holds up a release by its own service goes to the others' release first",
    I9="no probe that fails is served",
)
def test_a_cell_alone_on_its_service_leaves_it_for_a_third_release(computer) -> None:
    one, _, three = computer.releases
    computer.move(2, 1)
    first, second = computer.robots
    stays = computer.alive()[one]
    first.controller.propose(three, rollback_to=[one])
    computer.turn_until(lambda: first.runs(one))
    computer.turn_until(lambda: first.error == "PROBES")  # 3 was started where 2 was, and answers its probes otherwise here
    computer.turn_until(lambda: set(computer.alive()) == {one})
    assert [computer.number(robot) for robot in computer.robots] == [1, 1]
    assert computer.alive()[one] == stays
    assert first.permit.url == second.permit.url


@covers("F1", I9="a service that one cell alone uses comes back at the address that the permit names")
def test_a_killed_service_comes_back_at_the_address_of_the_permit_where_the_other_place_is_free_too(computer) -> None:
    computer.move(2, 1)
    first, second = computer.robots
    second.agent.update.service("a").stop()  # as where that cell is gone
    ((two, pid),) = computer.alive().items()
    assert two == computer.releases[1]
    os.kill(pid, signal.SIGKILL)
    first.turn_until(lambda: computer.alive().get(two, pid) != pid)
    first.controller.reports.clear()
    first.turn_until(lambda: first.runs(two))
    assert first.agent.update.service(first.permit.slot).session_url == first.permit.url


@covers("F30", I9="a service compares the candidate of one cell; another cell's agent neither takes it away nor counts it for its own")
def test_one_cell_of_a_service_has_its_candidate_compared(computer) -> None:
    one, two, _ = computer.releases
    first, second = computer.robots
    first.controller.propose(one, shadow=two)
    computer.turn_until(lambda: first.controller.reports[-1].shadow)
    (file,) = computer.services.glob("*/candidate.json")
    assert json.loads(file.read_text())["cell"] == "cell-1"
    assert second.controller.reports[-1].shadow == ()
    second.controller.propose(one, shadow=two)
    computer.turn_until(lambda: second.error == "NO_SPACE")
    assert first.controller.reports[-1].shadow
    first.controller.propose(one)
    second.clock.ahead_s += 600
    computer.turn_until(lambda: second.controller.reports[-1].shadow and not first.controller.reports[-1].shadow)
    assert json.loads(file.read_text())["cell"] == "cell-2"
    assert len(computer.alive()) == 1
