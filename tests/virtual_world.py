"""A cell, its link and a scripted service on one virtual clock: hours of faults in milliseconds, the same every time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Chunk, Control, End, Hello, Message, Observe, Ready, decode_message, encode_message
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.link.link_types import LinkEvent, LinkSettings, ObserveRequest, read_frame
from serving.workcell.motion.limits import Limits
from serving.workcell.robot.strict_driver import StrictDriver
from tests.core_link import CoreLink
from tests.fakes import make_contract


@dataclass
class VirtualClock:
    """Seconds that pass only when told."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Service:
    """Answers OBSERVE after `latency(seq)` seconds with `rows(observe)`. `answer`: replaces all that, gives (delay, message) pairs."""

    contract: PolicyContract
    latency: Callable[[int], float] = lambda seq: 0.05
    rows: Callable[[Observe], NDArray[np.float32]] | None = None
    answer: Callable[[Observe], list[tuple[float, Message | bytes | str]]] | None = None
    ready: dict[str, object] = field(default_factory=dict)
    version: str = "virtual/1"
    heard: list[Message] = field(default_factory=list)
    is_mute: bool = False
    is_gone: bool = False

    def reply(self, message: Message) -> list[tuple[float, Message | bytes | str]]:
        """(delay in s, message) pairs."""
        self.heard.append(message)
        if self.is_mute:
            return []
        if isinstance(message, Hello):
            session = Ready(session_id=f"s{message.epoch}", epoch=message.epoch, model_version=self.version, contract=self.contract)
            return [(0.001, replace(session, **self.ready))]  # type: ignore[arg-type]
        if isinstance(message, Control) and message.kind == "PING":
            return [(0.001, replace(message, kind="PONG"))]
        if isinstance(message, Observe):
            return self.answer(message) if self.answer is not None else [(self.latency(message.seq), self.chunk(message))]
        return []

    def chunk(self, observe: Observe, **changes: object) -> Chunk:
        """A good answer, or one with `changes`."""
        length, dims = self.contract.chunk_length, len(self.contract.embodiment.action)
        rows_KA = np.full((length, dims), 0.1, np.float32) if self.rows is None else self.rows(observe)
        hz = self.contract.embodiment.control_hz
        chunk = Chunk(
            session_id=observe.session_id,
            epoch=observe.epoch,
            seq=observe.seq,
            chunk_id=f"c{observe.epoch}-{observe.seq}",
            contract_id=self.contract.contract_id,
            model_version=self.version,
            actions_KA=rows_KA,
            control_hz=hz,
            expires_ms=1e3 * length / hz,
            committed=0 if observe.committed_DA is None else len(observe.committed_DA),
        )
        return replace(chunk, **changes)  # type: ignore[arg-type]


class VirtualLink(CoreLink):
    """`LinkCore` whose network is a queue of (time, message)."""

    def __init__(self, settings: LinkSettings, service: Service, clock: VirtualClock) -> None:
        super().__init__(settings, clock)
        self.service, self.clock = service, clock
        self.is_cut = False
        self._count = itertools.count()
        self._wire: list[tuple[float, int, int, Message | bytes | str]] = []
        self._connection = 0

    def ask(self, question: ObserveRequest) -> int:
        seq = super().ask(question)
        self.pump()
        return seq

    def poll(self) -> list[LinkEvent]:
        self.pump()
        return self.core.poll()

    def wait(self, timeout_s: float) -> None:
        """Let the clock run until something is heard, for `timeout_s` at most."""
        give_up_at = self.clock.now + timeout_s
        while not self.core.has_news and self.clock.now < give_up_at:
            self.clock.now += 0.001
            self.pump()

    def pump(self) -> None:
        """Let everything happen that is due now."""
        core, now = self.core, self.clock()
        if core.may_dial(now) and not self.service.is_gone:
            self._connection = core.dialling(now)
            core.opened(now)
        elif core.may_dial(now):
            core.dialling(now)
            core.closed(now, "nobody there")
        while self._wire and self._wire[0][0] <= now:
            _, _, connection, message = heapq.heappop(self._wire)
            if connection == self._connection and not self.is_cut:
                core.take(read_frame(message if isinstance(message, bytes | str) else encode_message(message)), now)
        core.tick(now)
        while (message := core.outgoing(now)) is not None:
            if self.is_cut:
                continue
            for delay, reply in self.service.reply(decode_message(encode_message(message))):
                heapq.heappush(self._wire, (now + delay, next(self._count), self._connection, reply))
        core.tick(now)


@dataclass
class World:
    """Everything, made."""

    clock: VirtualClock
    link: VirtualLink
    service: Service
    robot: StrictDriver
    cell: RealtimeCell
    period_s: float

    def step(self, count: int = 1) -> list[object]:
        """Control steps; what each said."""
        said: list[object] = []
        for _ in range(count):
            for _ in range(5):  # the network is finer than the control loop
                self.clock.now += self.period_s / 5
                self.link.pump()
            said.append(self.cell.tick())
            if said[-1] is not None:
                break
        return said


def make_world(
    *,
    contract: PolicyContract | None = None,
    service: Service | None = None,
    limits: Limits | None = None,
    link: dict[str, object] | None = None,
    robot: dict[str, object] | None = None,
    cell: dict[str, object] | None = None,
    audit: object = None,
    watch: object = None,
    seed: int = 3,
    is_begun: bool = True,
) -> World:
    """A strict driver under a real-time cell; the link is up and the episode has begun."""
    contract = contract or (service.contract if service is not None else make_contract())
    service = service or Service(contract)
    clock, body = VirtualClock(), contract.embodiment
    settings = LinkSettings(**{"cell": "cell-v", "embodiment": body, "deadline_s": 0.5, "heartbeat_s": 0.4, **(link or {})})  # type: ignore[arg-type]
    made = VirtualLink(settings, service, clock)
    driver = StrictDriver(body, limits, clock, **{"steps": 10_000, **(robot or {})})  # type: ignore[arg-type]
    for _ in range(20):
        made.pump()
        clock.now += 0.001
    assert made.is_up
    driven = RealtimeCell(
        driver,
        made,
        RealtimeSettings(**{"cell": "cell-v", "max_steps": 10_000, **(cell or {})}),  # type: ignore[arg-type]
        driver.limits,
        clock=clock,
        audit=audit,  # type: ignore[arg-type]
        watch=watch,  # type: ignore[arg-type]
    )
    if is_begun:
        assert driven.begin(seed) is None
    return World(clock, made, service, driver, driven, 1.0 / body.control_hz)


__all__ = ["Control", "End", "Service", "VirtualClock", "VirtualLink", "World", "make_world"]
