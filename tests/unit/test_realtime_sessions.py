"""What outlives a session or an episode, and what must not: holds, drains, limits, open questions, a body in motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError
from model_core.spec.protocol.wire import Control, Observe, Part, SteeringInput
from model_core.spec.types import Observation, StopReason
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.motion.limits import Limits, tightened, widest_limits
from serving.workcell.motion.motion_state import MotionState
from serving.workcell.robot.episode_recorder import Recorder
from serving.workcell.robot.interface import RobotStopped
from serving.workcell.robot.strict_driver import StrictDriver, simple_body
from tests.fakes import make_contract
from tests.unit.test_realtime_cell import TICKS, Notes, answered_with, body_contract, modes_of
from tests.virtual_world import Service, World, make_world


def tell(world: World, kind: str) -> None:
    ready = world.link.ready
    assert ready is not None
    world.link.core.heard(Control(kind=kind, session_id=ready.session_id, epoch=world.link.epoch, text="drill"), world.clock())


def last_modes(world: World, count: int = TICKS) -> set[str]:
    return {tag.mode for tag in world.robot.tags[-count:]}


def test_a_hold_of_the_service_ends_when_it_takes_it_back() -> None:
    world = make_world(service=Service(body_contract()))
    world.step(TICKS)
    tell(world, "HOLD")
    world.step(TICKS)
    assert last_modes(world, TICKS // 2) == {"HOLD"}
    tell(world, "RESET")
    world.step(TICKS)
    assert "RUN" in last_modes(world, TICKS // 2)


def test_a_hold_of_the_service_ends_with_its_session_and_not_with_the_episode() -> None:
    world = make_world(service=Service(body_contract()))
    world.step(TICKS)
    tell(world, "HOLD")
    world.step(TICKS)
    world.cell.end(StopReason.MAX_STEPS)
    assert world.cell.begin(2) is None
    world.step(TICKS)
    assert last_modes(world) == {"HOLD"}
    world.link.renew("another service")
    world.step(TICKS)
    assert "RUN" in last_modes(world, TICKS // 2)


def test_a_drain_ends_with_its_session() -> None:
    world = make_world(service=Service(body_contract()))
    world.step(TICKS)
    tell(world, "DRAIN")
    world.cell.end(StopReason.MAX_STEPS)
    assert world.cell.begin(2) is StopReason.SERVICE_LOST  # told after the last step, heard before the first one
    world.cell.end(StopReason.SERVICE_LOST)
    world.link.renew("another service")
    for _ in range(100):
        world.clock.now += 0.01
        world.link.pump()
    assert world.cell.begin(3) is None


@pytest.mark.parametrize("mode", ["velocity", "delta"])
def test_a_body_that_keeps_its_velocity_is_told_to_stand_at_the_end(mode: str) -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract(mode)), audit=notes)
    world.step(2 * TICKS)
    assert world.robot.tags[-1].mode == "RUN"
    world.cell.end(StopReason.MAX_STEPS)
    assert (world.robot.tags[-1].mode == "RUN") is (mode == "delta")
    if mode == "velocity":
        assert world.robot.executed[-1][:3].tolist() == [0.0] * 3
    assert len(notes.actions) == len(world.robot.executed)


class Watch:
    """A watchdog's agent side that only remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, name: str):
        return lambda: self.said.append(name) or ""


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_cell_that_is_ended_in_mid_motion_rests_or_leaves_the_body_to_the_watchdog(is_broken: bool) -> None:
    watch = Watch()
    world = make_world(service=Service(body_contract("velocity")), watch=watch)
    world.step(2 * TICKS)
    if is_broken:

        def fails(action_A: object) -> None:
            raise OSError("the bus is gone")

        world.robot.act = fails  # type: ignore[method-assign, assignment]
    world.cell.close()
    assert ("close" in watch.said) is not is_broken
    assert is_broken or world.robot.executed[-1][:3].tolist() == [0.0] * 3


def test_a_stopped_body_is_at_rest() -> None:
    watch = Watch()
    world = make_world(service=Service(body_contract("velocity")), watch=watch)
    world.step(2 * TICKS)

    def stops(action_A: object) -> None:
        raise RobotStopped("button")

    world.robot.act = stops  # type: ignore[method-assign, assignment]
    world.cell.end(StopReason.MAX_STEPS)
    assert "disarm" in watch.said


def other_contract(contract: PolicyContract) -> PolicyContract:
    """A release that tightens x, and is another contract."""
    body = contract.embodiment
    x = replace(body.action.dims[0], soft_low=-0.05, soft_high=0.05)
    return replace(contract, embodiment=replace(body, action=replace(body.action, dims=(x, *body.action.dims[1:]))))


def test_another_release_between_episodes_brings_its_own_limits() -> None:
    contract = body_contract()
    service = Service(contract)
    service.rows = lambda observe: np.full((8, 4), 0.1, np.float32)
    world = make_world(service=service)
    world.step(TICKS)
    world.cell.end(StopReason.MAX_STEPS)
    service.contract, service.version = other_contract(contract), "virtual/2"
    world.link.renew("a new release")
    for _ in range(100):
        world.clock.now += 0.01
        world.link.pump()
    assert world.cell.begin(2) is None
    before = len(world.robot.executed)
    world.step(TICKS)
    assert max(abs(float(sent_A[0])) for sent_A in world.robot.executed[before:]) <= 0.05 + 1e-6


def test_a_contract_that_nobody_has_commissioned_begins_no_episode() -> None:
    contract = body_contract()
    service = Service(contract)
    world = make_world(service=service)

    def limits_of(offered: PolicyContract) -> tuple[Limits, str]:
        if offered.contract_id != contract.contract_id:
            raise ContractError("commissioning contract_id: commission this pair first")
        return widest_limits(offered.embodiment), "digest"

    world.cell._limits_of = limits_of
    world.step(TICKS)
    world.cell.end(StopReason.MAX_STEPS)
    service.contract = replace(contract, max_prefix_rows=contract.max_prefix_rows + 1)
    world.link.renew("a new release")
    for _ in range(100):
        world.clock.now += 0.01
        world.link.pump()
    assert world.cell.begin(2) is StopReason.REFUSED
    assert "commission" in world.cell.end(StopReason.REFUSED).detail


def test_rows_of_another_pace_are_never_executed() -> None:
    other_pace: dict[str, object] = {"control_hz": 40.0}
    world = make_world(service=answered_with(*[(0.05, other_pace)] * 3, contract=body_contract()))
    world.step(TICKS // 2)
    assert modes_of(world)["RUN"] == 0


def test_every_question_has_its_note_with_its_deadline() -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract(), latency=lambda seq: 0.11), audit=notes, link={"deadline_s": 0.7})
    world.step(TICKS)
    drawn = SteeringInput(
        points_N2=np.zeros((2, 2), np.float32), image="front", width=16, height=16, revision=1, author="anna", ttl_ms=5000.0
    )
    while not world.cell.open_seqs:
        world.step(1)
    world.cell.steer(drawn)
    world.step(TICKS)
    world.cell.end(StopReason.MAX_STEPS)
    asked = [message.seq for message in world.service.heard if isinstance(message, Observe)]
    assert sorted(made.seq for made in notes.decisions) == sorted(asked)
    assert {made.deadline_ms for made in notes.decisions} == {700.0}
    assert [made.outcome for made in notes.decisions if made.chunk is None] != []
    assert {made.code for made in notes.decisions if made.outcome == "dropped" and made.chunk is None} == {"CANCELLED"}


def test_how_far_an_answer_came_is_noted_before_it_is_there() -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract(), latency=lambda seq: 0.2), audit=notes)
    while not world.link.core.open_seq:
        world.step(1)
    ready, seq = world.link.ready, world.link.core.open_seq
    assert ready is not None
    said = Part(session_id=ready.session_id, epoch=ready.epoch, seq=seq, field="trace", trace_N2=np.zeros((1, 2), np.int64))
    for part in (said, replace(said, seq=seq + 1), replace(said, session_id="another")):
        world.link.core.heard(part, world.clock())
    world.step(1)
    assert [detail for kind, detail in notes.events if kind == "part"] == [{"seq": seq, "field": "trace"}]


@pytest.mark.parametrize(("step", "is_stopped"), [(0.02, False), (0.08, True)])
def test_a_policy_that_always_goes_on_never_leads_the_body_out_of_its_soft_limits(step: float, is_stopped: bool) -> None:
    still = simple_body(mode="absolute")
    moving = tuple(replace(dim, mode="delta", low=-0.5, high=0.5) for dim in still.action.dims[:3])
    x = replace(still.proprio.dims[0], soft_low=-0.3, soft_high=0.35)
    body = replace(
        still,
        action=replace(still.action, dims=(*moving, still.action.dims[3]), mode=""),
        proprio=replace(still.proprio, dims=(x, *still.proprio.dims[1:])),
        hold=(0.0, 0.0, 0.0, None),
    )
    service = Service(make_contract(body))
    service.rows = lambda observe: np.full((8, 4), step, np.float32)
    world = make_world(service=service, limits=tightened(widest_limits(body), body))
    world.step(8 * TICKS)
    assert 0.0 < world.robot.proprio_P()[0] <= 0.35 + 1e-5
    assert world.robot.breaches == []
    assert set(world.cell.envelope.tally.refused) == ({"workspace"} if is_stopped else set())
    assert bool(world.cell.envelope.tally.clips) is not is_stopped
    assert (world.cell.machine.mode is MotionState.SAFE_STOP) is is_stopped


class Plain:
    """A driver that can measure itself by looking only."""

    def __init__(self, robot: StrictDriver) -> None:
        self._robot = robot
        self.embodiment, self.task, self.instruction = robot.embodiment, robot.task, robot.instruction
        self.reset, self.observe, self.act, self.tag, self.close = robot.reset, robot.observe, robot.act, robot.tag, robot.close


@pytest.mark.parametrize("is_plain", [False, True])
def test_what_is_recorded_of_a_step_was_seen_in_that_step(is_plain: bool) -> None:
    contract = make_contract(simple_body(mode="absolute"))
    seen: list[float] = []
    true: list[float] = []
    world = make_world(service=Service(contract, rows=lambda observe: np.full((8, 4), 0.1 * (observe.seq % 5), np.float32)), is_begun=False)

    class Notebook(Recorder):
        def see(self, observation: Observation, at_s: float) -> None:
            seen.append(float(observation.proprio_P[0]))
            true.append(float(world.robot.proprio_P()[0]))

        def did(self, action_A: object, *, is_intervention: bool = False) -> None: ...

    robot = Plain(world.robot) if is_plain else world.robot
    settings = RealtimeSettings(cell="cell-v", max_steps=10_000)
    world.cell = RealtimeCell(
        robot, world.link, settings, world.robot.limits, clock=world.clock, recorder=Notebook(Path(), robot, "cell-v")
    )
    assert world.cell.begin(3) is None
    world.step(60)
    assert len(set(true)) > 3
    assert seen == true


@pytest.mark.parametrize(("kind", "reason"), [("DRAIN", StopReason.SERVICE_LOST), ("KILL", StopReason.GUARD_STOPPED), ("HOLD", None)])
def test_what_came_with_ready_is_heard_by_the_loop(kind: str, reason: StopReason | None) -> None:
    world = make_world(service=Service(body_contract()), is_begun=False)
    tell(world, kind)
    wait_until_up(world.link, 1.0)
    assert world.cell.begin(3) is reason
    if reason is None:
        world.step(TICKS)
        assert last_modes(world) == {"HOLD"}


@pytest.mark.parametrize("kind", ["DRAIN", "KILL", "HOLD"])
def test_a_session_that_ended_leaves_its_kill_and_nothing_else(kind: str) -> None:
    world = make_world(service=Service(body_contract()), is_begun=False)
    tell(world, kind)
    world.link.renew("another service")
    for _ in range(100):
        world.clock.now += 0.01
        world.link.pump()
    wait_until_up(world.link, 1.0)
    assert world.cell.begin(3) is (StopReason.GUARD_STOPPED if kind == "KILL" else None)
    if kind != "KILL":
        world.step(TICKS)
        assert "RUN" in last_modes(world)


def test_a_name_that_cannot_be_obeyed_is_answered_and_not_kept() -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract()), audit=notes, cell={"operator_wait_s": 60.0})
    world.cell.resume("berta")  # nothing is stopped
    world.step(TICKS)
    world.robot.halt("pressed")
    world.step(1)
    world.cell.resume("anna")
    world.step(1)
    world.robot.release()
    world.step(TICKS)
    assert world.cell.machine.mode is MotionState.SAFE_STOP
    refused = [(detail["operator"], detail["reason"]) for kind, detail in notes.events if kind == "resume_refused"]
    assert refused == [
        ("berta", "the cell is not in SAFE_STOP"),
        ("anna", "the robot is in halted stop: release it, then resume again"),
    ]
    world.cell.resume("anna")
    world.step(2 * TICKS)
    assert world.cell.machine.mode is MotionState.RUN
