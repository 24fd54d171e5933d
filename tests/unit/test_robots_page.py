"""The robot in docs/robots.md is a robot: its very text is run under the real-time cell."""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from model_core.spec.types import StopReason
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.motion.limits import widest_limits
from serving.workcell.robot.interface import AgedSenses, Proprioceptive, Robot
from tests.fakes import make_contract
from tests.virtual_world import Service, VirtualClock, VirtualLink

PAGE = Path(__file__).parents[2] / "docs" / "robots.md"


@dataclass
class Shot:
    pixels: np.ndarray
    taken_at: float


@dataclass
class Bus:
    """The vendor's side: joints go where they are told, a little late."""

    at: np.ndarray = field(default_factory=lambda: np.array([0.3, -0.2, 0.1, 1.0], np.float32))
    told: list[np.ndarray] = field(default_factory=list)
    refused_at: int = -1
    pressed_at: int = -1

    def wait_until_idle(self) -> None:
        pass

    def newest_frame(self) -> Shot:
        return Shot(np.zeros((48, 64, 3), np.uint8), time.monotonic())

    def stop_pressed(self) -> bool:
        return len(self.told) == self.pressed_at

    def go_to(self, action_A: np.ndarray) -> bool:
        if len(self.told) == self.refused_at:
            self.refused_at = -1
            return False
        self.told.append(np.array(action_A))
        self.at = self.at + 0.5 * (action_A - self.at)
        return True

    def why(self) -> str:
        return "over current"

    def job_is_over(self) -> bool:
        return len(self.told) >= 60

    def positions(self) -> np.ndarray:
        return self.at

    def release(self) -> None:
        pass


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    text = PAGE.read_text().split("```python\n")[1].split("```")[0]
    assert len(text.splitlines()) < 60
    path = tmp_path_factory.mktemp("page") / "my_arm.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("my_arm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_arm"] = module
    spec.loader.exec_module(module)
    return module


def drive(page: ModuleType, bus: Bus) -> tuple[StopReason | None, VirtualLink, RealtimeCell]:
    robot = page.MyArm("drawer", bus)
    assert isinstance(robot, Robot)
    assert isinstance(robot, AgedSenses)
    assert isinstance(robot, Proprioceptive)
    contract = make_contract(page.BODY)
    service = Service(contract, latency=lambda seq: 0.1)
    service.rows = lambda observe: np.tile(observe.observation.proprio_P + np.float32(0.01), (8, 1)).clip(0, 1).astype(np.float32)
    clock = VirtualClock()
    link = VirtualLink(LinkSettings(cell="c", embodiment=page.BODY), service, clock)
    for _ in range(10):
        link.pump()
        clock.now += 0.001
    cell = RealtimeCell(robot, link, RealtimeSettings(cell="c"), widest_limits(page.BODY), clock=clock)
    assert cell.begin(1) is None
    for _ in range(200):
        for _ in range(5):
            clock.now += 0.01
            link.pump()
        reason = cell.tick()
        if reason is not None:
            return reason, link, cell
    return None, link, cell


def test_it_works_and_is_held_where_it_is_measured_before_the_first_answer(page: ModuleType) -> None:
    bus = Bus()
    reason, link, _ = drive(page, bus)
    assert reason is StopReason.MAX_STEPS
    assert bus.told[0][:3].tolist() == pytest.approx([0.3, -0.2, 0.1])
    assert link.tally.chunks > 5
    assert link.epoch == 1


def test_a_command_that_its_bus_refuses_begins_a_new_epoch(page: ModuleType) -> None:
    reason, link, _ = drive(page, Bus(refused_at=20))
    assert reason is StopReason.MAX_STEPS
    assert link.epoch == 2


def test_its_stop_button_is_a_safe_stop(page: ModuleType) -> None:
    reason, _, cell = drive(page, Bus(pressed_at=20))
    assert reason is StopReason.GUARD_STOPPED
    assert cell.machine.mode.value == "SAFE_STOP"
