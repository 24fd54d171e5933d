"""The service's promises, over a real loopback socket: handshake, sequence, re-send, deadline, readiness."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from model_core.spec.contract import DimSpec, VectorSpec
from model_core.spec.protocol.wire import Chunk, End, Observe, Ready, decode_message, encode_message
from model_core.spec.types import Decision, Observation, RefusalCode
from serving.gateway.inference.golden_probes import RecordedProbe
from serving.gateway.sessions.gateway import Gateway, GatewayLimits, LoadedModel
from tests.fakes import EchoPolicy, make_contract, make_embodiment, make_observation, with_actions
from tests.loopback import echo_gateway, serve, wait_until
from tests.peers import Peer, rejected


@pytest.fixture
def policy() -> EchoPolicy:
    return EchoPolicy()


@pytest.fixture
def gateway(policy: EchoPolicy) -> Gateway:
    return echo_gateway(policy, GatewayLimits(hello_timeout_s=0.3, max_sessions=3))


@pytest.fixture
def address(gateway: Gateway) -> Iterator[str]:
    with serve(gateway) as where:
        wait_until(lambda: gateway.is_ready)
        yield where


@pytest.fixture
def peer(address: str) -> Iterator[Peer]:
    with Peer(address) as peer:
        assert isinstance(peer.greet(), Ready)
        yield peer


def test_a_chunk_says_who_answered_and_why(peer: Peer, policy: EchoPolicy) -> None:
    peer.observe(1, value=51)
    chunk = peer.receive()
    assert isinstance(chunk, Chunk)
    assert (chunk.seq, chunk.epoch, chunk.session_id) == (1, 1, peer.ready.session_id if peer.ready else "")
    assert (chunk.contract_id, chunk.model_version) == (policy.contract.contract_id, "echo/1")
    assert chunk.actions_KA[0, 0] == pytest.approx(51 / 255)
    assert chunk.expires_ms == pytest.approx(400.0)
    assert chunk.depth_codes_G is not None
    assert chunk.depth_codes_G.tolist() == [51] * 100
    assert chunk.trace_N2 is not None
    assert chunk.trace_N2.tolist() == [[51, 0], [0, 51]]
    assert {"queue", "model", "service", "model.decode"} <= set(chunk.timing_ms)


def test_handshake_lists_every_field_that_differs(address: str) -> None:
    body = make_embodiment()
    dims = list(body.action.dims)
    dims[3] = DimSpec(name="gripper", unit="1", low=0.0, high=1.0)
    other = replace(body, control_hz=5.0, gripper_open=1.0, action=VectorSpec(dims=tuple(dims), mode="absolute"))
    with Peer(address) as peer:
        reject = rejected(peer.greet(embodiment=other), RefusalCode.CONTRACT)
    assert [d.split(":")[0] for d in reject.details] == ["action.dims[3].low", "action.mode", "control_hz", "gripper_open"]
    assert "5.0" in reject.details[2]
    assert "20.0" in reject.details[2]


def test_handshake_refuses_another_contract_and_another_protocol(address: str) -> None:
    with Peer(address) as peer:
        assert "contract_id" in rejected(peer.greet(expected_contract_id="0" * 16), RefusalCode.CONTRACT).details[0]
    with Peer(address) as peer:
        assert "protocol" in rejected(peer.greet(protocol=1), RefusalCode.CONTRACT).reason
    with Peer(address) as peer:
        assert isinstance(peer.greet(expected_contract_id=make_contract().contract_id), Ready)


def test_nothing_is_answered_before_hello(address: str) -> None:
    with Peer(address) as peer:
        peer.send(End(session_id="", epoch=0, episode_id="", stop_reason=""))
        rejected(peer.receive(), RefusalCode.DECODE)
    with Peer(address) as silent:
        assert "HELLO" in rejected(silent.receive(), RefusalCode.DECODE).reason


def test_older_requests_and_other_sessions_are_refused(peer: Peer, policy: EchoPolicy) -> None:
    peer.observe(5)
    assert isinstance(peer.receive(), Chunk)
    peer.observe(4)
    assert rejected(peer.receive(), RefusalCode.STALE_OBS).seq == 4
    peer.observe(6, epoch=2)
    rejected(peer.receive(), RefusalCode.STALE_EPOCH)
    peer.observe(6, session_id="another")
    rejected(peer.receive(), RefusalCode.STALE_EPOCH)
    assert len(policy.calls) == 1


def test_same_request_again_gives_the_same_chunk_with_one_inference(peer: Peer, policy: EchoPolicy) -> None:
    policy.seconds = 0.1
    for _ in range(2):  # while it is being made
        peer.observe(1, value=9)
    first, second = peer.receive(), peer.receive()
    peer.observe(1, value=200)  # and after it was made, whatever it holds
    third = peer.receive()
    assert isinstance(first, Chunk)
    assert encode_message(first) == encode_message(second) == encode_message(third)
    assert policy.calls == [1]


class WatchfulPolicy(EchoPolicy):
    """Remembers which pictures it saw without keeping them."""

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        self.seen = [weakref.ref(image) for observation in observations for image in observation.images.values()]
        return super().decide_many(observations)


def test_pictures_are_let_go_of_with_their_answer() -> None:
    policy = WatchfulPolicy()
    gateway = echo_gateway(policy)
    with serve(gateway) as address, Peer(address) as peer:
        wait_until(lambda: gateway.is_ready)
        assert isinstance(peer.greet(), Ready)
        gc.disable()  # no cycles: what was answered is free at once, and its memory takes the next picture
        try:
            for seq in (1, 2, 3):
                peer.observe(seq)
                assert isinstance(peer.receive(), Chunk)
                wait_until(lambda: all(image() is None for image in policy.seen), timeout_s=5.0)
        finally:
            gc.enable()


def test_a_newer_request_replaces_one_that_waits(peer: Peer, address: str, policy: EchoPolicy) -> None:
    policy.gate = threading.Event()
    with Peer(address, cell="cell-b") as other:
        other.greet()
        other.observe(1)  # occupies the engine
        wait_until(lambda: policy.calls == [1])
        peer.observe(1, value=1)
        peer.observe(2, value=2)
        assert rejected(peer.receive(), RefusalCode.CANCELLED).seq == 1
        policy.gate.set()
        chunk = peer.receive()
        assert isinstance(chunk, Chunk)
        assert (chunk.seq, round(chunk.actions_KA[0, 0] * 255)) == (2, 2)
    assert policy.calls == [1, 1]


def test_deadline_is_kept_and_the_late_answer_is_not_sent(peer: Peer, policy: EchoPolicy) -> None:
    policy.gate = threading.Event()
    began = time.monotonic()
    peer.observe(1, deadline_ms=150)
    rejected(peer.receive(), RefusalCode.DEADLINE)
    assert 0.1 < time.monotonic() - began < 1.0
    policy.gate.set()
    peer.observe(2, value=3)
    chunk = peer.receive()
    assert isinstance(chunk, Chunk)
    assert chunk.seq == 2


def test_a_request_that_cannot_be_met_is_refused_before_it_waits(peer: Peer, address: str, policy: EchoPolicy) -> None:
    policy.seconds = 0.4
    peer.observe(1)
    assert isinstance(peer.receive(), Chunk)  # now the engine knows how long it takes
    with Peer(address, cell="cell-b") as other:
        other.greet()
        other.observe(1)
        wait_until(lambda: len(policy.calls) == 2)
        began = time.monotonic()
        peer.observe(2, deadline_ms=300)
        assert "ms now" in rejected(peer.receive(), RefusalCode.DEADLINE).reason
        assert time.monotonic() - began < 0.2
        assert isinstance(other.receive(), Chunk)


def test_requests_of_several_cells_share_a_batch_without_crosstalk(address: str, policy: EchoPolicy) -> None:
    policy.gate = threading.Event()
    peers = [Peer(address, cell=f"cell-{i}") for i in range(3)]
    for peer in peers:
        peer.greet()
    peers[0].observe(1, value=10)
    wait_until(lambda: policy.calls == [1])
    peers[1].observe(1, value=20)
    peers[2].observe(1, value=30)
    time.sleep(0.1)
    policy.gate.set()
    answers = [peer.receive() for peer in peers]
    assert [round(float(a.actions_KA[0, 0]) * 255) for a in answers if isinstance(a, Chunk)] == [10, 20, 30]
    assert policy.calls == [1, 2]
    for peer in peers:
        peer.socket.close()


@pytest.mark.parametrize(
    ("observation", "code"),
    [
        (replace(make_observation(), images={}), RefusalCode.CONTRACT),
        (replace(make_observation(), images={"wrist": np.zeros((16, 16, 3), np.uint8)}), RefusalCode.CONTRACT),
        (replace(make_observation(), images={"front": np.zeros((8, 16, 3), np.uint8)}), RefusalCode.CONTRACT),
        (replace(make_observation(), proprio_P=np.zeros(3, np.float32)), RefusalCode.CONTRACT),
        (replace(make_observation(), proprio_P=np.array([0, np.nan, 0, 0], np.float32)), RefusalCode.NONFINITE),
        (replace(make_observation(), instruction="x" * 201), RefusalCode.CONTRACT),
    ],
)
def test_observation_outside_the_contract_is_refused(peer: Peer, policy: EchoPolicy, observation: Observation, code: RefusalCode) -> None:
    peer.observe(1, observation=observation)
    rejected(peer.receive(), code)
    assert policy.calls == []


def test_an_old_picture_is_refused(peer: Peer) -> None:
    peer.observe(1, age_ms={"front": 501.0})
    assert "501 ms" in rejected(peer.receive(), RefusalCode.STALE_OBS).reason


@pytest.mark.parametrize(
    ("actions_KA", "code"),
    [
        (np.full((8, 4), 1.5, np.float32), RefusalCode.UNSAFE),
        (np.zeros((3, 4), np.float32), RefusalCode.UNSAFE),
        (np.zeros((8, 5), np.float32), RefusalCode.UNSAFE),
    ],
)
def test_a_model_outside_its_contract_is_refused_not_repaired(
    peer: Peer, policy: EchoPolicy, actions_KA: np.ndarray, code: RefusalCode
) -> None:
    policy.change = lambda decision: with_actions(decision, actions_KA)
    peer.observe(1)
    rejected(peer.receive(), code)


def test_a_model_that_raises_gives_a_code_and_no_traceback(peer: Peer, policy: EchoPolicy) -> None:
    def explode(_: object) -> None:
        raise RuntimeError("secret path /etc/x")

    policy.change = explode  # type: ignore[assignment]
    peer.observe(1)
    reject = rejected(peer.receive(), RefusalCode.INTERNAL)
    assert "secret" not in reject.reason
    policy.change = lambda decision: decision
    peer.observe(2)
    assert isinstance(peer.receive(), Chunk)


def test_garbage_is_refused_and_the_session_goes_on(peer: Peer) -> None:
    peer.socket.send(b"\x02\xdd\xff\xff\xff\xff")
    rejected(peer.receive(), RefusalCode.DECODE)
    peer.socket.send("text")
    rejected(peer.receive(), RefusalCode.DECODE)
    peer.observe(1)
    assert isinstance(peer.receive(), Chunk)


def test_a_peer_that_sends_only_garbage_is_let_go_and_nobody_else_notices(peer: Peer, address: str, gateway: Gateway) -> None:
    rng = np.random.default_rng(0)
    with Peer(address, cell="cell-b") as rude:
        rude.greet()
        refused = 0
        with contextlib.suppress(ConnectionClosed):
            while refused < 200:
                rude.socket.send(rng.bytes(int(rng.integers(0, 300))))
                rejected(rude.receive(), RefusalCode.DECODE)
                refused += 1
        assert refused == gateway.limits.max_bad_messages
    peer.observe(1)
    assert isinstance(peer.receive(), Chunk)
    wait_until(lambda: len(gateway.sessions) == 1)


def test_a_cell_that_comes_back_replaces_its_old_session(address: str, gateway: Gateway) -> None:
    with Peer(address) as old, Peer(address, epoch=2) as new:
        old.greet()
        new.greet()
        assert len(gateway.sessions) == 1
        rejected(old.receive(), RefusalCode.STALE_EPOCH)  # told at once, and let go
        with pytest.raises(ConnectionClosed):
            old.receive()
        new.observe(1)
        assert isinstance(new.receive(), Chunk)


def test_sessions_are_bounded_and_freed(address: str, gateway: Gateway) -> None:
    peers = [Peer(address, cell=f"cell-{i}") for i in range(4)]
    answers = [peer.greet() for peer in peers]
    assert [isinstance(a, Ready) for a in answers] == [True, True, True, False]
    rejected(answers[3], RefusalCode.OVERLOAD)
    for peer in peers:
        peer.socket.close()
    wait_until(lambda: not gateway.sessions)


def get(address: str, path: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", data=data, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_alive_and_metrics_never_wait_for_the_model(peer: Peer, address: str, policy: EchoPolicy) -> None:
    policy.gate = threading.Event()
    peer.observe(1)
    wait_until(lambda: policy.calls == [1])
    began = time.monotonic()
    assert get(address, "/livez")[0] == 200
    assert b"actwright_sessions 1.0" in get(address, "/metrics")[1]
    assert time.monotonic() - began < 1.0
    policy.gate.set()
    assert isinstance(peer.receive(), Chunk)
    assert b'actwright_chunks_total{model_version="echo/1"} 1.0' in get(address, "/metrics")[1]


def test_one_question_by_post(address: str, policy: EchoPolicy) -> None:
    observe = Observe(session_id="", epoch=0, seq=0, episode_id="", step=0, deadline_ms=2000, observation=make_observation(value=102))
    status, body = get(address, "/v1/act", encode_message(observe))
    chunk = decode_message(body)
    assert status == 200
    assert isinstance(chunk, Chunk)
    assert chunk.actions_KA[0, 0] == pytest.approx(0.4)
    assert get(address, "/v1/act", b"nonsense")[0] == 400
    assert get(address, "/v1/act")[0] == 405
    assert policy.contract.contract_id.encode() in get(address, "/v1/contract")[1]


def probe_of(policy: EchoPolicy, *, off_by: float = 0.0) -> RecordedProbe:
    answer = policy.decide(make_observation()).chunk
    assert answer is not None
    expected = Chunk(
        session_id="",
        epoch=0,
        seq=0,
        chunk_id="",
        contract_id=policy.contract.contract_id,
        model_version="echo/1",
        actions_KA=answer.actions_KA + np.float32(off_by),
        control_hz=20,
        expires_ms=1,
    )
    return RecordedProbe(name="00", observation=make_observation(), expected=expected)


@pytest.mark.parametrize(("off_by", "state"), [(0.0, "ready"), (0.3, "failed")])
def test_ready_only_when_golden_probes_are_answered_as_recorded(off_by: float, state: str) -> None:
    policy = EchoPolicy()
    probes = [probe_of(policy, off_by=off_by)]
    gateway = Gateway(lambda: LoadedModel(policy=policy, contract=policy.contract, model_version="echo/1", probes=probes))
    with serve(gateway) as address:
        wait_until(lambda: gateway.state != "loading")
        status, body = get(address, "/readyz")
        assert (status, gateway.state) == ((200, "ready") if state == "ready" else (503, "failed"))
        if state == "failed":
            assert b"golden probes failed" in body
            with Peer(address) as peer:
                rejected(peer.greet(), RefusalCode.NOT_READY)


def test_loading_is_alive_but_not_ready_and_a_failure_is_told() -> None:
    gate = threading.Event()

    def load() -> LoadedModel:
        gate.wait(10)
        raise OSError("no such file")

    gateway = Gateway(load)
    with serve(gateway) as address:
        assert get(address, "/livez")[0] == 200
        assert get(address, "/readyz")[0] == 503
        assert get(address, "/v1/contract")[0] == 503
        gate.set()
        wait_until(lambda: gateway.state == "failed")
        assert b"OSError" in get(address, "/readyz")[1]
