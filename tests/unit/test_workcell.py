"""A workcell never moves on a guess: it holds on silence, lateness, refusal and nonsense, and says why it stopped."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import SHUT_RDWR

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_socket

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import ContractError, NotReady, SpecError
from model_core.spec.protocol.wire import (
    Chunk,
    Hello,
    Message,
    Observe,
    Ready,
    RefusalCode,
    Reject,
    decode_episode,
    decode_message,
    encode_message,
)
from model_core.spec.types import Observation, StopReason
from serving.workcell.__main__ import main
from serving.workcell.audit.live_feed import percentile
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.control.results import EpisodeResult
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkEvent, LinkSettings, ObserveRequest
from serving.workcell.link.waiting_link import SimulatedClock, WaitingLink
from serving.workcell.link.websocket_link import AsyncLink
from serving.workcell.motion.limits import widest_limits
from serving.workcell.report import cell_report, write_report
from serving.workcell.robot.episode_recorder import Recorder
from serving.workcell.robot.interface import load_robot
from tests.fakes import EchoPolicy, make_contract, make_embodiment, make_observation
from tests.loopback import echo_gateway, serve, wait_until

HOLD = [0.0, 0.0, 0.0]


@dataclass(frozen=True)
class Step:
    success: bool
    done: bool


@dataclass
class FakeRobot:
    """Counts steps, keeps what was executed; "succeeds" when `goal` actions with a first number above 0.1 were seen."""

    embodiment: EmbodimentSpec = field(default_factory=make_embodiment)
    goal: int = 12
    horizon: int = 40
    task: str = "button"
    instruction: str = "push the button"
    executed: list[NDArray[np.float32]] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    broken_at: int = -1

    def reset(self, seed: int) -> None:
        self.resets.append(seed)
        self.executed.clear()

    def observe(self) -> Observation:
        return make_observation(self.embodiment, value=100)

    def act(self, action_A: NDArray[np.float32]) -> Step:
        spec = self.embodiment.action
        assert np.isfinite(action_A).all()
        assert (action_A >= spec.low).all()
        assert (action_A <= spec.high).all()
        if len(self.executed) == self.broken_at:
            raise RuntimeError("the driver does not answer")
        self.executed.append(action_A)
        success = sum(a[0] > 0.1 for a in self.executed) >= self.goal
        return Step(success=bool(success), done=bool(success) or len(self.executed) >= self.horizon)

    def close(self) -> None:
        pass


Script = Callable[[Observe, ServerConnection], object]


@contextlib.contextmanager
def scripted(script: Script, **ready: object) -> Iterator[str]:
    """A stub service: shakes hands, then `script` answers each OBSERVE as it likes."""

    open_sockets: list[ServerConnection] = []

    def talk(socket: ServerConnection) -> None:
        open_sockets.append(socket)
        with contextlib.suppress(ConnectionClosed):
            hello = read(socket.recv())
            assert isinstance(hello, Hello)
            session = Ready(session_id=f"s{hello.epoch}", epoch=hello.epoch, model_version="stub/1", contract=make_contract())
            socket.send(encode_message(replace(session, **ready)))
            for data in socket:
                message = read(data)
                if isinstance(message, Observe):
                    script(message, socket)

    with serve_socket(talk, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/v1/session"
        server.shutdown()
        for socket in open_sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(SHUT_RDWR)


def read(data: str | bytes) -> Message:
    assert isinstance(data, bytes)
    return decode_message(data)


def chunk_for(observe: Observe, *, value: float = 0.5, **changes: object) -> bytes:
    contract = make_contract()
    actions_KA = np.zeros((8, 4), np.float32)
    actions_KA[:, 0] = value
    chunk = Chunk(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        chunk_id=f"c{observe.seq}",
        contract_id=contract.contract_id,
        model_version="stub/1",
        actions_KA=actions_KA,
        control_hz=20.0,
        expires_ms=400.0,
    )
    return encode_message(replace(chunk, **changes))


def good(observe: Observe, socket: ServerConnection) -> None:
    socket.send(chunk_for(observe))


def refuse(observe: Observe, socket: ServerConnection) -> None:
    reject = Reject(session_id=observe.session_id, epoch=observe.epoch, seq=observe.seq, code=RefusalCode.PARSE, reason="no trace")
    socket.send(encode_message(reject))


def silence(observe: Observe, socket: ServerConnection) -> None:
    pass


def link_to(url: str, body: EmbodimentSpec, *, deadline_s: float = 2.0, connect_timeout_s: float = 1.0) -> AsyncLink:
    """A link that has begun to dial."""
    settings = LinkSettings(
        cell="cell-a", embodiment=body, deadline_s=deadline_s, connect_timeout_s=connect_timeout_s, heartbeat_s=30.0, world_waits=True
    )
    link = AsyncLink(url, settings)
    link.start()
    return link


def cell_on(link: AsyncLink, robot: FakeRobot, recorder: Recorder | None = None, **settings: object) -> RealtimeCell:
    """A cell in simulated time: the world stands still while an answer is made."""
    world = SimulatedClock()
    made = RealtimeSettings(**{"cell": "cell-a", "strategy": "sync", **settings})  # type: ignore[arg-type]
    limits = widest_limits(robot.embodiment)
    return RealtimeCell(robot, WaitingLink(link, world), made, limits, recorder=recorder, clock=world, sleep=world.sleep)


def run(
    url: str, robot: FakeRobot, *, deadline_s: float = 2.0, recorder: Recorder | None = None, **settings: object
) -> tuple[EpisodeResult, AsyncLink]:
    link = link_to(url, robot.embodiment, deadline_s=deadline_s)
    with contextlib.closing(link):
        wait_until_up(link, 10.0)
        return cell_on(link, robot, recorder, **settings).run_episode(5), link


def test_acts_on_chunks_of_the_real_gateway_and_records(tmp_path: Path) -> None:
    gateway = echo_gateway(EchoPolicy())
    robot = FakeRobot()
    with serve(gateway) as address:
        wait_until(lambda: gateway.is_ready)
        result, link = run(f"ws://{address}/v1/session", robot, deadline_s=2.0, recorder=Recorder(tmp_path, robot, "cell-a"))
    assert (result.success, result.stop_reason, result.steps) == (True, StopReason.SUCCESS, 12)
    assert (result.decisions, result.refusals, result.holds) == (3, 0, 0)  # 12 steps, 4 of each chunk
    assert len(link.tally.latency_ms) == 3
    (path,) = tmp_path.iterdir()
    episode = decode_episode(path.read_bytes())
    assert episode.episode_id == path.name.removesuffix(".episode") == "button-5-cell-a-echo-1"
    assert (episode.success, episode.provenance.producer, episode.provenance.seed) == (True, "policy:echo/1", 5)
    assert episode.executed_TA.tolist() == [a.tolist() for a in robot.executed]
    assert episode.images["front"].shape == (12, 16, 16, 3)
    assert episode.timestamps_T[-1] == pytest.approx(11 / 20)


def test_holds_on_refusal_and_stops_with_the_reason() -> None:
    robot = FakeRobot()
    with scripted(refuse) as url:
        result, link = run(url, robot)
    assert (result.stop_reason, result.refusals, result.holds) == (StopReason.REFUSED, 5, 4)
    assert "no trace" in result.detail
    assert [a.tolist()[:3] for a in robot.executed] == [HOLD] * 4
    assert link.tally.refusals == {"PARSE": 5}


def test_holds_on_silence_within_the_deadline_and_stops_as_lost() -> None:
    robot = FakeRobot()
    with scripted(silence) as url:
        began = time.monotonic()
        result, _ = run(url, robot, deadline_s=0.1)
    assert time.monotonic() - began < 3.0
    assert result.stop_reason is StopReason.SERVICE_LOST
    assert [a.tolist()[:3] for a in robot.executed] == [HOLD] * 4


def test_a_refusal_ends_the_old_chunk_and_holds() -> None:
    robot = FakeRobot(goal=16)
    with scripted(lambda o, s: refuse(o, s) if o.seq == 2 else good(o, s)) as url:
        result, _ = run(url, robot)
    assert (result.stop_reason, result.refusals, result.holds) == (StopReason.SUCCESS, 1, 1)
    assert result.steps == 17  # one more than without the refusal: the tick that was held


def test_late_answers_are_dropped_and_never_paired_with_a_newer_question() -> None:
    late: list[bytes] = []

    def script(observe: Observe, socket: ServerConnection) -> None:
        if observe.seq == 1:
            late.append(chunk_for(observe, value=-1.0))
        else:
            for answer in late:
                socket.send(answer)
            socket.send(chunk_for(observe))

    robot = FakeRobot()
    with scripted(script) as url:
        result, link = run(url, robot, deadline_s=0.3)
    assert result.success
    assert min(a[0] for a in robot.executed) == 0.0  # the first step was a hold; -1.0 was never executed
    assert result.holds == 1
    assert link.tally.late_dropped >= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"actions_KA": np.full((8, 4), np.nan, np.float32)},
        {"actions_KA": np.full((8, 4), 1.5, np.float32)},
        {"actions_KA": np.zeros((3, 4), np.float32)},
        {"actions_KA": np.zeros((0, 4), np.float32)},
        {"actions_KA": np.zeros((8, 7), np.float32)},
    ],
    ids=["nan", "outside limits", "short", "empty", "other width"],
)
def test_guard_of_the_cell_stops_a_service_that_lies(changes: dict[str, object]) -> None:
    robot = FakeRobot()
    with scripted(lambda o, s: s.send(chunk_for(o, **changes))) as url:
        result, link = run(url, robot)
    assert (result.stop_reason, result.mode) == (StopReason.GUARD_STOPPED, "SAFE_STOP")
    assert result.refusals == link.tally.chunks == 3  # as many as its limits allow in a row
    assert [a.tolist()[:3] for a in robot.executed] == [HOLD] * 2


def test_rows_of_another_pace_are_another_motion() -> None:
    robot = FakeRobot()
    with scripted(lambda o, s: s.send(chunk_for(o, control_hz=40.0))) as url:
        result, _ = run(url, robot)
    assert result.stop_reason is StopReason.GUARD_STOPPED
    assert "rows at 40 Hz, the contract says 20" in result.detail
    assert robot.executed
    assert all(a.tolist()[:3] == HOLD for a in robot.executed)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"model_version": "stub/2"}, StopReason.REFUSED), ({"contract_id": "0" * 16}, StopReason.REFUSED)]
)
def test_no_chunk_of_another_model_inside_an_episode(changes: dict[str, object], reason: StopReason) -> None:
    robot = FakeRobot()
    with scripted(lambda o, s: s.send(chunk_for(o, **changes))) as url:
        result, link = run(url, robot)
    assert result.stop_reason is StopReason.REFUSED
    assert link.tally.refusals == {"STALE_EPOCH": 5}
    assert all(a.tolist()[:3] == HOLD for a in robot.executed)


@pytest.mark.parametrize(
    "answer", [b"", b"\x02\xc1", b"\x09\x80", b"\x02" + b"\x91" * 5000, "text"], ids=["empty", "garbage", "version", "deep", "text"]
)
def test_garbage_from_the_service_is_a_refusal_and_a_new_session(answer: bytes | str) -> None:
    robot = FakeRobot()
    with scripted(lambda o, s: s.send(answer if o.epoch == 1 else chunk_for(o))) as url:
        result, link = run(url, robot)
    assert result.success
    assert (result.refusals, result.holds, link.tally.connections) == (1, 1, 2)
    assert link.tally.cuts == {"framing": 1}


def ask(link: WaitingLink, observation: Observation, taken_at_s: float) -> LinkEvent:
    seq = link.ask(ObserveRequest(episode_id="e", step=0, observation=observation, taken_at_s=taken_at_s))
    return next(heard for heard in link.poll() if heard.seq == seq)


def test_a_question_that_no_message_can_carry_is_not_the_service_s_fault() -> None:
    with scripted(good) as url:
        link = link_to(url, make_embodiment(), deadline_s=5.0)
        with contextlib.closing(link):
            wait_until_up(link, 10.0)
            world = SimulatedClock()
            waiting = WaitingLink(link, world)
            refusal = ask(waiting, make_observation(instruction="go on " * 1000), world())
            assert (refusal.kind, refusal.code) == ("refused", RefusalCode.DECODE.value)
            assert "cannot be sent" in refusal.reason
            assert ask(waiting, make_observation(), world()).kind == "chunk"
            assert link.tally.connections == 1


def test_a_cut_connection_is_reopened_with_the_next_epoch() -> None:
    epochs: list[int] = []

    def script(observe: Observe, socket: ServerConnection) -> None:
        epochs.append(observe.epoch)
        if observe.epoch == 1:
            socket.socket.shutdown(SHUT_RDWR)
        else:
            good(observe, socket)

    robot = FakeRobot()
    with scripted(script) as url:
        result, link = run(url, robot, deadline_s=1.0)
    assert result.success
    assert (epochs[:2], link.tally.connections, result.holds) == ([1, 2], 2, 1)


def test_a_service_that_is_gone_ends_the_episode() -> None:
    robot = FakeRobot()
    with scripted(good) as url:
        link = link_to(url, robot.embodiment, deadline_s=0.2, connect_timeout_s=0.3)
        wait_until_up(link, 10.0)
    with contextlib.closing(link):
        result = cell_on(link, robot).run_episode(1)
    assert result.stop_reason is StopReason.SERVICE_LOST
    assert all(a.tolist()[:3] == HOLD for a in robot.executed)


def test_a_service_that_goes_in_mid_episode_is_waited_for_and_ends_it_held() -> None:
    robot, sockets = FakeRobot(horizon=4000), []

    def gone_after_two(observe: Observe, socket: ServerConnection) -> None:
        sockets.append(socket)
        good(observe, socket) if observe.seq < 3 else shut.set()

    shut = threading.Event()
    with scripted(gone_after_two) as url:
        link = link_to(url, robot.embodiment, deadline_s=0.2, connect_timeout_s=0.3)
        wait_until_up(link, 10.0)
        found: list[EpisodeResult] = []
        driven = threading.Thread(target=lambda: found.append(cell_on(link, robot).run_episode(1)))
        driven.start()
        assert shut.wait(10.0)
    driven.join(20.0)
    link.close()
    assert found[0].stop_reason is StopReason.SERVICE_LOST
    assert [a.tolist()[0] > 0.1 for a in robot.executed] == [True] * 8 + [False] * 4  # five waits in vain, held in between


@pytest.mark.parametrize("field_name", ["control_hz", "gripper_open", "name"])
def test_handshake_mismatch_moves_nothing_even_if_the_service_does_not_mind(field_name: str) -> None:
    body = replace(make_embodiment(), **{field_name: {"control_hz": 5.0, "gripper_open": 1.0, "name": "other-arm"}[field_name]})
    with scripted(good) as url, contextlib.closing(link_to(url, body, deadline_s=0.2)) as link:
        with pytest.raises(ContractError, match=field_name):
            wait_until_up(link, 10.0)
        assert not link.is_up
        assert link.ask(ObserveRequest(episode_id="e", step=0, observation=make_observation(), taken_at_s=0.0)) == 0


def test_handshake_with_nobody_or_a_mute_has_an_end() -> None:
    began = time.monotonic()
    link = link_to("ws://127.0.0.1:9/v1/session", make_embodiment(), connect_timeout_s=0.3)
    with contextlib.closing(link), pytest.raises(NotReady, match="no policy service"):
        wait_until_up(link, 0.5)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, says nothing
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}/v1/session"
        link = link_to(url, make_embodiment(), connect_timeout_s=0.3)
        with contextlib.closing(link), pytest.raises(NotReady, match="no policy service"):
            wait_until_up(link, 0.5)
    assert time.monotonic() - began < 3.0


def test_a_robot_that_fails_is_an_ended_episode_and_not_a_crash(tmp_path: Path) -> None:
    robot = FakeRobot(broken_at=3)
    with scripted(good) as url:
        result, link = run(url, robot, recorder=Recorder(tmp_path, robot, "c"))
    report = cell_report("c", "button", [result], link)
    assert (report["episodes"], report["robot_failures"], report["holds"]) == (0, 1, 0)
    write_report(tmp_path / "r.json", report)
    (tmp_path / "r.json").unlink()
    assert (result.stop_reason, result.steps) == (StopReason.ENV_ERROR, 3)
    assert "driver does not answer" in result.detail
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_the_recording_only(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text("a file where the folder should be")
    robot = FakeRobot()
    with scripted(good) as url:
        result, _ = run(url, robot, recorder=Recorder(spool, robot, "c"))
    assert result.success


def test_a_robot_is_found_by_name_or_the_message_says_how() -> None:
    assert load_robot("tests.unit.test_workcell:FakeRobot") is FakeRobot or load_robot("tests.unit.test_workcell:FakeRobot")
    for wrong in ("metaworld", "no.such.module:make", "tests.fakes:nothing"):
        with pytest.raises(SpecError, match=wrong.partition(":")[0]):
            load_robot(wrong)


def test_percentile_is_nearest_rank() -> None:
    assert [percentile([3.0, 1.0, 2.0], q) for q in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert percentile([], 0.5) == 0.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--robot", "metaworld"], "module:factory"),
        (["--robot-option", "speed=3"], "speed"),
        (["--robot-option", "speed"], "name=value"),
        (["--deadline-ms", "nan"], "above 0"),
        (["--episodes", "2.7"], "whole number"),
        (["--episodes", "-1"], "whole number"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(
    changes: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
    argv = ["--robot", "components.simulation.robot:make_robot", "--task", "drawer-close-v3", "--url", "ws://127.0.0.1:9/v1/session"]
    try:
        code = main([*argv, "--cell", "c", "--result", str(tmp_path / "r.json"), *changes])
    except SystemExit as left:
        code = int(str(left.code))
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
