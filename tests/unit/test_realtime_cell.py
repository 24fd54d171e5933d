"""A cell in real time on a virtual clock, over a driver that forgives nothing: whatever the service does, nothing moves on a guess."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.protocol.wire import Control, Edit, Message, Observe, Reject, SteeringInput
from model_core.spec.types import RefusalCode, StopReason
from serving.workcell.audit.interface import ActionExecuted, DecisionMade, NullAudit
from serving.workcell.motion.limits import widest_limits
from serving.workcell.motion.motion_state import MotionSettings, MotionState
from serving.workcell.robot.strict_driver import simple_body
from tests.fakes import make_contract
from tests.virtual_world import Service, World, make_world

STRATEGIES = ("sync", "async", "prefix", "blend")
TICKS = 20  # a second


class Notes(NullAudit):
    """An audit that a test can read."""

    def __init__(self) -> None:
        self.decisions: list[DecisionMade] = []
        self.actions: list[ActionExecuted] = []
        self.events: list[tuple[str, dict[str, object]]] = []

    def decision(self, made: DecisionMade) -> None:
        self.decisions.append(made)

    def executed(self, action: ActionExecuted) -> None:
        self.actions.append(action)

    def event(self, t_s: float, kind: str, detail) -> None:
        self.events.append((kind, dict(detail)))


def body_contract(mode: str = "delta", **changes: int) -> PolicyContract:
    return make_contract(simple_body(mode=mode), **changes)


def rows_of(world: World) -> list[int]:
    return [tag.row for tag in world.robot.tags]


def modes_of(world: World) -> Counter[str]:
    return Counter(tag.mode for tag in world.robot.tags)


def answered_with(*replies: tuple[float, dict[str, object]], contract: PolicyContract | None = None) -> Service:
    """A service that gives its n-th answer after so many seconds, with such changes; then good ones after 50 ms."""
    service = Service(contract or body_contract())
    plan = list(replies)

    def answer(observe: Observe) -> list[tuple[float, Message | bytes | str]]:
        delay, changes = plan.pop(0) if plan else (0.05, {})
        return [(delay, service.chunk(observe, **changes))]

    service.answer = answer
    return service


MODES = ("delta", "absolute", "velocity", "relative")


@pytest.mark.parametrize(
    ("strategy", "mode"),
    [
        *((strategy, "delta") for strategy in STRATEGIES),
        *(("async", mode) for mode in MODES[1:]),
        # short: each strategy, and each kind of body
        *(pytest.param(strategy, mode, marks=pytest.mark.soak) for strategy in STRATEGIES if strategy != "async" for mode in MODES[1:]),
    ],
)
def test_every_strategy_drives_every_kind_of_body_through_any_delay(strategy: str, mode: str) -> None:
    contract = body_contract(mode)
    service = Service(contract, latency=lambda seq: (0.02, 0.12, 0.3, 0.06)[seq % 4])
    service.rows = lambda observe: np.full((8, 4), 0.01, np.float32)
    world = make_world(service=service, cell={"strategy": strategy})
    assert set(world.step(8 * TICKS)) == {None}
    assert world.robot.breaches == []
    assert modes_of(world)["RUN"] > 2 * TICKS
    assert world.link.tally.dropped == {}


def test_holds_the_measured_pose_before_the_first_chunk_of_an_absolute_body() -> None:
    """A body with absolute poses and no `hold` of its own used to end before its first chunk came."""
    world = make_world(service=Service(body_contract("absolute"), latency=lambda seq: 0.3))
    start_P = world.robot.proprio_P()
    world.step(4)
    held = np.stack(world.robot.executed)
    assert held[:, :3].tolist() == [pytest.approx(start_P[:3].tolist())] * 4
    assert (held[:, 3] == -1.0).all()  # the gripper has had no command yet: open


def test_the_first_answer_twenty_times_slower_skips_nothing_from_standstill() -> None:
    service = Service(body_contract(), latency=lambda seq: 0.35 if seq == 1 else 0.0175)
    world = make_world(service=service)
    world.step(TICKS)
    rows = rows_of(world)
    first = next(i for i, row in enumerate(rows) if row >= 0)
    assert rows[first] == 0
    assert modes_of(world)["RUN"] > TICKS // 2


def test_latency_ramps_up_and_the_estimate_recovers() -> None:
    slow = {"now": 0.05}
    world = make_world(
        service=Service(body_contract(chunk_length=24, execute_horizon=8), latency=lambda seq: slow["now"]), link={"deadline_s": 2.0}
    )
    predicted = []
    for latency in (0.05, 0.2, 0.4, 0.8, 0.8, 0.05, 0.05, 0.05):
        slow["now"] = latency
        world.step(5 * TICKS)
        predicted.append(world.cell.scheduler.predicted)
    assert max(predicted[3:5]) >= 8
    assert predicted[0] <= 2
    assert predicted[-1] <= 2
    assert world.robot.breaches == []


def test_a_cut_link_ends_in_a_hold_within_the_limit_and_says_how_long_it_took() -> None:
    limits = replace(widest_limits(body_contract().embodiment), hold_within_ms=150.0)
    service = Service(body_contract(chunk_length=20, execute_horizon=4))
    world = make_world(service=service, limits=limits, link={"deadline_s": 0.3, "heartbeat_s": 0.2, "connect_timeout_s": 0.3})
    world.step(TICKS)
    world.link.is_cut = True
    cut_at = world.clock()
    world.step(TICKS)
    begun = world.cell.notes.hold_begun[-1]
    assert begun.t_s - cut_at < 2 * 0.2 + 0.15 + 2 / TICKS
    assert begun.silence_s >= 0.2
    assert world.robot.tags[-1].mode == "HOLD"
    world.link.is_cut = False
    world.step(2 * TICKS)
    assert world.link.epoch >= 2
    assert world.robot.tags[-1].mode in ("RUN", "STRETCH")
    assert world.robot.tags[-1].epoch == world.link.epoch


def test_late_duplicate_and_reordered_answers_are_never_executed() -> None:
    service = Service(body_contract())
    kept: list[Message] = []

    def answer(observe: Observe) -> list[tuple[float, Message | bytes | str]]:
        chunk = service.chunk(observe, chunk_id=f"c{observe.seq}")
        kept.append(chunk)
        if observe.seq % 3 == 1:
            return [(0.7, chunk)]  # after the deadline of 0.5 s
        return [(0.03, old) for old in kept[:-1]] + [(0.05, chunk), (0.06, chunk), (0.4, kept[0])]

    service.answer = answer
    world = make_world(service=service)
    world.step(6 * TICKS)
    seqs = [tag.seq for tag in world.robot.tags if tag.seq]
    assert seqs == sorted(seqs)
    assert all(seq % 3 != 1 for seq in seqs)
    assert world.link.tally.dropped["late"] + world.link.tally.dropped["duplicate"] > 10
    assert world.robot.breaches == []


@pytest.mark.parametrize(
    "changes",
    [
        {"actions_KA": np.full((8, 4), np.nan, np.float32)},
        {"actions_KA": np.full((8, 4), 1e9, np.float32)},
        {"actions_KA": np.zeros((0, 4), np.float32)},
        {"actions_KA": np.zeros((3, 4), np.float32)},
        {"actions_KA": np.zeros((8, 7), np.float32)},
        {"model_version": "other/1"},
        {"contract_id": "0" * 16},
        {"expires_ms": 1.0},
        {"session_id": "somebody-else"},
    ],
    ids=["nan", "huge", "empty", "short", "wide", "other model", "other contract", "expired", "foreign"],
)
def test_one_bad_chunk_is_held_over_and_the_next_good_one_goes_on(changes: dict[str, object]) -> None:
    world = make_world(service=answered_with((0.05, {}), (0.05, {}), (0.05, changes)))
    assert set(world.step(3 * TICKS)) == {None}
    assert world.robot.breaches == []
    assert {tag.seq for tag in world.robot.tags if tag.seq} >= {1, 2, 4}
    assert 3 not in {tag.seq for tag in world.robot.tags}


def test_a_service_that_only_lies_is_a_safe_stop_that_a_person_ends() -> None:
    lie = (0.02, {"actions_KA": np.full((8, 4), np.nan, np.float32)})
    operator: list[str] = []
    settings_ = {"operator": lambda: operator.pop() if operator else "", "operator_wait_s": 60.0}
    world = make_world(service=answered_with(*[lie] * 3), cell=settings_)
    world.step(TICKS)
    assert world.cell.machine.mode is MotionState.SAFE_STOP
    assert all(tag.mode in ("HOLD", "SAFE_STOP") for tag in world.robot.tags)
    world.step(5 * TICKS)  # good answers would come now; nothing is asked
    assert world.cell.machine.mode is MotionState.SAFE_STOP
    epoch = world.link.epoch
    operator.append("anna")
    world.step(2 * TICKS)
    assert world.cell.machine.mode is MotionState.RUN
    assert world.link.epoch == epoch + 1


def test_nobody_there_to_resume_ends_the_episode_and_the_next_one_does_not_begin() -> None:
    lie = (0.02, {"actions_KA": np.full((8, 4), np.nan, np.float32)})
    world = make_world(service=answered_with(*[lie] * 9))
    assert world.step(TICKS)[-1] is StopReason.GUARD_STOPPED
    result = world.cell.end(StopReason.GUARD_STOPPED)
    assert result.mode == "SAFE_STOP"
    assert world.robot.stop_state() == "halted"
    assert world.cell.begin(4) is StopReason.GUARD_STOPPED


def test_a_service_restarted_with_another_model_never_finishes_the_episode() -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract()), audit=notes, cell={"motion": MotionSettings(safe_stop_after_s=3.0)})
    world.step(TICKS)
    world.service.version = "virtual/2"
    world.link.core.closed(world.clock(), "restarted")
    said = world.step(6 * TICKS)
    assert said[-1] in (StopReason.SERVICE_LOST, StopReason.REFUSED)
    assert {tag.model_version for tag in world.robot.tags if tag.chunk_id} == {"virtual/1"}
    assert any(kind == "denied" for kind, _ in notes.events)


def test_a_rejected_command_flushes_everything_and_starts_anew_from_the_measured_pose() -> None:
    world = make_world(service=Service(body_contract("absolute")), robot={"reject_at": 25})
    world.service.rows = lambda observe: np.full((8, 4), 0.3, np.float32)
    world.step(3 * TICKS)
    assert world.link.epoch == 2
    assert world.robot.breaches == []
    epochs = [tag.epoch for tag in world.robot.tags if tag.chunk_id]
    assert epochs == sorted(epochs)
    assert epochs[-1] == 2


@pytest.mark.parametrize("kind", ["protective_at", "emergency_at"])
def test_a_stop_of_the_robot_is_resumed_by_a_person_only(kind: str) -> None:
    operator: list[str] = []
    settings_ = {"operator": lambda: operator.pop() if operator else "", "operator_wait_s": 60.0}
    world = make_world(service=Service(body_contract("absolute")), robot={kind: 30}, cell=settings_)
    world.service.rows = lambda observe: np.full((8, 4), 0.3, np.float32)
    world.step(3 * TICKS)
    assert world.cell.machine.mode is MotionState.SAFE_STOP
    done, epoch = len(world.robot.executed), world.link.epoch
    assert epoch == 2  # one new session for one stop, however long it lasts
    operator.append("anna")
    world.step(TICKS)  # the button is still pressed: a name does not help
    assert world.cell.machine.mode is MotionState.SAFE_STOP
    assert len(world.robot.executed) == done
    world.robot.release()
    world.step(TICKS)  # released: that alone starts nothing
    assert world.cell.machine.mode is MotionState.SAFE_STOP
    assert world.robot.tags[-1].chunk_id == "" or len(world.robot.executed) == done
    operator.append("anna")
    world.step(2 * TICKS)
    assert world.cell.machine.mode is MotionState.RUN
    assert world.robot.tags[-1].epoch >= 2
    assert world.robot.breaches == []


def test_a_camera_that_is_too_old_is_never_acted_on_silently() -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract()), audit=notes, cell={"motion": MotionSettings(safe_stop_after_s=2.0)})
    world.step(TICKS)
    world.robot.ages["front"] = 900.0
    before = world.link.tally.asked
    said = world.step(4 * TICKS)
    assert world.link.tally.asked == before
    assert said[-1] is StopReason.REFUSED
    assert ("stale", {"reason": "front is 900 ms old"}) in notes.events
    assert "front is 900 ms old" in str(notes.events)


def test_age_counts_towards_expiry() -> None:
    world = make_world(service=Service(body_contract(), latency=lambda seq: 0.1))
    world.robot.ages["front"] = 250.0
    world.step(2 * TICKS)
    lives = [tag.expires_at_s for tag in world.robot.tags if tag.chunk_id]
    assert lives
    assert world.robot.breaches == []
    assert modes_of(world)["HOLD"] > modes_of(world)["RUN"]  # 400 ms of chunk, of which 350 are history


def test_drawn_steering_travels_with_what_is_left_of_its_life_and_voids_older_answers() -> None:
    world = make_world(service=Service(body_contract(), latency=lambda seq: 0.1))
    world.step(TICKS)
    points = np.array([[1, 1], [5, 5]], np.float32)
    world.cell.steer(SteeringInput(points_N2=points, image="front", width=16, height=16, revision=3, author="anna", ttl_ms=1000.0))
    world.step(3 * TICKS)
    sent = [m.steering for m in world.service.heard if isinstance(m, Observe) and m.steering is not None]
    assert sent
    assert all(a.ttl_ms > b.ttl_ms for a, b in pairwise(sent))
    last = [m for m in world.service.heard if isinstance(m, Observe)][-1]
    assert last.steering is None
    assert world.cell.scheduler.revision == 1


def test_an_edit_is_sent_once_and_an_instruction_stays() -> None:
    world = make_world(service=Service(body_contract()))
    world.step(TICKS)
    world.cell.edit(Edit(trace_N2=np.array([[1, 2]], np.int64), author="anna"))
    world.cell.instruct("push the other button")
    world.step(TICKS)
    asked = [m for m in world.service.heard if isinstance(m, Observe)]
    assert sum(m.edit is not None for m in asked) == 1
    assert asked[-1].observation.instruction == "push the other button"
    assert asked[0].observation.instruction == "push the button"


def test_prefix_sends_what_will_be_executed_and_its_answers_begin_with_it() -> None:
    service = Service(body_contract(), latency=lambda seq: 0.12)

    def rows(observe: Observe) -> NDArray[np.float32]:
        made = np.full((8, 4), 0.2 if observe.seq % 2 else -0.2, np.float32)
        if observe.committed_DA is not None:
            made[: len(observe.committed_DA)] = observe.committed_DA
        return made

    service.rows = rows
    world = make_world(service=service, cell={"strategy": "prefix"})
    world.step(5 * TICKS)
    asked = [m for m in service.heard if isinstance(m, Observe)]
    assert [len(m.committed_DA) for m in asked[8:] if m.committed_DA is not None] == [3] * len(asked[8:])
    assert world.cell.scheduler.tally.prefix_broken == 0
    assert all(m.consumed > 0 and m.previous_chunk_id for m in asked[8:])


def test_a_service_that_cannot_commit_is_bent_to_instead() -> None:
    service = Service(body_contract())

    def answer(observe: Observe) -> list[tuple[float, Message | bytes | str]]:
        if observe.committed_DA is not None:
            reject = Reject(
                code=RefusalCode.CONTRACT, reason="no prefix", session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq
            )
            return [(0.02, reject)]
        return [(0.05, service.chunk(observe))]

    service.answer = answer
    world = make_world(service=service, cell={"strategy": "prefix"})
    world.step(4 * TICKS)
    assert world.link.tally.refusals == {"CONTRACT": 1}
    assert world.cell.scheduler.tally.bent > 5


@pytest.mark.parametrize(("kind", "mode"), [("KILL", "SAFE_STOP"), ("HOLD", "HOLD")])
def test_the_service_can_stop_a_cell(kind: str, mode: str) -> None:
    world = make_world(service=Service(body_contract()), cell={"operator_wait_s": 9.0})
    world.step(TICKS)
    told = Control(kind=kind, session_id=world.link.ready.session_id, epoch=world.link.epoch, text="drill")  # type: ignore[union-attr]
    world.link.core.heard(told, world.clock())
    world.step(TICKS)
    assert {tag.mode for tag in world.robot.tags[-TICKS:]} == {mode}


def test_a_full_audit_begins_no_episode() -> None:
    class Full(NullAudit):
        @property
        def can_begin(self) -> bool:
            return False

    world = make_world(service=Service(body_contract()), audit=Full(), is_begun=False)
    assert world.cell.begin(1) is StopReason.REFUSED
    result = world.cell.end(StopReason.REFUSED)
    assert "audit" in result.detail
    assert world.robot.executed == []


def test_every_executed_command_can_be_rebuilt_from_what_the_audit_was_told() -> None:
    notes = Notes()
    world = make_world(service=Service(body_contract(), latency=lambda seq: 0.11), audit=notes, cell={"strategy": "async"})
    world.step(4 * TICKS)
    installed = {made.chunk.chunk_id: made for made in notes.decisions if made.chunk is not None and made.outcome == "installed"}
    assert len(notes.actions) == len(world.robot.executed)
    for action, sent in zip(notes.actions, world.robot.executed, strict=True):
        assert np.array_equal(action.sent_A, sent)
        if action.chunk_id and action.scale == 1.0:
            made = installed[action.chunk_id]
            assert made.installed_KA is not None
            assert np.allclose(made.installed_KA[action.row], sent)
            assert action.row >= made.first_row


def test_a_clock_that_steps_changes_nothing_because_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    def wall() -> float:
        raise AssertionError("the wall clock was read")

    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(time, "time_ns", wall)
    world = make_world(service=Service(body_contract()))
    world.step(2 * TICKS)
    assert modes_of(world)["RUN"] > TICKS


FAULTS = (
    "good",
    "late",
    "lost",
    "nan",
    "far",
    "twice",
    "stale",
    "foreign",
    "garbage",
    "reject",
    "overload",
    "other-model",
    "cut",
    "mute",
    "heal",
)


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(st.sampled_from(FAULTS), min_size=3, max_size=30),
    strategy=st.sampled_from(STRATEGIES),
    mode=st.sampled_from(["delta", "absolute", "velocity"]),
    latency=st.floats(0.01, 0.3),
)
def test_no_invariant_breaks_whatever_happens(plan: list[str], strategy: str, mode: str, latency: float) -> None:
    service = Service(body_contract(mode))
    now = {"fault": "good"}

    def answer(observe: Observe) -> list[tuple[float, Message | bytes | str]]:
        chunk = service.chunk(observe, actions_KA=np.full((8, 4), 0.02 * (observe.seq % 5), np.float32))
        reject = Reject(code=RefusalCode.PARSE, reason="x", session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq)
        return {
            "late": [(0.6, chunk)],
            "lost": [],
            "nan": [(latency, replace(chunk, actions_KA=np.full((8, 4), np.nan, np.float32)))],
            "far": [(latency, replace(chunk, actions_KA=np.full((8, 4), 0.95, np.float32)))],
            "twice": [(latency, chunk), (latency + 0.01, chunk), (latency + 0.3, chunk)],
            "stale": [(latency, replace(chunk, epoch=observe.epoch + 1))],
            "foreign": [(latency, replace(chunk, session_id="x"))],
            "garbage": [(latency, b"\x02nonsense")],
            "reject": [(latency, reject)],
            "overload": [(latency, replace(reject, code=RefusalCode.OVERLOAD, retryable=True, retry_after_ms=100.0))],
            "other-model": [(latency, replace(chunk, model_version="x/9"))],
        }.get(now["fault"], [(latency, chunk)])

    service.answer = answer
    limits = widest_limits(service.contract.embodiment)
    moving = tuple(replace(d, max_jump=0.5) if d.max_jump is not None and mode == "absolute" else d for d in limits.dims)
    names: list[str] = []
    people = {"operator": lambda: names.pop() if names else "", "operator_wait_s": 1e6}
    world = make_world(service=service, limits=replace(limits, dims=moving), cell={"strategy": strategy, "max_refusals": 1000, **people})
    is_pressed = False
    for fault in plan:
        now["fault"] = fault
        world.robot.ages["front"] = 900.0 if fault == "old picture" else 0.0
        if fault in ("cut", "mute", "heal"):
            world.link.is_cut, service.is_mute = fault == "cut", fault == "mute"
        elif fault == "press":
            world.robot.halt("pressed")
            is_pressed = True
        elif fault == "release":
            world.robot.release()
            is_pressed = False
        elif fault == "name":
            names.append("anna")
        elif fault == "instruct":
            world.cell.instruct(f"sentence {len(names)}")
        is_left_alone = world.cell.machine.mode is MotionState.SAFE_STOP and not names
        done = len(world.robot.executed)
        if world.step(5)[-1] is not None:
            break
        assert not (is_pressed and len(world.robot.executed) > done)
        assert not (is_left_alone and any(tag.chunk_id for tag in world.robot.tags[done:]))
    assert world.robot.breaches == []
    assert len(world.link._wire) < 500
