"""One loop, two clocks: a script of answers, delays, refusals, a HOLD and a lost lease is driven in simulated time and in real time.

Every command is compared. Where a simulated world stands still until the answer is there, the held steps are left out and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.protocol.wire import Control, Message, Observe, Reject, SteeringInput, decode_message, encode_message
from model_core.spec.types import Observation, RefusalCode, StopReason
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.interface import Link
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.link.waiting_link import SimulatedClock, WaitingLink
from serving.workcell.link.websocket_link import AsyncLink
from serving.workcell.motion.limits import widest_limits
from serving.workcell.robot.interface import CommandTag
from tests.fakes import make_contract, make_embodiment, make_observation
from tests.virtual_world import Service, VirtualClock, VirtualLink

HZ = 5.0  # everything happens in the middle of a control step: 100 ms are room enough for a busy machine
PERIOD_S = 1 / HZ
BODY = replace(make_embodiment(), control_hz=HZ)
CONTRACT = replace(make_contract(), embodiment=BODY)
DRAWN = SteeringInput(points_N2=np.array([[1, 2], [10, 12]], np.float32), image="front", width=16, height=16, revision=3, ttl_ms=60_000.0)
Reply = list[tuple[float, Message | bytes | str]]


@dataclass(frozen=True)
class Command:
    """What a driver was told."""

    mode: str
    chunk_id: str
    row: int
    epoch: int
    action: tuple[float, ...]


@dataclass
class Step:
    success: bool = False
    done: bool = False


@dataclass
class Tape:
    """A robot that keeps every command, and knows how old its picture is."""

    embodiment: EmbodimentSpec = BODY
    task: str = "button"
    instruction: str = "push the button"
    commands: list[Command] = field(default_factory=list)
    machine: Callable[[], float] = time.monotonic
    lives_s: list[float] = field(default_factory=list)
    tagged: CommandTag = field(default_factory=lambda: CommandTag(mode=""))

    def reset(self, seed: int) -> None:
        self.commands.clear()

    def observe(self) -> Observation:
        return make_observation(self.embodiment, value=len(self.commands))

    def proprio_P(self) -> NDArray[np.float32]:
        return self.observe().proprio_P

    def ages_ms(self) -> dict[str, float]:
        return {"front": 12.0}

    def tag(self, tag: CommandTag) -> None:
        self.tagged = tag

    def act(self, action_A: NDArray[np.float32]) -> Step:
        tag = self.tagged
        if tag.row >= 0:
            self.lives_s.append(tag.expires_at_s - self.machine())
        self.commands.append(Command(tag.mode, tag.chunk_id, tag.row, tag.epoch, tuple(float(x) for x in action_A)))
        return Step()

    def close(self) -> None:
        pass


class Script:
    """Eight requests and what becomes of them; while it holds its cells it refuses everything.

    ending: what the service orders (KILL, DRAIN) while the last answer is executed; "" for nothing.
    """

    def __init__(self, ending: str = "") -> None:
        self.ending = ending
        self.asked: list[Observe] = []
        self.is_holding = False
        self.service = Service(CONTRACT, answer=self.answer)

    def answer(self, observe: Observe) -> Reply:
        ids = {"session_id": observe.session_id, "epoch": observe.epoch}
        if self.is_holding:
            return [(0.1, Reject(**ids, seq=observe.seq, code=RefusalCode.NOT_READY, reason="held", retryable=True))]
        self.asked.append(observe)
        number = len(self.asked)
        rows_KA = np.full((CONTRACT.chunk_length, len(BODY.action)), 0.05 * number, np.float32)
        rows_KA[:, 0] += 0.01 * np.arange(len(rows_KA), dtype=np.float32)
        chunk = self.service.chunk(observe, chunk_id=f"answer-{number}", actions_KA=rows_KA)
        hold, reset = Control(kind="HOLD", **ids, text="the engine is stuck"), Control(kind="RESET", **ids)
        replies: dict[int, Reply] = {
            2: [(0.1, Reject(**ids, seq=observe.seq, code=RefusalCode.PARSE, reason="no trace"))],
            3: [(0.1, chunk), (0.68, hold), (1.08, reset)],
            4: [(0.7, chunk)],  # the deadline is 0.5
            5: [(0.1, Reject(**ids, seq=observe.seq, code=RefusalCode.OVERLOAD, reason="busy", retryable=True, retry_after_ms=200.0))],
            6: [(0.1, Reject(**ids, code=RefusalCode.LEASE, reason="the lease ran out", retryable=True))],
        }
        if number == 8 and self.ending:
            replies[8] = [(0.1, chunk), (0.68, Control(kind=self.ending, **ids, text="a person said so"))]
        return replies.get(number, [(0.1, chunk)])

    def sent(self, reply: Message | bytes | str) -> None:
        """This reply goes out now."""
        if isinstance(reply, Control) and reply.kind in ("HOLD", "RESET"):
            self.is_holding = reply.kind == "HOLD"


class ScriptedLink(VirtualLink):
    """Tells the script what arrives."""

    def __init__(self, script: Script, clock: VirtualClock, *, world_waits: bool) -> None:
        super().__init__(settings(world_waits=world_waits), script.service, clock)
        self._script = script

    def poll(self):
        heard = super().poll()
        for one in heard:
            if one.kind == "told":
                self._script.is_holding = one.code == "HOLD"
        return heard


def settings(*, world_waits: bool = False) -> LinkSettings:
    """Backs off for a whole step, so that the new session comes in the middle of one."""
    return LinkSettings(cell="c", embodiment=BODY, deadline_s=0.5, heartbeat_s=30.0, first_backoff_s=0.2, world_waits=world_waits)


@dataclass(frozen=True)
class Run:
    """What came of one run."""

    commands: list[Command]
    asked: Sequence[tuple[object, ...]]
    reason: StopReason
    lives_s: list[float] = field(default_factory=list, compare=False)


def drive(
    link: Link, script: Script, clock: Callable[[], float], sleep: Callable[[float], None], machine: Callable[[], float] | None = None
) -> Run:
    """One episode, until eight rows after the last answer are done."""
    robot = Tape(machine=machine or clock)
    limits = widest_limits(BODY)
    made = RealtimeSettings(cell="c", strategy="sync", level="full", max_steps=1000)
    cell = RealtimeCell(robot, link, made, limits, clock=clock, sleep=sleep)
    act = robot.act

    def act_to_the_end(action_A: NDArray[np.float32]) -> Step:
        act(action_A)
        return Step(done=robot.commands[-1].chunk_id == "answer-8" and robot.commands[-1].row == 3)

    robot.act = act_to_the_end  # type: ignore[method-assign]
    cell.steer(DRAWN)
    result = cell.run_episode(3)
    asked = [
        (
            one.previous_chunk_id,
            one.consumed,
            one.level,
            None if one.steering is None else one.steering.revision,
            sorted(one.age_ms),
            one.age_ms["front"] >= 12.0,
            one.epoch,
        )
        for one in script.asked
    ]
    return Run(list(robot.commands), asked, result.stop_reason, robot.lives_s)


def in_virtual_time(ending: str = "") -> Run:
    """Simulated clock, answers take simulated time: nothing stands still."""
    clock, script = VirtualClock(), Script(ending)
    link = ScriptedLink(script, clock, world_waits=False)

    def sleep(seconds: float) -> None:
        until = clock.now + seconds
        while clock.now < until - 1e-9:
            clock.now = min(clock.now + 0.005, until)
            link.pump()

    sleep(0.1)
    return drive(link, script, clock, sleep)


def in_standing_time(ending: str = "") -> Run:
    """Simulated clock that stands still while an answer is made; the world is as fast as a real one otherwise."""
    wall, world, script = VirtualClock(), SimulatedClock(), Script(ending)
    link = ScriptedLink(script, wall, world_waits=True)

    def rest(seconds: float) -> None:
        until = wall.now + seconds
        while wall.now < until - 1e-9:
            wall.now = min(wall.now + 0.005, until)
            link.pump()

    def sleep(seconds: float) -> None:
        world.sleep(seconds)
        rest(seconds)

    rest(0.1)
    return drive(WaitingLink(link, world, wall=wall, sleep=rest), script, world, sleep, wall)


@contextlib.contextmanager
def served(script: Script) -> Iterator[str]:
    """The same script behind a real socket."""

    def talk(socket: ServerConnection) -> None:
        def send(reply: Message | bytes | str) -> None:
            script.sent(reply)
            with contextlib.suppress(ConnectionClosed):
                socket.send(reply if isinstance(reply, bytes | str) else encode_message(reply))

        with contextlib.suppress(ConnectionClosed):
            for data in socket:
                assert isinstance(data, bytes)
                for delay_s, reply in script.service.reply(decode_message(data)):
                    threading.Timer(delay_s, send, [reply]).start()

    with serve(talk, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/v1/session"
        server.shutdown()


def in_real_time(ending: str = "") -> Run:
    """Wall clock, a real socket."""
    script = Script(ending)
    with served(script) as url, contextlib.closing(AsyncLink(url, settings())) as link:
        link.start()
        wait_until_up(link, 10.0)
        return drive(link, script, time.monotonic, time.sleep)


@pytest.fixture(scope="module")
def virtual() -> Run:
    return in_virtual_time()


def rows(chunk_id: str, count: int) -> list[tuple[str, int]]:
    return [(chunk_id, row) for row in range(count)]


MOVED = [*rows("answer-1", 4), *rows("answer-3", 3), *rows("answer-7", 4), *rows("answer-8", 4)]
HELD = ("", -1)


def test_the_script_does_what_it_says(virtual: Run) -> None:
    assert virtual.reason is StopReason.MAX_STEPS  # the tape's own end
    moved = [command for command in virtual.commands if command.mode != "HOLD"]
    assert [(command.chunk_id, command.row) for command in moved] == MOVED
    assert {command.epoch for command in moved} == {1, 2}  # the lease was lost in between
    assert [asked[:4] for asked in virtual.asked] == [
        ("", 0, "full", 3),
        ("answer-1", 4, "full", 3),
        *[("", 0, "full", 3)] * 5,  # a refusal, a HOLD, a deadline, an overload and a lost session leave no row
        ("answer-7", 4, "full", 3),
    ]


@pytest.mark.parametrize("ending", ["", "KILL"])
def test_a_real_clock_gives_every_command_of_a_simulated_one(ending: str) -> None:
    virtual, real = in_virtual_time(ending), in_real_time(ending)
    for _ in range(4):  # a busy machine is late now and then; a loop that decides otherwise does so every time
        real = real if real == virtual else in_real_time(ending)
    assert real.commands == virtual.commands
    assert real.asked == virtual.asked
    assert real.reason == virtual.reason


def moves(run: Run) -> list[Command]:
    return [command for command in run.commands if command.chunk_id]


def test_a_kill_stops_the_cell_under_every_clock() -> None:
    for run in (in_virtual_time("KILL"), in_standing_time("KILL")):
        assert [(command.chunk_id, command.row) for command in moves(run)] == MOVED[:-1]
        assert run.reason is StopReason.GUARD_STOPPED


def test_a_drain_lets_the_episode_end_under_every_clock(virtual: Run) -> None:
    for run in (in_virtual_time("DRAIN"), in_standing_time("DRAIN")):
        assert moves(run) == moves(virtual)
        assert run.reason == virtual.reason


def test_a_world_that_stands_still_leaves_out_the_waiting_and_nothing_else(virtual: Run) -> None:
    standing = in_standing_time()
    assert [c for c in standing.commands if c.mode != "HOLD"] == [c for c in virtual.commands if c.mode != "HOLD"]
    assert standing.asked == virtual.asked
    # a driver judges by the machine's clock, which went on while the world stood still
    assert standing.lives_s
    assert all(0 < life_s <= PERIOD_S * CONTRACT.chunk_length + 1e-6 for life_s in standing.lives_s)
    assert standing.reason == virtual.reason
    assert [(command.chunk_id, command.row) for command in standing.commands] == [
        *rows("answer-1", 4),
        HELD,  # refused
        *rows("answer-3", 3),
        HELD,  # told to hold
        HELD,  # no answer within the deadline
        HELD,  # overloaded
        HELD,  # the lease was lost
        *rows("answer-7", 4),
        *rows("answer-8", 4),
    ]
