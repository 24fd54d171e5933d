"""A cell whose arm is seen on its picture, and goes where a person draws: the real control loop, orders and views, on a clock of its own.

The policy is a script: without a drawing it goes to the red mark, with one along its points. So where the arm ends proves that the drawing
went the whole way, from the page to the driver.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.episode import CameraGeometry
from model_core.spec.protocol.wire import Observe
from model_core.spec.types import Observation
from serving.workcell.audit.interface import NullAudit
from serving.workcell.audit.live_view import LiveView
from serving.workcell.control.order_files import OrderedCell, OrderFiles
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.motion.limits import widest_limits
from tests.fakes import make_contract, make_embodiment
from tests.virtual_world import Service, VirtualClock, VirtualLink

SIZE = 96
BODY = make_embodiment(size=SIZE)
STEP_M = 0.15  # of an action of 1
HOME_M, MARK_M = (0.0, 1.2), (-1.4, -1.2)  # x, y on the table: where it begins, and where it goes by itself
HOSTILE = '<img src=x onerror="window.hacked=1"> push the button'


def to_pixel(place_2: NDArray[np.floating]) -> NDArray[np.float64]:
    """Metres on the table, -2..2, as (x, y) pixels of the camera that looks down on it."""
    return (np.asarray(place_2, np.float64) + 2.0) / 4.0 * (SIZE - 1)


def to_place(pixel_2: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of `to_pixel`."""
    return np.asarray(pixel_2, np.float64) / (SIZE - 1) * 4.0 - 2.0


@dataclass(frozen=True)
class Stepped:
    success: bool = False
    done: bool = False


class DrawnArm:
    """A gripper that slides over a table; a `Robot`."""

    embodiment, task, instruction = BODY, "slide", HOSTILE

    def __init__(self) -> None:
        self.place_2 = np.array(HOME_M)

    def reset(self, seed: int) -> None:
        self.place_2 = np.array(HOME_M)

    def observe(self) -> Observation:
        image = np.full((SIZE, SIZE, 3), (70, 75, 80), np.uint8)
        for place_2, colour, half in ((np.array(MARK_M), (220, 40, 30), 4), (self.place_2, (60, 160, 250), 3)):
            x, y = np.rint(to_pixel(place_2)).astype(int)
            image[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1] = colour
        proprio_P = np.array([*self.place_2, 0.0, 0.0], np.float32)
        return Observation(images={"front": image}, proprio_P=proprio_P, instruction=self.instruction)

    def tcp_3(self) -> NDArray[np.float32]:
        return np.array([*self.place_2, 0.0], np.float32)

    def geometry(self) -> dict[str, CameraGeometry]:
        """A camera a metre above the table."""
        focal, centre = (SIZE - 1) / 4, (SIZE - 1) / 2
        above_44 = np.eye(4)
        above_44[2, 3] = 1.0
        intrinsics_33 = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1.0]])
        return {"front": CameraGeometry(width=SIZE, height=SIZE, intrinsics_33=intrinsics_33, world_to_camera_44=above_44)}

    def act(self, action_A: NDArray[np.float32]) -> Stepped:
        self.place_2 = np.clip(self.place_2 + STEP_M * np.asarray(action_A[:2], np.float64), -1.95, 1.95)
        return Stepped()

    def close(self) -> None: ...


class Follower(Service):
    """Answers each observation with the way to the next point: of what the cell says lies ahead of a drawing, else to the mark."""

    def __init__(self) -> None:
        super().__init__(make_contract(BODY))
        self.answer = self._answered

    @property
    def heard_observes(self) -> list[Observe]:
        return [message for message in self.heard if isinstance(message, Observe)]

    def _answered(self, observe: Observe):
        place_2, drawn = np.asarray(observe.observation.proprio_P[:2], np.float64), observe.steering
        goals = [np.array(MARK_M)]
        if drawn is not None and drawn.ahead_N2 is not None:
            goals = [to_place(point) for point in drawn.ahead_N2]
        way = np.clip(np.rint(to_pixel(np.array([place_2, *goals[:4]])) / (SIZE - 1) * 255), 0, 255).astype(np.int64)
        rows_KA = np.zeros((self.contract.chunk_length, len(BODY.action)), np.float32)
        at_2 = place_2
        for row_A in rows_KA:
            while len(goals) > 1 and np.hypot(*(goals[0] - at_2)) < STEP_M:
                goals = goals[1:]
            row_A[:2] = np.clip((goals[0] - at_2) / STEP_M, -1, 1)
            at_2 = at_2 + STEP_M * row_A[:2]
        chunk = self.chunk(
            observe,
            actions_KA=rows_KA,
            trace_N2=way,
            depth_codes_G=np.arange(100, dtype=np.int64),
            applied_revision=0 if drawn is None else drawn.revision,
            timing_ms={"queue": 1.0, "prefill": 9.0, "decode": 31.0},
            counts={"drafted.depth": 90, "accepted.depth": 81},
        )
        return [(0.05, chunk)]


class DrawnCell:
    """The whole cell, stepped by a thread about `hz` times a second while the block runs."""

    def __init__(self, folder: Path, cell: str = "cell-1", *, hz: float = 20.0) -> None:
        clock, service = VirtualClock(), Follower()
        link = VirtualLink(LinkSettings(cell=cell, embodiment=BODY, deadline_s=0.5, heartbeat_s=0.4), service, clock)
        for _ in range(20):
            link.pump()
            clock.now += 0.001
        self.arm, self.service, self._clock, self._link, self._hz = DrawnArm(), service, clock, link, hz
        self._view = LiveView(NullAudit(), folder / "cells" / cell, cell)
        settings = RealtimeSettings(cell=cell, max_steps=10**6, operator_wait_s=1e6)
        self.cell = RealtimeCell(self.arm, link, settings, widest_limits(BODY), clock=clock, audit=self._view)
        ordered = OrderedCell(cell=self.cell, body=BODY, camera="front", is_realtime=True)
        self._orders = OrderFiles(folder / "cells" / cell, ordered, self._view.answered)
        self.goes = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, name="drawn-cell", daemon=True)

    def __enter__(self) -> DrawnCell:
        assert self.cell.begin(1) is None
        self.goes.set()
        self._orders.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(5.0)
        self._orders.__exit__()
        self._view.close()

    @property
    def pixel_2(self) -> NDArray[np.float64]:
        """Where the gripper is on the picture."""
        return to_pixel(self.arm.place_2)

    def step(self) -> None:
        """One control step."""
        for _ in range(5):
            self._clock.now += 0.01
            self._link.pump()
        self.cell.tick()

    def _main(self) -> None:
        while not self._ended.is_set():
            if self.goes.is_set():
                self.step()
            time.sleep(1 / self._hz)
