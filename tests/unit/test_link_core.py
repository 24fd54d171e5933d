"""The conversation's rules, on a virtual clock: what is late, doubled, foreign or broken is counted and never used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import SpecError
from model_core.spec.protocol.wire import Chunk, Control, Hello, Message, Observe, Ready, Reject, SteeringInput, encode_message
from model_core.spec.types import RefusalCode
from serving.workcell.link.connection_state import LinkCore
from serving.workcell.link.link_types import LinkEvent, LinkSettings, ObserveRequest, read_frame
from tests.fakes import make_contract, make_embodiment, make_observation


class Line:
    """A link core and the service's side of it, both in the hands of a test."""

    def __init__(self, **changes: object) -> None:
        settings_ = {"cell": "c", "embodiment": make_embodiment(), "deadline_s": 0.5, "heartbeat_s": 1.0, **changes}
        self.core = LinkCore(LinkSettings(**settings_))  # type: ignore[arg-type]
        self.now = 10.0
        self.events: list[LinkEvent] = []
        self.contract = make_contract()

    def say(self, message: Message | bytes | str) -> None:
        self.core.take(read_frame(message if isinstance(message, bytes | str) else encode_message(message)), self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)

    def sent(self) -> list[Message]:
        found = []
        while (message := self.core.outgoing(self.now)) is not None:
            found.append(message)
        return found

    def heard(self) -> list[str]:
        self.events = self.core.poll()
        return [e.kind for e in self.events]

    def dial(self) -> Hello:
        assert self.core.may_dial(self.now)
        self.core.dialling(self.now)
        self.core.opened(self.now)
        (hello,) = self.sent()
        assert isinstance(hello, Hello)
        return hello

    def connect(self, **changes: object) -> Ready:
        hello = self.dial()
        ready = Ready(session_id=f"s{hello.epoch}", epoch=hello.epoch, model_version="m/1", contract=self.contract)
        ready = replace(ready, **changes)  # type: ignore[arg-type]
        self.say(ready)
        assert self.heard() == ["up"]
        return ready

    def ask(self) -> int:
        question = ObserveRequest(episode_id="e", step=1, observation=make_observation(), taken_at_s=self.now, age_ms={"front": 20.0})
        return self.core.ask(question, self.now)

    def chunk(self, seq: int, **changes: object) -> Chunk:
        epoch = self.core.epoch
        chunk = Chunk(
            session_id=f"s{epoch}",
            epoch=epoch,
            seq=seq,
            chunk_id=f"c{seq}",
            contract_id=self.contract.contract_id,
            model_version="m/1",
            actions_KA=np.zeros((8, 4), np.float32),
            control_hz=20.0,
            expires_ms=400.0,
        )
        return replace(chunk, **changes)  # type: ignore[arg-type]


def up(**changes: object) -> Line:
    line = Line(**changes)
    line.connect()
    return line


def test_asks_and_hears_with_the_time_that_is_left() -> None:
    line = up()
    seq = line.ask()
    line.now += 0.1
    (observe,) = line.sent()
    assert isinstance(observe, Observe)
    assert (observe.seq, observe.deadline_ms) == (seq, pytest.approx(360.0))
    assert observe.age_ms["front"] == pytest.approx(120.0)  # it grew while it waited to be written
    line.say(line.chunk(seq))
    assert line.heard() == ["chunk"]
    assert line.events[0].is_first
    assert line.events[0].expires_at_s == pytest.approx(10.38)  # 400 ms from the picture, which was 20 ms old
    assert list(line.core.tally.latency_ms) == [pytest.approx(100.0)]


def test_a_late_answer_is_never_paired_with_a_newer_question() -> None:
    line = up()
    old = line.ask()
    line.sent()
    line.wait(0.6)
    assert line.heard() == ["late"]
    assert [m.kind for m in line.sent() if isinstance(m, Control)] == ["CANCEL", "PING"]
    new = line.ask()
    line.sent()
    line.say(line.chunk(old))
    assert line.heard() == []
    line.say(line.chunk(new))
    assert line.heard() == ["chunk"]
    assert line.core.tally.dropped == {"late": 1}


def test_duplicates_foreign_and_stale_answers_are_dropped_by_name() -> None:
    line = up()
    seq = line.ask()
    line.sent()
    line.say(line.chunk(seq, session_id="other"))
    line.say(line.chunk(seq, epoch=7))
    line.say(line.chunk(seq + 5))
    line.say(line.chunk(seq))
    line.say(line.chunk(seq))
    assert line.heard() == ["chunk"]
    assert line.core.tally.dropped == {"foreign": 1, "stale-epoch": 1, "unasked": 1, "duplicate": 1}


def test_an_expired_answer_is_a_refusal() -> None:
    line = up(deadline_s=5.0)
    seq = line.ask()
    line.sent()
    line.wait(0.5)
    line.say(line.chunk(seq))
    assert line.heard() == ["refused"]
    assert (line.events[0].code, line.core.tally.dropped) == ("DEADLINE", {"expired": 1})


def test_a_slow_uplink_drops_the_older_observation_and_never_queues() -> None:
    line = up(deadline_s=100.0)
    seqs = [line.ask() for _ in range(50)]
    (observe,) = line.sent()
    assert isinstance(observe, Observe)
    assert observe.seq == seqs[-1]
    assert line.core.tally.replaced == 49


def test_after_three_dead_questions_the_connection_is_not_believed() -> None:
    line = up(heartbeat_s=100.0)
    for _ in range(3):
        assert line.ask()
        line.sent()
        line.wait(0.6)
    assert line.heard() == ["late", "late", "late", "down"]
    assert line.core.wants_cut
    assert not line.core.is_up
    assert line.ask() == 0
    line.core.closed(line.now, "cut")
    line.wait(0.2)
    assert line.dial().epoch == 2


def test_a_silent_peer_is_dead_within_two_heartbeats() -> None:
    line = up(heartbeat_s=1.0)
    began = line.now
    while line.core.is_up and line.now < began + 5:
        line.wait(0.01)
        line.sent()
    assert line.now - began < 2.0
    assert "dead peer" in line.core.tally.cuts


def test_a_peer_that_answers_pings_lives() -> None:
    line = up(heartbeat_s=1.0)
    for _ in range(100):
        line.wait(0.1)
        for message in line.sent():
            if isinstance(message, Control) and message.kind == "PING":
                line.say(replace(message, kind="PONG"))
    assert line.core.is_up
    assert len(line.core.tally.round_trip_ms) > 10
    line.say(Control(kind="PING", session_id="s1", epoch=1, seq=4))
    assert [m.seq for m in line.sent() if isinstance(m, Control) and m.kind == "PONG"] == [4]


@pytest.mark.parametrize(
    "garbage", [b"", b"\x02\xc1", b"\x09\x80", "text", b"\x02" + b"\x91" * 5000], ids=["empty", "bad", "v9", "text", "deep"]
)
def test_a_broken_message_ends_the_connection(garbage: bytes | str) -> None:
    line = up()
    line.say(garbage)
    assert line.heard() == ["down"]
    assert line.core.wants_cut
    line.say(line.chunk(1))  # nothing is believed after it
    assert line.heard() == []


def test_no_ready_is_no_connection_and_the_wait_grows() -> None:
    line = Line(connect_timeout_s=1.0, first_backoff_s=0.1, max_backoff_s=0.4)
    waits = []
    for _ in range(5):
        line.dial()
        line.wait(1.1)
        assert line.core.wants_cut
        line.core.closed(line.now, "cut")
        began = line.now
        while not line.core.may_dial(line.now):
            line.now += 0.01
        waits.append(line.now - began)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4], abs=0.02)
    assert not line.core.is_up


def test_in_mid_episode_only_the_same_model_will_do() -> None:
    line = up()
    line.core.pin("m/1", line.contract.contract_id)
    line.core.renew(line.now, "test")
    line.core.closed(line.now, "cut")
    line.core.poll()
    hello = line.dial()
    line.say(Ready(session_id="s2", epoch=hello.epoch, model_version="m/2", contract=line.contract))
    assert line.heard()[0] == "denied"
    assert line.events[0].code == "STALE_EPOCH"
    assert line.events[0].is_retryable
    line.core.closed(line.now, "cut")
    line.core.unpin()
    line.wait(1.0)
    line.connect(model_version="m/2")


def test_the_same_name_over_another_bundle_is_another_model() -> None:
    line = Line()
    line.connect(bundle_digest="a" * 64)
    line.core.pin("m/1", line.contract.contract_id)
    seq = line.ask()
    line.sent()
    line.say(line.chunk(seq, bundle_digest="b" * 64))
    assert line.heard() == ["refused"]
    assert line.events[0].reason.endswith("bundle aaaaaaaaaaaa)")
    line.core.renew(line.now, "test")
    line.core.closed(line.now, "cut")
    line.core.poll()
    hello = line.dial()
    line.say(Ready(session_id="s2", epoch=hello.epoch, model_version="m/1", contract=line.contract, bundle_digest="b" * 64))
    assert line.heard()[0] == "denied"
    assert "runs m/1" in line.events[0].reason
    assert ", bundle bbbbbbbbbbbb), this episode began with m/1" in line.events[0].reason


def test_flags_of_answers_are_counted() -> None:
    line = up()
    for flags in (("blank:front",), ("blank:front", "level:action"), ()):
        seq = line.ask()
        line.sent()
        line.say(line.chunk(seq, flags=flags))
        assert line.heard() == ["chunk"]
    assert line.core.tally.flags == {"blank:front": 2, "level:action": 1}


def test_a_chunk_of_another_model_is_refused() -> None:
    line = up()
    seq = line.ask()
    line.sent()
    line.say(line.chunk(seq, model_version="m/2"))
    assert line.heard() == ["refused"]
    assert line.events[0].code == "STALE_EPOCH"


def test_a_refused_contract_is_not_tried_again_by_itself() -> None:
    line = Line()
    hello = line.dial()
    reject = Reject(code=RefusalCode.CONTRACT, reason="hz", epoch=hello.epoch, details=("control_hz: 5 against 15",))
    line.say(reject)
    assert line.heard()[0] == "denied"
    assert line.events[0].details == ("control_hz: 5 against 15",)
    line.core.closed(line.now, "cut")
    line.wait(1000.0)
    assert not line.core.may_dial(line.now)
    line.core.renew(line.now, "a person tries again")
    assert line.core.may_dial(line.now)


def test_the_cell_reads_the_contract_itself() -> None:
    line = Line(embodiment=replace(make_embodiment(), gripper_open=1.0))
    hello = line.dial()
    line.say(Ready(session_id="s", epoch=hello.epoch, model_version="m", contract=make_contract()))
    assert line.heard()[0] == "denied"
    assert "gripper_open" in line.events[0].reason


def test_a_lease_is_renewed_and_its_end_is_the_session_s() -> None:
    line = Line(heartbeat_s=100.0)
    line.connect(lease_s=3.0)
    line.wait(1.1)
    assert [m.value for m in line.sent() if isinstance(m, Control) and m.kind == "LEASE"] == [3.0]
    line.say(Control(kind="LEASE", session_id="s1", epoch=1, value=3.0))
    line.wait(2.0)
    assert line.core.is_up
    line.wait(1.5)
    assert line.heard() == ["lease", "down"]


def test_kill_hold_and_drain_are_handed_on() -> None:
    line = up()
    for kind in ("HOLD", "DRAIN", "KILL"):
        line.say(Control(kind=kind, session_id="s1", epoch=1, text="operator"))
    assert line.heard() == ["told"] * 3
    assert [e.code for e in line.events] == ["HOLD", "DRAIN", "KILL"]


def test_steering_and_committed_rows_travel() -> None:
    line = up()
    steering = SteeringInput(
        points_N2=np.array([[1, 2], [3, 4]], np.float32), image="front", width=16, height=16, revision=3, author="anna"
    )
    question = ObserveRequest(
        episode_id="e",
        step=1,
        observation=make_observation(),
        taken_at_s=line.now,
        steering=steering,
        committed_DA=np.ones((2, 4), np.float32),
    )
    line.core.ask(question, line.now)
    (observe,) = line.sent()
    assert isinstance(observe, Observe)
    assert observe.steering is steering
    assert observe.committed_DA is not None


@pytest.mark.parametrize(
    "changes",
    [{"deadline_s": -1}, {"deadline_s": float("nan")}, {"heartbeat_s": "4"}, {"max_dead": 2.7}, {"max_dead": True}, {"deadline_s": True}],
)
def test_senseless_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(changes))):
        Line(**changes)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "wait", "answer", "old", "other", "twice", "reject", "garbage", "cut", "write"]), st.floats(0, 0.4)
        ),
        max_size=40,
    )
)
def test_whatever_comes_only_the_open_question_s_answer_is_used_and_nothing_grows(events: list[tuple[str, float]]) -> None:
    line = up()
    asked: list[int] = []
    used: list[int] = []
    for name, number in events:
        core = line.core
        if core.may_dial(line.now):
            line.connect()
        open_before = core.open_seq
        match name:
            case "ask":
                seq = line.ask()
                asked += [seq] if seq else []
            case "wait":
                line.wait(number)
            case "write":
                line.sent()
            case "answer" if core.open_seq:
                line.say(line.chunk(core.open_seq))
            case "old" if asked:
                line.say(line.chunk(asked[0]))
            case "other":
                line.say(line.chunk(core.open_seq or 1, epoch=core.epoch + 1))
            case "twice" if used:
                line.say(line.chunk(used[-1]))
            case "reject" if core.open_seq:
                line.say(Reject(code=RefusalCode.PARSE, reason="x", session_id=f"s{core.epoch}", epoch=core.epoch, seq=core.open_seq))
            case "garbage":
                line.say(b"\x02nonsense")
                core.closed(line.now, "cut")
            case "cut":
                core.closed(line.now, "gone")
            case _:
                pass
        for heard in core.poll():
            if heard.kind == "chunk":
                assert heard.seq == open_before
                used.append(heard.seq)
        assert len(core._controls) <= 32
    assert len(used) == len(set(used))
    assert used == sorted(used)
