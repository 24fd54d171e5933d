"""Real sockets, real time, a driver that forgives nothing: the cell's real-time side as it runs on a robot's computer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio import server as asyncio_server
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_socket

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, NotReady, SpecError
from model_core.spec.protocol.wire import Chunk, Control, Hello, Message, Observe, Ready, SteeringInput, decode_message, encode_message
from model_core.spec.types import Observation, StopReason
from serving.workcell.__main__ import main
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.launch import operator_file
from serving.workcell.link.credentials import Credentials
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkSettings, ObserveRequest
from serving.workcell.link.websocket_link import AsyncLink
from serving.workcell.motion.limits import widest_limits
from serving.workcell.motion.motion_state import MotionSettings
from serving.workcell.robot.strict_driver import StrictDriver, simple_body
from tests.fakes import EchoPolicy, make_contract
from tests.loopback import echo_gateway, serve, wait_until

HZ = 50.0


def contract_of(mode: str = "delta") -> PolicyContract:
    return make_contract(simple_body(mode=mode, control_hz=HZ), chunk_length=20, execute_horizon=8)


Script = Callable[[Observe, ServerConnection, PolicyContract], object]


def good(observe: Observe, line: ServerConnection, contract: PolicyContract, **changes: object) -> None:
    chunk = Chunk(
        session_id=observe.session_id,
        epoch=observe.epoch,
        seq=observe.seq,
        chunk_id=f"c{observe.epoch}-{observe.seq}",
        contract_id=contract.contract_id,
        model_version="stub/1",
        actions_KA=np.full((20, 4), 0.05, np.float32),
        control_hz=HZ,
        expires_ms=1e3 * 20 / HZ,
        committed=0 if observe.committed_DA is None else len(observe.committed_DA),
    )
    line.send(encode_message(replace(chunk, **changes)))  # type: ignore[arg-type]


@contextlib.contextmanager
def stub(script: Script, contract: PolicyContract) -> Iterator[str]:
    """A service that answers PING and HELLO, and OBSERVE by `script`."""

    def talk(line: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            for data in line:
                assert isinstance(data, bytes)
                message: Message = decode_message(data)
                if isinstance(message, Hello):
                    ready = Ready(session_id=f"s{message.epoch}", epoch=message.epoch, model_version="stub/1", contract=contract)
                    line.send(encode_message(ready))
                elif isinstance(message, Observe):
                    script(message, line, contract)
                elif isinstance(message, Control) and message.kind == "PING":
                    line.send(encode_message(replace(message, kind="PONG")))

    with serve_socket(talk, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/v1/session"
        server.shutdown()


@contextlib.contextmanager
def cell_at(url: str, contract: PolicyContract, *, steps: int, strategy: str = "async", **link: object) -> Iterator[RealtimeCell]:
    body = contract.embodiment
    settings = LinkSettings(**{"cell": "c", "embodiment": body, "deadline_s": 1.0, **link})  # type: ignore[arg-type]
    made = AsyncLink(url, settings)
    made.start()
    try:
        wait_until_up(made, 10.0)
        driver = StrictDriver(body, steps=steps)
        cell = RealtimeCell(
            driver, made, RealtimeSettings(cell="c", strategy=strategy, motion=MotionSettings(safe_stop_after_s=3.0)), widest_limits(body)
        )
        yield cell
    finally:
        made.close()


@pytest.mark.parametrize("strategy", ["async", "prefix"])
def test_moves_while_the_answer_is_made(strategy: str) -> None:
    contract = contract_of()
    with (
        stub(lambda o, s, c: (time.sleep(0.03), good(o, s, c)), contract) as url,
        cell_at(url, contract, steps=100, strategy=strategy) as cell,
    ):
        result = cell.run_episode(1)
    driver = cell._robot
    assert isinstance(driver, StrictDriver)
    assert (result.stop_reason, driver.breaches) == (StopReason.MAX_STEPS, [])
    assert result.holds < 50
    assert cell.scheduler.tally.installed >= 5


def test_a_question_that_no_message_can_carry_is_refused_and_cuts_nothing() -> None:
    contract = contract_of()
    with stub(good, contract) as url, cell_at(url, contract, steps=150) as cell:
        cell.steer(SteeringInput(points_N2=np.ones((1, 2), np.float32), image="front", width=16, height=16, ttl_ms=1e30))
        result = cell.run_episode(1)
        assert result.stop_reason is StopReason.REFUSED
        assert "cannot be sent" in result.detail
        assert (cell.link.is_up, cell.link.epoch) == (True, 1)


def test_a_killed_connection_is_dialled_anew_and_the_episode_goes_on() -> None:
    contract = contract_of()

    def script(observe: Observe, line: ServerConnection, contract: PolicyContract) -> None:
        if observe.epoch == 1 and observe.seq == 3:
            line.socket.shutdown(socket.SHUT_RDWR)
        else:
            good(observe, line, contract)

    with stub(script, contract) as url, cell_at(url, contract, steps=150) as cell:
        result = cell.run_episode(1)
    driver = cell._robot
    assert isinstance(driver, StrictDriver)
    assert (result.stop_reason, driver.breaches) == (StopReason.MAX_STEPS, [])
    assert cell.link.epoch == 2
    assert driver.tags[-1].epoch == 2
    assert {tag.epoch for tag in driver.tags if tag.chunk_id} == {1, 2}


def test_a_service_that_falls_silent_is_a_hold_then_a_stop_and_control_never_waits() -> None:
    contract = contract_of()
    with (
        stub(lambda o, s, c: good(o, s, c) if o.seq < 3 else None, contract) as url,
        cell_at(url, contract, steps=10_000, deadline_s=0.2) as cell,
    ):
        lengths, inner = [], cell.tick

        def timed() -> StopReason | None:
            began = time.monotonic()
            reason = inner()
            lengths.append(time.monotonic() - began)
            return reason

        cell.tick = timed  # type: ignore[method-assign]
        result = cell.run_episode(1)
    assert result.stop_reason is StopReason.SERVICE_LOST
    assert result.mode == "SAFE_STOP"
    assert sorted(lengths)[len(lengths) // 2] < 0.01
    assert result.hold_begun


def test_a_mute_or_absent_service_is_an_error_in_time_and_nothing_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, says nothing
        for url in (f"ws://127.0.0.1:{mute.getsockname()[1]}/v1/session", "ws://127.0.0.1:9/v1/session"):
            made = AsyncLink(url, LinkSettings(cell="c", embodiment=simple_body(), connect_timeout_s=0.2))
            made.start()
            began = time.monotonic()
            with pytest.raises(NotReady, match="no policy service within"):
                wait_until_up(made, 0.5)
            made.close()
            assert time.monotonic() - began < 5.0


def test_refuses_a_body_that_the_policy_was_not_made_for() -> None:
    contract = contract_of()
    with stub(good, contract) as url:
        made = AsyncLink(url, LinkSettings(cell="c", embodiment=replace(contract.embodiment, gripper_open=1.0)))
        made.start()
        with pytest.raises(ContractError, match="gripper_open"):
            wait_until_up(made, 5.0)
        made.close()


def test_the_command_line_runs_in_real_time_against_the_real_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
    contract = contract_of()
    gateway = echo_gateway(EchoPolicy(contract=contract))
    document, log = tmp_path / "contract.json", tmp_path / "driver.jsonl"
    document.write_text(json.dumps(contract.to_json()))
    with serve(gateway) as address:
        wait_until(lambda: gateway.is_ready)
        argv = ["--robot", "serving.workcell.robot.strict_driver:make_robot", "--task", "button", "--cell", "c", "--realtime"]
        argv += ["--robot-option", f"contract={document}", "--robot-option", f"log={log}", "--robot-option", "steps=60"]
        argv += ["--url", f"ws://{address}/v1/session", "--result", str(tmp_path / "r.json"), "--strategy", "blend"]
        argv += ["--watchdog", str(tmp_path / "beat"), "--watchdog-command-ms", "2000", "--watchdog-heartbeat-ms", "4000"]
        assert main(argv) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["strategy"], report["episodes"], report["envelope_refused"]) == ("blend", 1, {})
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not [line for line in lines if line.get("event") == "breach"]
    assert sum(line.get("chunk_id", "") != "" for line in lines) > 20


def test_wrong_usage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    argv = [
        "--robot",
        "serving.workcell.robot.strict_driver:make_robot",
        "--task",
        "t",
        "--url",
        "ws://127.0.0.1:9",
        "--cell",
        "c",
        "--result",
        str(tmp_path / "result.json"),
    ]
    for changes, says in (
        (["--strategy", "async"], "--realtime"),
        (["--strategy", "fast"], "invalid choice"),
        (["--watchdog", str(tmp_path / "b")], "--realtime"),
        (["--token-file", str(tmp_path / "none"), "--realtime"], "token file"),
    ):
        try:
            code = main([*argv, *changes])
        except SystemExit as left:
            code = int(str(left.code))
        assert code == 2, changes
        assert says in capsys.readouterr().err


def test_tokens_come_from_a_file_or_the_environment_and_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_TOKEN", "from-env")
    assert Credentials().headers() == {"Authorization": "Bearer from-env"}
    file = tmp_path / "token"
    file.write_text("from-file\n")
    credentials = Credentials(token_file=file)
    assert credentials.headers() == {"Authorization": "Bearer from-file"}
    file.write_text("renewed")
    assert credentials.headers() == {"Authorization": "Bearer renewed"}
    file.write_text("two words")
    with pytest.raises(SpecError) as error:
        credentials.headers()
    assert "two words" not in str(error.value)
    file.write_text("")
    with pytest.raises(SpecError, match="empty"):
        credentials.headers()
    assert Credentials().tls("ws://x") is None
    assert isinstance(Credentials().tls("wss://x"), ssl.SSLContext)
    with pytest.raises(SpecError, match="CA file"):
        Credentials(ca_file=file).tls("wss://x")


def test_an_operator_s_name_is_used_once(tmp_path: Path) -> None:
    ask = operator_file(tmp_path / "resume")
    assert ask() == ""
    (tmp_path / "resume").write_text("anna\n")
    assert (ask(), ask()) == ("anna", "")


def test_a_peer_that_stops_reading_holds_up_no_goodbye() -> None:
    contract = contract_of()
    is_deaf, is_over = threading.Event(), threading.Event()

    async def talk(peer: asyncio_server.ServerConnection) -> None:
        hello = decode_message(await peer.recv(decode=False))
        assert isinstance(hello, Hello)
        await peer.send(encode_message(Ready(session_id="s", epoch=hello.epoch, model_version="stub/1", contract=contract)))
        peer.transport.pause_reading()
        is_deaf.set()
        while not is_over.is_set():
            await asyncio.sleep(0.01)
        peer.transport.abort()

    async def run(found: queue.SimpleQueue[int]) -> None:
        async with asyncio_server.serve(talk, "127.0.0.1", 0, compression=None) as server:
            found.put(next(iter(server.sockets)).getsockname()[1])
            while not is_over.is_set():
                await asyncio.sleep(0.01)

    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    server = threading.Thread(target=lambda: asyncio.run(run(ports)))
    server.start()
    try:
        settings = LinkSettings(cell="c", embodiment=contract.embodiment, heartbeat_s=60.0, deadline_s=60.0)
        made = AsyncLink(f"ws://127.0.0.1:{ports.get(timeout=10.0)}/v1/session", settings)
        made.start()
        wait_until_up(made, 10.0)
        assert is_deaf.wait(10.0)
        noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
        seen = Observation(images={"front": noise}, proprio_P=np.zeros(4, np.float32), instruction="push")
        sent, still = -1, 0
        while still < 5:  # until nothing is taken any more: every buffer between the two is full
            made.ask(ObserveRequest(episode_id="e", step=0, observation=seen, taken_at_s=time.monotonic()))
            time.sleep(0.2)
            still, sent = (still + 1 if made.tally.sent == sent else 0), made.tally.sent
        made.end_episode("e", "max_steps", success=False)
        began = time.monotonic()
        made.close()
        assert time.monotonic() - began < 1.5
        assert not made._thread.is_alive()
    finally:
        is_over.set()
        server.join(10.0)
