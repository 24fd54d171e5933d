"""A cell, a network and a service on one virtual clock: hours of trouble in seconds, the same every time.

    world = World(tmp_path, Script(faults=...), latency_ms=20)
    world.at(1.0, world.half_open)
    world.run(seconds=5)
    assert not world.breaches()

Real parts: the cell's control loop, scheduler, state machine, envelope, `LinkCore`, the strict driver. Ours: time, the wire
(latency per direction, half-open, cut), and a service that answers by a fault script. Every message crosses the wire as bytes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import DimSpec, EmbodimentSpec, PolicyContract, VectorSpec
from model_core.spec.protocol.wire import Control, Hello, Observe, Ready, decode_message, encode_message
from model_core.spec.types import StopReason
from serving.fault_injection.contents import contract_for
from serving.fault_injection.responder import Responder
from serving.fault_injection.script import Script
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.control.results import EpisodeResult
from serving.workcell.link.link_types import LinkSettings, read_frame
from serving.workcell.motion.limits import Limits, widest_limits
from serving.workcell.motion.motion_state import MotionSettings
from serving.workcell.robot.strict_driver import InvariantBroken, StrictDriver
from tests.core_link import CoreLink
from tests.fakes import make_embodiment
from tests.faults.audit_notes import MemoryAudit
from tests.faults.checker import Bounds, Breach, Evidence, Line, check, read_driver_log

STEP_S = 0.005
DEADLINE_S, HEARTBEAT_S = 0.5, 0.6


OPEN_DRIVERS: list[StrictDriver] = []


class Clock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def absolute_body() -> EmbodimentSpec:
    """The small arm with poses in place of deltas: a hold is where it is, the gripper stays as it was."""
    dims = tuple(DimSpec(name=n, unit="m", low=-2.0, high=2.0) for n in ("x", "y", "z"))
    gripper = DimSpec(name="gripper", unit="1", low=-1.0, high=1.0)
    body = make_embodiment()
    return replace(body, name="fake-pose-arm", action=VectorSpec(dims=(*dims, gripper), mode="absolute"), hold=(None,) * 4)


def lively(observe: Observe, contract: PolicyContract) -> NDArray[np.float32]:
    """Actions that move, are smooth enough for any limit, and differ from question to question."""
    body, length = contract.embodiment, contract.chunk_length
    steps_K = observe.step + np.arange(length)
    rows_KA = np.zeros((length, len(body.action)), np.float32)
    if body.action.mode == "absolute":
        rows_KA[:, :3] = 0.3 * np.sin(0.02 * steps_K)[:, None]
    else:
        rows_KA[:, 0] = 0.2 + 0.1 * np.sin(0.1 * steps_K)
        rows_KA[:, 1] = (observe.seq % 50) / 1000
    rows_KA[:, 3] = 1.0 if (observe.step // 40) % 2 else -1.0
    return rows_KA


@dataclass(slots=True)
class Service:
    """A service at the other end of the wire. down: nothing listens. frozen_until_s: takes bytes, does nothing with them."""

    script: Script
    contract: PolicyContract
    model_version: str = "virtual/1"
    answer: Callable[[Observe, PolicyContract], NDArray[np.float32]] = lively
    is_down: bool = False
    frozen_until_s: float = 0.0
    requests: int = 0
    connections: int = 0
    lease_s: float = 0.0


class VirtualLink(CoreLink):
    """`LinkCore` over a wire made of a heap. Implements the cell's `Link`."""

    def __init__(self, settings: LinkSettings, service: Service, clock: Clock) -> None:
        super().__init__(settings, clock)
        self.service = service
        self.up_ms = self.down_ms = 5.0
        self.mtu_ms = 0.0  # time that a picture takes through a narrow link
        self.lost_up = self.lost_down = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._responder: Responder | None = None
        self._generation = 0
        self._is_connected = False
        self._last_up_s = self._last_down_s = 0.0

    # --- the wire -------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Let everything happen that is due now."""
        now = self._clock()
        self.core.tick(now)
        if self.core.wants_cut:
            self._hang_up("cut by this cell")
        if self.core.may_dial(now):
            self._dial(now)
        while self._is_connected and (message := self.core.outgoing(now)) is not None:
            self._send_up(encode_message(message), now)
        while self._events and self._events[0][0] <= now:
            heapq.heappop(self._events)[2]()

    def break_connection(self, reason: str) -> None:
        """The far end is gone, and says so (FIN or RST)."""
        if self._is_connected or self.core._state in ("dialling", "greeting"):
            self._hang_up(reason)

    def _hang_up(self, reason: str) -> None:
        self._generation += 1
        self._is_connected = False
        self._responder = None
        self.core.closed(self._clock(), reason)

    def _dial(self, now: float) -> None:
        self.core.dialling(now)
        self._generation += 1
        self.service.connections += 1
        rule = self.service.script.for_connection(self.service.connections)
        generation, number = self._generation, self.service.connections
        if self.service.is_down:
            self._later(now + self.up_ms / 1e3, generation, lambda: self._hang_up("connection refused"))
        elif rule is not None and rule.fault == "hang-up":
            self._later(now + self.up_ms / 1e3, generation, lambda: self._hang_up("hung up"))
        elif (rule is None or rule.fault != "mute") and not (self.lost_up or self.lost_down):
            self._later(now + (self.up_ms + self.down_ms) / 1e3, generation, lambda: self._opened(number))

    def _opened(self, number: int) -> None:
        service = self.service
        self._responder = Responder(
            service.script, number, contract=service.contract, answer=service.answer, model_version=service.model_version
        )
        self._is_connected = True
        self.core.opened(self._clock())

    def _later(self, at_s: float, generation: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), lambda: act() if generation == self._generation else None))

    def _send_up(self, data: bytes, now: float) -> None:
        if self.lost_up:
            return
        self._last_up_s = max(self._last_up_s, now + self.up_ms / 1e3 + self.mtu_ms / 1e3 * (len(data) > 500))
        self._later(self._last_up_s, self._generation, lambda: self._arrived(data))

    def _arrived(self, data: bytes) -> None:
        service, now = self.service, self._clock()
        if service.is_down:
            return
        if now < service.frozen_until_s:
            self._later(service.frozen_until_s, self._generation, lambda: self._arrived(data))
            return
        message, responder = decode_message(data), self._responder
        assert responder is not None
        rule = responder.rule
        if rule is not None and rule.fault == "handshake-only":
            return
        if isinstance(message, Hello):
            answer = responder.greet(message)
            if isinstance(answer, Ready):
                answer = replace(answer, lease_s=service.lease_s)
            self._send_down([encode_message(answer)], 0.0)
        elif isinstance(message, Observe):
            self._asked(message, responder)
        elif isinstance(message, Control) and (said := responder.control(message)) is not None:
            self._send_down([encode_message(said)], 0.0)

    def _asked(self, observe: Observe, responder: Responder) -> None:
        service = self.service
        service.requests += 1
        number = service.requests
        planned = service.script.for_request(number)
        for rule in planned.rules:
            if rule.fault == "freeze":
                service.frozen_until_s = self._clock() + rule.ms / 1e3
            if rule.fault == "kill":
                service.is_down = True
                self.break_connection("the process died")
                return
        if "close" in planned.names:
            self.break_connection("reset by peer")
            return
        at_s = max(self._clock() + planned.delay_ms / 1e3, service.frozen_until_s)
        self._later(at_s, self._generation, lambda: self._send_down(responder.answers(observe, number, planned), 0.0))

    def _send_down(self, frames: Sequence[bytes | str], delay_s: float) -> None:
        if self.lost_down:
            return
        for frame in frames:
            self._last_down_s = max(self._last_down_s, self._clock() + delay_s + self.down_ms / 1e3)
            self._later(self._last_down_s, self._generation, lambda frame=frame: self._delivered(frame))

    def _delivered(self, frame: bytes | str) -> None:
        if not self.lost_down:
            self.core.take(read_frame(frame), self._clock())


@dataclass
class World:
    """Everything that takes part in one run."""

    folder: Path
    script: Script = field(default_factory=Script)
    body: EmbodimentSpec = field(default_factory=make_embodiment)
    latency_ms: float = 10.0
    strategy: str = "async"
    limits: Limits | None = None
    driver_options: dict[str, Any] = field(default_factory=dict)
    motion: MotionSettings = field(default_factory=MotionSettings)
    chunk_length: int = 8
    execute_horizon: int = 4
    max_steps: int = 100_000
    operator: Callable[[], str] | None = None
    operator_wait_s: float = 0.0
    link_options: dict[str, Any] = field(default_factory=dict)
    make_cell: Callable[..., RealtimeCell] = RealtimeCell
    make_link: Callable[..., VirtualLink] = VirtualLink
    lease_s: float = 0.0

    def __post_init__(self) -> None:
        self.clock = Clock()
        contract = contract_for(self.body, chunk_length=self.chunk_length, execute_horizon=self.execute_horizon)
        self.service = Service(script=self.script, contract=contract, lease_s=self.lease_s)
        settings = LinkSettings(
            cell="cell-v", embodiment=self.body, **{"deadline_s": DEADLINE_S, "heartbeat_s": HEARTBEAT_S, **self.link_options}
        )
        self.link = self.make_link(settings, self.service, self.clock)
        self.link.up_ms = self.link.down_ms = self.latency_ms
        self.limits = self.limits or widest_limits(self.body)
        self.log = self.folder / "driver.jsonl"
        self.driver = StrictDriver(self.body, self.limits, self.clock, steps=self.max_steps, log=self.log, **self.driver_options)
        OPEN_DRIVERS.append(self.driver)
        self.audit = MemoryAudit()
        self.lost: list[tuple[float, float]] = []
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._began = self.clock.now
        self.cell: RealtimeCell | None = None
        self.broken: list[str] = []

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.clock.now - self._began

    @property
    def t_hold_s(self) -> float:
        """What this configuration promises: a chunk's own life, or the cut that a dead peer brings."""
        assert self.limits is not None
        life_s = self.chunk_length / self.body.control_hz
        return min(life_s, 1.5 * HEARTBEAT_S + self.limits.hold_within_ms / 1e3) + 1.5 / self.body.control_hz

    def at(self, seconds: float, deed: Callable[[], None]) -> None:
        """Do this so long after the first episode began."""
        heapq.heappush(self._plan, (seconds, next(self._order), deed))

    def connect(self, patience_s: float = 10.0) -> bool:
        """Wait until the link is up."""
        end = self.clock.now + patience_s
        while not self.link.is_up and self.clock.now < end:
            self._pass(STEP_S)
        return self.link.is_up

    def start(self) -> RealtimeCell:
        """Shake hands and build the cell."""
        assert self.connect(), "the link did not come up"
        assert self.limits is not None
        settings = RealtimeSettings(
            cell="cell-v",
            strategy=self.strategy,
            motion=self.motion,
            max_steps=self.max_steps,
            operator=self.operator,
            operator_wait_s=self.operator_wait_s,
        )
        self.cell = self.make_cell(
            self.driver, self.link, settings, self.limits, audit=self.audit, clock=self.clock, sleep=self.clock.sleep
        )
        return self.cell

    def run(self, seconds: float, *, seed: int = 1) -> EpisodeResult:
        """One episode of at most so many seconds."""
        cell = self.cell or self.start()
        self._began = self.clock.now
        reason = cell.begin(seed)
        period_s = 1.0 / self.body.control_hz
        next_s = self.clock.now
        try:
            while reason is None and self.now < seconds:
                reason = cell.tick()
                next_s = max(next_s + period_s, self.clock.now)  # a pause of the agent is not made up for
                while self.clock.now < next_s - 1e-9:
                    self._pass(min(STEP_S, next_s - self.clock.now))
        except InvariantBroken as error:
            self.broken.append(str(error))
            reason = StopReason.ENV_ERROR
        return cell.end(reason or StopReason.MAX_STEPS)

    def _pass(self, seconds: float) -> None:
        self.clock.now += seconds
        while self._plan and self.cell is not None and self._plan[0][0] <= self.now:
            heapq.heappop(self._plan)[2]()
        self.link.pump()

    # --- deeds ----------------------------------------------------------------------------------------------------------

    def lose(self, until_s: float) -> None:
        """Remember that nothing can come from now on until `until_s` (world time)."""
        self.lost.append((self.clock.now, self._began + until_s))

    def half_open(self, direction: str = "both") -> None:
        """Packets vanish; nobody is told."""
        self.link.lost_up, self.link.lost_down = direction in ("both", "up"), direction in ("both", "down")

    def heal(self) -> None:
        """Packets pass again; what was connected before is forgotten by the far end."""
        self.link.lost_up = self.link.lost_down = False

    def kill_service(self) -> None:
        """kill -9: the kernel says so to the peer."""
        self.service.is_down = True
        self.link.break_connection("the process died")

    def revive_service(self, **changes: object) -> None:
        """It listens again, perhaps with another model_version or contract."""
        for name, value in changes.items():
            setattr(self.service, name, value)
        self.service.is_down = False

    def freeze_service(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        self.service.frozen_until_s = self.clock.now + seconds

    # --- judgement --------------------------------------------------------------------------------------------------------

    def driver_lines(self) -> list[Line]:
        """Every command of the log."""
        return read_driver_log(self.log)

    def moving(self, after: float = 0.0, before: float = 1e9) -> int:
        """Commands with a chunk between two world times."""
        return sum(bool(line["chunk_id"]) for line in self.driver_lines() if after <= line["t"] - self._began < before)

    def held(self, after: float = 0.0, before: float = 1e9) -> int:
        """Holds between two world times."""
        return sum(not line["chunk_id"] for line in self.driver_lines() if after <= line["t"] - self._began < before)

    def evidence(self) -> Evidence:
        """All that the judge may see."""
        return Evidence(
            driver=self.driver_lines(), notes=self.audit.notes, bounds=bounds_of(self.body), t_hold_s=self.t_hold_s, lost=self.lost
        )

    def breaches(self) -> list[Breach]:
        """What the judge says, and what the driver itself said."""
        late = [f"I2 a row came to the driver {self.driver.late_s:.4f} s late"] if self.driver.late_s > 0 else []
        return check(self.evidence()) + [Breach(text[:2], text) for text in self.broken + late]


def bounds_of(body: EmbodimentSpec) -> Bounds:
    """The limits as plain numbers for the judge."""
    names = [dim.name for dim in body.proprio.dims]
    places = [names.index(dim.name) if dim.name in names else -1 for dim in body.action.dims]
    return Bounds(
        low=body.action.low.tolist(),
        high=body.action.high.tolist(),
        hold=list(body.hold),
        mode=body.action.mode,
        state_of=places,
        jump=(body.action.high - body.action.low).tolist() if body.action.mode == "absolute" else (),
    )
