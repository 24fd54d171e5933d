"""The full protocol over real sockets on loopback: parts, controls, leases, steering, levels, drain and kill, engines that die."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from model_core.spec.contract import CameraSpec
from model_core.spec.protocol.image_codec import encode_image
from model_core.spec.protocol.wire import (
    Chunk,
    Control,
    Edit,
    End,
    Observe,
    Part,
    Ready,
    Reject,
    SteeringInput,
    decode_message,
    encode_message,
)
from model_core.spec.types import Decision, DecisionRequest, RefusalCode
from serving.gateway.http.drain import main as drain_main
from serving.gateway.inference.stub_policy import MODEL_VERSION, StubPolicy, expected_actions
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests.fakes import make_observation
from tests.loopback import serve, wait_until
from tests.peers import Peer, rejected

LIMITS = GatewayLimits(warm_up_s=2.0, lease_s=20.0)


def gateway_of(policy: StubPolicy, limits: GatewayLimits = LIMITS, **options: object) -> Gateway:
    model = LoadedModel(policy=policy, contract=policy.contract, model_version=policy.model_version, bundle_digest="b" * 64)
    return Gateway(lambda: model, limits, **options)  # type: ignore[arg-type]


@pytest.fixture
def policy() -> StubPolicy:
    return StubPolicy(blocks=4)


@pytest.fixture
def gateway(policy: StubPolicy) -> Gateway:
    return gateway_of(policy)


@pytest.fixture
def address(gateway: Gateway, policy: StubPolicy) -> Iterator[str]:
    with serve(gateway) as where:
        wait_until(lambda: gateway.is_ready)
        policy.calls.clear()
        yield where


@pytest.fixture
def peer(address: str, policy: StubPolicy) -> Iterator[Peer]:
    with Peer(address, body=policy.contract.embodiment) as peer:
        assert isinstance(peer.greet(), Ready)
        yield peer


def call(address: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{address}{path}", data=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


# --- what a cell is told ------------------------------------------------------------------------------------------------


def test_ready_tells_lease_levels_and_bundle(peer: Peer) -> None:
    ready = peer.ready
    assert ready is not None
    assert (ready.lease_s, ready.max_in_flight, ready.bundle_digest) == (20.0, 2, "b" * 64)
    assert set(ready.levels) == {"full", "reuse-depth", "trace+action", "action"}
    assert all(0 <= row["p50_ms"] <= row["p95_ms"] for row in ready.levels.values())


def test_a_chunk_carries_everything(peer: Peer, policy: StubPolicy) -> None:
    peer.observe(1, value=9)
    chunk = peer.receive_kind(Chunk)
    np.testing.assert_array_equal(chunk.actions_KA, expected_actions(make_observation(peer.body, value=9), policy.contract))
    assert (chunk.level, chunk.bundle_digest, chunk.model_version, chunk.committed) == ("full", "b" * 64, MODEL_VERSION, 0)
    assert chunk.contract_id == policy.contract.contract_id
    assert chunk.counts == {"forwards": 4}
    assert chunk.depth_codes_G is not None
    assert chunk.trace_N2 is not None
    assert {"decode", "queue", "model", "service", "model.decode"} <= set(chunk.timing_ms)


def test_parts_come_before_the_chunk_to_those_who_take_them(address: str, policy: StubPolicy) -> None:
    with Peer(address, body=policy.contract.embodiment) as peer:
        peer.greet(accepts_parts=True)
        peer.observe(1)
        depth, trace, chunk = peer.receive_kind(Part), peer.receive_kind(Part), peer.receive_kind(Chunk)
    assert (depth.field, trace.field, depth.seq) == ("depth", "trace", 1)
    assert depth.depth_codes_G is not None
    assert trace.trace_N2 is not None
    np.testing.assert_array_equal(depth.depth_codes_G, chunk.depth_codes_G)
    np.testing.assert_array_equal(trace.trace_N2, chunk.trace_N2)


def test_a_named_level_is_served_as_named_and_an_unknown_one_refused(peer: Peer) -> None:
    peer.observe(1, level="action")
    chunk = peer.receive_kind(Chunk)
    assert (chunk.level, chunk.flags, chunk.depth_codes_G) == ("action", ("blank:front",), None)
    peer.observe(2, level="twice")
    rejected(peer.receive(), RefusalCode.CONTRACT)


def test_committed_rows_begin_the_answer(peer: Peer) -> None:
    rows_DA = np.full((2, 4), 0.125, np.float32)
    peer.observe(1, committed_DA=rows_DA)
    chunk = peer.receive_kind(Chunk)
    np.testing.assert_array_equal(chunk.actions_KA[:2], rows_DA)
    assert chunk.committed == 2
    peer.observe(2, committed_DA=np.zeros((8, 4), np.float32))
    assert "at most 7" in rejected(peer.receive(), RefusalCode.CONTRACT).reason
    peer.observe(3, committed_DA=np.full((1, 4), np.nan, np.float32))
    rejected(peer.receive(), RefusalCode.NONFINITE)


def test_steering_and_edits_are_applied_recorded_or_refused(peer: Peer) -> None:
    def drawn(revision: int, author: str = "ann", image: str = "front") -> SteeringInput:
        points_N2 = np.array([[0, 0], [15, 15]], np.float32)
        return SteeringInput(points_N2=points_N2, image=image, width=16, height=16, revision=revision, author=author)

    peer.observe(1, steering=drawn(3))
    chunk = peer.receive_kind(Chunk)
    assert chunk.trace_N2 is not None
    assert (chunk.trace_N2.tolist(), chunk.applied_revision) == ([[0, 0], [255, 255]], 3)
    assert "steering:rev3" in chunk.flags
    peer.observe(2, steering=drawn(3, author="bob"))
    assert "'ann'" in rejected(peer.receive(), RefusalCode.STALE_OBS).reason
    peer.observe(3, steering=drawn(4, image="wrist"))
    rejected(peer.receive(), RefusalCode.CONTRACT)
    codes_G = np.arange(100, dtype=np.int64)
    peer.observe(4, edit=Edit(depth_codes_G=codes_G, revision=1, author="ann"))
    chunk = peer.receive_kind(Chunk)
    assert chunk.depth_codes_G is not None
    assert (chunk.depth_codes_G.tolist(), chunk.applied_revision) == (codes_G.tolist(), 1)


def test_pictures_may_come_compressed_and_cameras_under_other_names(address: str, policy: StubPolicy) -> None:
    body = policy.contract.embodiment
    seen = make_observation(body, value=77)
    with Peer(address, body=body) as peer:
        peer.greet(embodiment=replace(body, cameras=(CameraSpec(name="front", width=16, height=16, color="bgr"),)))
        assert peer.ready is not None
        assert any("bgr" in told for told in peer.ready.conversions)
        png = encode_image(seen.images["front"], "png")
        peer.observe(1, observation=replace(seen, images={}), encoded={"front": png})
        chunk = peer.receive_kind(Chunk)
        np.testing.assert_array_equal(chunk.actions_KA, expected_actions(seen, policy.contract))
        peer.observe(2, observation=replace(seen, images={}), encoded={"front": replace(png, data=png.data[:40])})
        rejected(peer.receive(), RefusalCode.DECODE)
        peer.observe(3, observation=replace(seen, images={}), encoded={"other": png})
        rejected(peer.receive(), RefusalCode.CONTRACT)


def test_a_camera_that_shows_the_same_picture_while_the_robot_moves_is_told(peer: Peer) -> None:
    peer.observe(1)
    assert "frozen:front" not in peer.receive_kind(Chunk).flags
    peer.observe(2, consumed=3)
    assert "frozen:front" in peer.receive_kind(Chunk).flags
    peer.observe(3, consumed=3, value=8)
    assert "frozen:front" not in peer.receive_kind(Chunk).flags


# --- controls -----------------------------------------------------------------------------------------------------------


def test_ping_lease_reset_and_controls_of_others(peer: Peer) -> None:
    peer.control("PING", seq=7, value=1.5)
    pong = peer.receive_kind(Control)
    assert (pong.kind, pong.seq, pong.value) == ("PONG", 7, 1.5)
    peer.control("LEASE")
    assert peer.receive_kind(Control).value == pytest.approx(20.0, abs=1.0)
    peer.observe(1)
    peer.receive_kind(Chunk)
    peer.control("RESET")
    peer.observe(1)  # forgotten with the episode, but its number is used up
    peer.control("PING", epoch=9)
    assert {type(peer.receive()).__name__, type(peer.receive()).__name__} == {"Chunk", "Reject"}


def test_what_is_cancelled_leaves_at_the_next_block(peer: Peer, policy: StubPolicy) -> None:
    policy.gate = threading.Event()
    peer.observe(1)
    wait_until(lambda: policy.calls == [1])
    peer.control("CANCEL", seq=1)
    assert rejected(peer.receive(), RefusalCode.CANCELLED).seq == 1
    policy.gate.set()
    peer.observe(2)
    assert peer.receive_kind(Chunk).seq == 2
    assert policy.calls.count(1) == 5  # one block of the first, four of the second


def test_who_disconnects_is_not_worked_for(address: str, peer: Peer, policy: StubPolicy, gateway: Gateway) -> None:
    policy.gate = threading.Event()
    peer.observe(1)
    wait_until(lambda: policy.calls == [1])
    peer.socket.close()
    wait_until(lambda: not gateway.sessions)
    policy.gate.set()
    with Peer(address, cell="cell-b", body=policy.contract.embodiment) as other:
        other.greet()
        other.observe(1)
        other.receive_kind(Chunk)
    assert len(policy.calls) == 5


@pytest.mark.parametrize("path", ["/v1/act", "/act"])
def test_who_hangs_up_over_http_is_not_worked_for(address: str, peer: Peer, policy: StubPolicy, path: str) -> None:
    seen, size = make_observation(peer.body), peer.body.cameras[0].width
    observe = Observe(session_id="s", epoch=0, seq=1, episode_id="e", step=0, deadline_ms=9000.0, observation=seen)
    picture = {"__numpy__": base64.b64encode(bytes(size * size * 3)).decode(), "dtype": "uint8", "shape": [size, size, 3]}
    plain = json.dumps({"front": picture, "state": seen.proprio_P.tolist(), "instruction": "go"}).encode()
    body = encode_message(observe) if path == "/v1/act" else plain
    policy.gate = threading.Event()
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port))) as asker:
        asker.sendall(f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: policy.calls == [1])
    time.sleep(0.2)
    policy.gate.set()
    peer.observe(2)
    peer.receive_kind(Chunk)
    assert len(policy.calls) == 5  # one block for who has gone, four of the other's


def test_readiness_tells_strangers_no_more_than_a_state(address: str) -> None:
    assert set(json.loads(call(address, "/readyz")[1])) == {"state", "reason", "instance"}


def test_who_is_to_stop_waits_for_the_episodes_that_run(address: str, peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.observe(1)
    peer.receive_kind(Chunk)
    assert drain_main(["--url", f"http://{address}", "--wait-s", "0.2"]) == 1
    assert "1 episodes still run" in capsys.readouterr().out
    assert peer.receive_kind(Control).kind == "DRAIN"
    peer.observe(2)
    assert peer.receive_kind(Chunk).seq == 2  # it is finished
    ready = peer.ready
    assert ready is not None
    end = End(session_id=ready.session_id, epoch=ready.epoch, episode_id="e", stop_reason="success", success=True)
    ending = threading.Timer(0.3, lambda: peer.send(end))
    ending.start()
    assert drain_main(["--url", f"http://{address}", "--wait-s", "20"]) == 0
    ending.join()
    assert drain_main(["--url", "http://127.0.0.1:9"]) == 1


def test_a_flood_is_throttled_then_let_go_and_nobody_else_waits_for_it(policy: StubPolicy) -> None:
    gateway, body = gateway_of(policy, replace(LIMITS, replaced_per_s=4)), policy.contract.embodiment
    with serve(gateway) as address, Peer(address, body=body) as peer, Peer(address, cell="cell-b", body=body) as other:
        wait_until(lambda: gateway.is_ready)
        policy.gate = threading.Event()
        peer.greet()
        other.greet()
        for seq in range(1, 101):
            peer.observe(seq)
        other.observe(1)
        policy.gate.set()
        assert isinstance(other.receive(), Chunk)
        with pytest.raises(ConnectionClosed):
            drain(peer)


def drain(peer: Peer) -> None:
    for _ in range(200):
        assert isinstance(peer.receive(), Reject | Chunk)


# --- leases, bounds, reservations -----------------------------------------------------------------------------------------


def test_a_session_that_says_nothing_is_ended_with_its_lease() -> None:
    policy = StubPolicy()
    gateway = gateway_of(policy, replace(LIMITS, lease_s=1.5))
    with serve(gateway) as address, Peer(address, body=policy.contract.embodiment) as peer:
        wait_until(lambda: gateway.is_ready)
        peer.greet()
        for _ in range(3):
            time.sleep(0.6)
            peer.control("LEASE")  # renewed in time
            assert peer.receive_kind(Control).kind == "LEASE"
        assert "lease ran out" in rejected(peer.receive(), RefusalCode.LEASE).reason
        with pytest.raises(ConnectionClosed):
            peer.receive()
        assert not gateway.sessions


def test_a_rate_that_cannot_be_kept_is_refused_as_a_session() -> None:
    policy = StubPolicy(service_s=0.05, per_row_s=0.05)
    gateway = gateway_of(policy, replace(LIMITS, max_batch=1))
    with serve(gateway) as address:
        wait_until(lambda: gateway.is_ready)
        with Peer(address, cell="a", body=policy.contract.embodiment) as first, Peer(address, cell="b", body=first.body) as second:
            assert isinstance(first.greet(replan_hz=5.0), Ready)
            refusal = rejected(second.greet(replan_hz=5.0), RefusalCode.OVERLOAD)
            assert "promised already" in refusal.reason
            assert refusal.retry_after_ms > 0
        wait_until(lambda: not gateway.sessions)
        with Peer(address, cell="b", body=policy.contract.embodiment) as again:
            assert isinstance(again.greet(replan_hz=5.0), Ready)


def test_requests_that_come_too_fast_are_told_when_to_come(policy: StubPolicy) -> None:
    gateway = gateway_of(policy, replace(LIMITS, min_interval_ms=1500.0))
    with serve(gateway) as address, Peer(address, body=policy.contract.embodiment) as peer:
        wait_until(lambda: gateway.is_ready)
        peer.greet()
        assert peer.ready is not None
        assert peer.ready.min_interval_ms == 1500.0
        peer.observe(1)
        peer.receive_kind(Chunk)
        peer.observe(1)  # the same again is no new request
        peer.receive_kind(Chunk)
        peer.observe(2)
        refusal = rejected(peer.receive(), RefusalCode.OVERLOAD)
        time.sleep(refusal.retry_after_ms / 1e3)
        peer.observe(2)
        assert peer.receive_kind(Chunk).seq == 2


def test_a_peer_of_the_first_version_can_read_why_it_is_refused(address: str) -> None:
    import msgpack

    with connect(f"ws://{address}/v1/session", compression=None, proxy=None) as old:
        old.send(b"\x01" + msgpack.packb({"type": "HELLO", "cell": "old", "epoch": 1}))
        data = old.recv(timeout=5)
    assert isinstance(data, bytes)
    assert data[0] == 1
    told = msgpack.unpackb(data[1:])
    assert (told["type"], told["code"]) == ("REJECT", "DECODE")
    assert "version 1" in told["reason"]


def test_an_admitted_request_that_is_not_met_is_counted(address: str, peer: Peer, policy: StubPolicy, gateway: Gateway) -> None:
    policy.gate = threading.Event()
    peer.observe(1, deadline_ms=100.0)
    rejected(peer.receive(), RefusalCode.DEADLINE)
    policy.gate.set()
    peer.observe(2)
    peer.receive_kind(Chunk)
    wait_until(lambda: b"actwright_deadline_misses_total 1.0" in call(address, "/metrics")[1])


def test_state_is_bounded_in_time_and_counted() -> None:
    policy = StubPolicy()
    gateway = gateway_of(policy, replace(LIMITS, state_ttl_s=0.3))
    with serve(gateway) as address, Peer(address, body=policy.contract.embodiment) as peer:
        wait_until(lambda: gateway.is_ready)
        peer.greet()
        peer.observe(1)
        peer.receive_kind(Chunk)
        session = next(iter(gateway.sessions.values()))
        full = session.held_bytes
        wait_until(lambda: session.held_bytes < full)
        assert b"actwright_session_bytes 2048.0" in call(address, "/metrics")[1]


# --- one question by post ---------------------------------------------------------------------------------------------------


def question(value: int = 1) -> bytes:
    body = StubPolicy().contract.embodiment
    observe = Observe(
        session_id="", epoch=0, seq=0, episode_id="", step=0, deadline_ms=2000, observation=make_observation(body, value=value)
    )
    return encode_message(observe)


def test_the_same_key_is_answered_once(address: str, policy: StubPolicy) -> None:
    first, second = (decode_message(call(address, "/v1/act", question(), idempotency_key="k")[1]) for _ in range(2))
    assert isinstance(first, Chunk)
    assert isinstance(second, Chunk)
    assert first.chunk_id == second.chunk_id
    assert policy.calls == [1, 1, 1, 1]
    assert call(address, "/v1/act", question(2), idempotency_key="k")[0] == 409
    other = decode_message(call(address, "/v1/act", question())[1])
    assert isinstance(other, Chunk)
    assert other.chunk_id != first.chunk_id


def test_too_large_a_body_is_told_so(address: str) -> None:
    assert call(address, "/v1/act", bytes(17 * 2**20))[0] == 413


def test_models_and_contract_say_who_answers(address: str, policy: StubPolicy) -> None:
    model = json.loads(call(address, "/v1/models")[1])["models"][0]
    assert (model["contract_id"], model["bundle_digest"], model["state"]) == (policy.contract.contract_id, "b" * 64, "ready")
    assert json.loads(call(address, "/v1/contract")[1])["contract"] == json.loads(json.dumps(policy.contract.to_json()))


def test_metrics_are_prometheus_text(address: str, peer: Peer) -> None:
    peer.observe(1)
    peer.receive_kind(Chunk)
    peer.observe(1, session_id="x")
    peer.receive()
    families = {family.name: family for family in text_string_to_metric_families(call(address, "/metrics")[1].decode())}
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families.values() for s in family.samples}
    assert samples[("actwright_chunks_total", (("model_version", MODEL_VERSION),))] == 1
    assert samples[("actwright_rejects_total", (("code", "STALE_EPOCH"),))] == 1
    assert samples[("actwright_sessions", ())] == 1
    assert samples[("actwright_ready", ())] == 1
    assert 0 < samples[("actwright_lease_remaining_seconds", ())] <= 20
    for name in ("queue_age_seconds", "batch_size", "stage_seconds", "session_bytes", "deadline_misses", "guard_clips", "accepted_tokens"):
        assert f"actwright_{name}" in families, name


def test_what_the_guard_clipped_is_told_and_counted(address: str, peer: Peer, policy: StubPolicy) -> None:
    def beyond(decision: Decision) -> Decision:
        assert decision.chunk is not None
        actions_KA = decision.chunk.actions_KA.copy()
        actions_KA[0, 1] = 1.01  # a rounding past the limit of 1
        return replace(decision, chunk=replace(decision.chunk, actions_KA=actions_KA), counts={"drafted.depth": 9, "accepted.depth": 7})

    policy.change = beyond
    peer.observe(1)
    chunk = peer.receive_kind(Chunk)
    assert chunk.actions_KA[0, 1] == 1.0
    assert chunk.guard == {"clipped.dy": pytest.approx(0.01, abs=1e-6)}
    text = call(address, "/metrics")[1]
    assert b'actwright_guard_clips_total{dim="dy"} 1.0' in text
    assert b'actwright_accepted_tokens_total{field="depth"} 7.0' in text


def test_a_fault_of_ours_is_a_code_to_the_cell(peer: Peer, gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    submit, gateway.submit = gateway.submit, None  # type: ignore[method-assign, assignment]
    peer.observe(1)
    assert rejected(peer.receive(), RefusalCode.INTERNAL).seq == 1
    assert "session.failed" in caplog.text
    gateway.submit = submit  # type: ignore[method-assign]
    peer.observe(2)
    peer.receive_kind(Chunk)


# --- draining, killing, dying --------------------------------------------------------------------------------------------------


def test_draining_finishes_episodes_and_begins_none(
    address: str, peer: Peer, gateway: Gateway, policy: StubPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    peer.observe(1)
    peer.receive_kind(Chunk)
    with caplog.at_level(logging.WARNING):
        assert call(address, "/v1/admin/drain", b'{"reason": "new version"}')[0] == 200
    assert "admin.drain subject=loopback role=admin reason=new version" in caplog.text
    assert peer.receive_kind(Control).kind == "DRAIN"
    assert call(address, "/readyz")[0] == 503
    assert b"draining" in call(address, "/readyz")[1]
    peer.observe(2)
    peer.receive_kind(Chunk)  # the same episode
    with Peer(address, cell="cell-b", body=policy.contract.embodiment) as other:
        rejected(other.greet(), RefusalCode.DRAINING)
    assert peer.ready is not None
    peer.send(End(session_id=peer.ready.session_id, epoch=1, episode_id="e", stop_reason="success"))
    peer.observe(3, episode_id="next")
    rejected(peer.receive(), RefusalCode.DRAINING)
    assert call(address, "/v1/act", question())[0] == 503
    assert call(address, "/v1/admin/resume", b"")[0] == 200
    assert peer.receive_kind(Control).kind == "RESET"  # who was told DRAIN is told when it is over
    peer.observe(4, episode_id="next")
    peer.receive_kind(Chunk)


def test_killing_stops_everything_until_resumed_and_never_resumes_motion_by_itself(address: str, peer: Peer, policy: StubPolicy) -> None:
    policy.gate = threading.Event()
    peer.observe(1)
    wait_until(lambda: policy.calls == [1])
    assert call(address, "/v1/admin/kill", b'{"reason": "smoke"}')[0] == 200
    answers = [peer.receive(), peer.receive()]
    assert {type(answer).__name__ for answer in answers} == {"Control", "Reject"}
    policy.gate.set()
    peer.observe(2)
    assert "smoke" in rejected(peer.receive(), RefusalCode.KILLED).reason
    with Peer(address, cell="cell-b", body=policy.contract.embodiment) as other:
        rejected(other.greet(), RefusalCode.KILLED)
    assert call(address, "/v1/admin/resume", b"")[0] == 200
    rejected(peer.receive(), RefusalCode.STALE_EPOCH)  # it must shake hands again


def test_one_cell_can_be_killed_alone(address: str, peer: Peer, policy: StubPolicy) -> None:
    with Peer(address, cell="cell-b", body=policy.contract.embodiment) as other:
        other.greet()
        assert call(address, "/v1/admin/kill", b'{"cell": "cell-a"}')[0] == 200
        assert peer.receive_kind(Control).kind == "KILL"
        peer.observe(1)
        rejected(peer.receive(), RefusalCode.KILLED)
        other.observe(1)
        other.receive_kind(Chunk)


def test_nothing_is_done_by_a_get(address: str, gateway: Gateway) -> None:
    for name in ("drain", "kill", "resume"):
        assert call(address, f"/v1/admin/{name}")[0] == 405
    assert call(address, "/v1/admin/kill", b'{"everything": "yes"}')[0] == 400
    assert call(address, "/v1/admin/kill", b"x" * 5000)[0] == 413
    assert gateway.is_ready


def test_an_engine_that_hangs_is_told_of_and_replaced_while_the_process_stays_alive() -> None:
    policy = StubPolicy(blocks=4)
    gateway = gateway_of(policy, replace(LIMITS, hung_s=0.5))
    with serve(gateway) as address, Peer(address, body=policy.contract.embodiment) as peer:
        wait_until(lambda: gateway.is_ready)
        peer.greet()
        policy.gate = threading.Event()
        peer.observe(1)
        wait_until(lambda: call(address, "/readyz")[0] == 503)
        assert call(address, "/livez")[0] == 200
        messages = [peer.receive(), peer.receive()]
        rejected(next(m for m in messages if not isinstance(m, Control)), RefusalCode.NOT_READY)
        assert next(m for m in messages if isinstance(m, Control)).kind == "HOLD"
        policy.gate.set()
        wait_until(lambda: gateway.is_ready)
        assert peer.receive_kind(Control).kind == "RESET"  # who was told to hold is told when it is over
        peer.observe(2)  # the session has lived through it
        assert peer.receive_kind(Chunk).seq == 2
        assert b"actwright_engine_restarts_total 1.0" in call(address, "/metrics")[1]


@pytest.mark.parametrize(
    ("error", "code", "restarts"),
    [
        (MemoryError("no room for the cache"), RefusalCode.OVERLOAD, 0),
        (ValueError("an unforeseen shape"), RefusalCode.INTERNAL, 0),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RefusalCode.NOT_READY, 1),
    ],
)
def test_what_the_model_raises_is_a_typed_refusal_and_service_goes_on(
    peer: Peer, gateway: Gateway, policy: StubPolicy, error: Exception, code: RefusalCode, restarts: int
) -> None:
    policy.fault = raise_in_block(policy, 2, error)
    peer.observe(1)
    first = peer.receive()
    rejected(first if not isinstance(first, Control) else peer.receive(), code)  # never half a chunk
    policy.fault = None
    wait_until(lambda: gateway.service_state.restarts == restarts and gateway.is_ready)
    while True:
        peer.observe(2)
        answer = peer.receive()
        if not isinstance(answer, Control):
            break
    assert isinstance(answer, Chunk)


def raise_in_block(policy: StubPolicy, block: int, error: Exception) -> Callable[[Sequence[DecisionRequest]], None]:
    def fault(_: Sequence[DecisionRequest]) -> None:
        if len(policy.calls) == block:
            raise error

    return fault


def test_an_engine_that_dies_again_and_again_is_given_up() -> None:
    policy = StubPolicy()
    gateway = gateway_of(policy, replace(LIMITS, max_restarts=1, warm_up_s=0.0))
    policy.fault = raise_in_block(policy, 1, RuntimeError("CUDA error: lost"))
    with serve(gateway) as address, Peer(address, body=policy.contract.embodiment) as peer:
        wait_until(lambda: gateway.is_ready)
        peer.greet()
        peer.observe(1)
        wait_until(lambda: gateway.service_state.restarts == 1 and gateway.is_ready)
        policy.calls.clear()
        peer.observe(2)
        wait_until(lambda: gateway.state == "failed")
        assert call(address, "/livez")[0] == 200
        assert b"replaced within ten minutes" in call(address, "/readyz")[1]
