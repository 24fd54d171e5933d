"""Other projects' protocols, spoken by hand over loopback; `make conformance` lets their own clients do it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, SpecError, WireError
from model_core.spec.protocol.image_codec import encode_image
from model_core.spec.types import ActionChunk, Decision, Observation, Refusal, RefusalCode
from serving.gateway.dialects.act import decode as decode_act
from serving.gateway.dialects.arrays import array_of
from serving.gateway.dialects.fields import FieldMap, observation_of, read_field_maps
from serving.gateway.dialects.openpi import decode as decode_openpi
from serving.gateway.dialects.vla_eval import decode as decode_vla
from serving.gateway.dialects.vla_eval import observed
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions, stub_contract
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests.loopback import serve, wait_until

STATE = np.array([0.1, 0.2, 0.3, 0.4], np.float32)


def picture(value: int = 7, size: int = 16) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


def seen(value: int = 7, instruction: str = "go") -> Observation:
    return Observation(images={"front": picture(value)}, proprio_P=STATE, instruction=instruction)


@pytest.fixture
def policy() -> StubPolicy:
    return StubPolicy(contract=stub_contract())


@pytest.fixture
def address(policy: StubPolicy) -> Iterator[str]:
    gateway = Gateway(lambda: LoadedModel(policy=policy, contract=policy.contract, model_version="stub/1"))
    with serve(gateway) as where:
        wait_until(lambda: gateway.is_ready)
        yield where


def refuse_all(decision: Decision) -> Decision:
    return replace(decision, chunk=None, reasoning=None, refusal=Refusal(code=RefusalCode.PARSE, reason="Traceback of nothing"))


# --- openpi -------------------------------------------------------------------------------------------------------------


def openpi_array(array: np.ndarray) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def openpi_request(value: int = 7, **changes: Any) -> bytes:
    fields = {"observation/image": openpi_array(picture(value)), "observation/state": openpi_array(STATE), "prompt": "go"}
    return msgpack.packb({k: v for k, v in {**fields, **changes}.items() if v is not None})


@contextlib.contextmanager
def openpi(address: str, path: str = "/") -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    with connect(f"ws://{address}{path}", compression=None, proxy=None) as socket:
        yield socket, msgpack.unpackb(socket.recv(timeout=5))


@pytest.mark.parametrize("path", ["/", "/openpi"])
def test_openpi_gets_metadata_and_then_a_chunk_an_observation(address: str, policy: StubPolicy, path: str) -> None:
    with openpi(address, path) as (socket, metadata):
        assert metadata["contract_id"] == policy.contract.contract_id
        assert (metadata["action_horizon"], metadata["cameras"][0]["name"]) == (8, "front")
        for value in (7, 8, 9):
            socket.send(openpi_request(value))
            answer = msgpack.unpackb(socket.recv(timeout=5))
            said = answer["actions"]
            actions = np.frombuffer(said[b"data"], said[b"dtype"]).reshape(said[b"shape"])
            assert np.array_equal(actions, expected_actions(seen(value), policy.contract))
            assert answer["server_timing"]["infer_ms"] >= 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"observation/image": openpi_array(picture(size=15))}, "CONTRACT: camera 'front'"),
        ({"observation/image": openpi_array(picture().astype(np.float32))}, "CONTRACT: camera 'front': expected uint8"),
        ({"observation/image": None}, "CONTRACT: camera 'front': no image"),
        ({"observation/state": openpi_array(STATE[:3])}, "CONTRACT: state: expected 4"),
        ({"observation/state": None}, "CONTRACT: state"),
        ({"prompt": None}, "CONTRACT: instruction"),
        ({"observation/state": openpi_array(STATE * np.nan)}, "NONFINITE"),
        ({"observation/image": {**openpi_array(picture()), b"dtype": "|O"}}, "DECODE"),
        ({"observation/image": {**openpi_array(picture()), b"shape": [2**40, 2**40, 3]}}, "DECODE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_openpi_errors_are_text_without_a_traceback_and_then_the_end(address: str, changes: dict[str, Any], code: str) -> None:
    with openpi(address) as (socket, _):
        socket.send(openpi_request(**changes))
        text = socket.recv(timeout=5)
        assert isinstance(text, str)
        assert text.startswith(code)
        assert "Traceback" not in text
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
    with openpi(address) as (socket, _):  # the service itself is unharmed
        socket.send(openpi_request())
        assert isinstance(socket.recv(timeout=5), bytes)


def test_openpi_object_arrays_never_reach_numpy() -> None:
    # The message on which openpi's own decoder builds an object array over attacker bytes.
    attack = msgpack.packb({"prompt": "", "x": {b"__ndarray__": True, b"data": b"A" * 8, b"dtype": "|O", b"shape": [1]}})
    with pytest.raises(WireError, match="plain numbers"):
        decode_openpi(attack, stub_contract(), FieldMap())


# --- vla-eval -----------------------------------------------------------------------------------------------------------


class Harness:
    """vla-eval's side, by hand."""

    def __init__(self, address: str) -> None:
        self.socket = connect(f"ws://{address}/vla-eval", compression=None, proxy=None)
        self.seq = 0

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: str, payload: dict[str, Any]) -> int:
        self.seq += 1
        self.socket.send(msgpack.packb({"type": kind, "payload": payload, "seq": self.seq, "timestamp": 0.0}))
        return self.seq

    def ask(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        seq = self.send(kind, payload)
        answer = msgpack.unpackb(self.socket.recv(timeout=5))
        assert answer["seq"] == seq
        return answer

    def observe(self, value: int = 7, instruction: str = "go", **changes: Any) -> dict[str, Any]:
        image = {"__image__": True, "format": "png", "data": encode_image(picture(value), "png").data, "shape": [16, 16, 3]}
        states = {"__ndarray__": True, "data": STATE.astype("<f8").tobytes(), "dtype": "<f8", "shape": [4]}
        return self.ask("observation", {"images": {"front": image}, "states": states, "task_description": instruction, **changes})


def row(answer: dict[str, Any]) -> np.ndarray:
    assert answer["type"] == "action", answer
    said = answer["payload"]["actions"]
    return np.frombuffer(said["data"], said["dtype"]).reshape(said["shape"])


def test_vla_eval_gives_one_action_an_observation_and_forgets_at_the_end(address: str, policy: StubPolicy) -> None:
    first, second = (expected_actions(seen(value), policy.contract) for value in (7, 8))
    with Harness(address) as harness:
        hello = harness.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
        assert hello["type"] == "hello"
        assert policy.contract.contract_id in hello["payload"]["model_server"]
        harness.send("episode_start", {"task": {"name": "t"}})
        calls = len(policy.calls)
        rows = [row(harness.observe(value)) for value in (7, 9, 9, 9)]
        assert np.array_equal(np.stack(rows), first[:4])  # execute_horizon rows of the first observation's chunk
        assert len(policy.calls) == calls + 1
        assert np.array_equal(row(harness.observe(8)), second[0])
        harness.send("episode_end", {"metrics": {"success": True}, "steps": 5, "elapsed_sec": 1.0})
        harness.send("episode_start", {"task": {"name": "t"}})
        assert np.array_equal(row(harness.observe(7)), first[0])
        other = expected_actions(seen(7, "come back"), policy.contract)
        assert np.array_equal(row(harness.observe(7, "come back")), other[0])  # rows for another instruction are not used up


def test_vla_eval_errors_leave_the_connection_open(address: str, policy: StubPolicy) -> None:
    with Harness(address) as harness:
        assert "protocol version 9" in harness.ask("hello", {"protocol_version": 9})["payload"]["error"]
        assert harness.ask("hello", {"protocol_version": 1})["type"] == "hello"
        assert "CONTRACT: state" in harness.observe(states=[1, 2])["payload"]["error"]
        assert harness.ask("dance", {})["payload"]["error"].startswith("DECODE")
        row(harness.observe())
        policy.change = refuse_all
        assert harness.observe(instruction="x")["payload"]["error"].startswith("PARSE")
        policy.change = lambda decision: decision
        row(harness.observe())


def test_vla_eval_garbage_closes_the_connection_in_the_end(address: str) -> None:
    with Harness(address) as harness:
        for _ in range(16):
            harness.socket.send(b"\xc1")
            assert "DECODE" in str(harness.socket.recv(timeout=5))
        with pytest.raises(ConnectionClosed):
            harness.socket.recv(timeout=5)


# --- /act ---------------------------------------------------------------------------------------------------------------


def json_array(array: np.ndarray) -> dict[str, Any]:
    return {"__numpy__": base64.b64encode(array.tobytes()).decode(), "dtype": array.dtype.str, "shape": list(array.shape)}


def from_json_array(document: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(document["__numpy__"]), document["dtype"]).reshape(document["shape"])


def act_body(value: int = 7, **changes: Any) -> dict[str, Any]:
    body = {"front_cam": json_array(picture(value)), "state": json_array(STATE), "instruction": "go", "num_steps": 10}
    return {k: v for k, v in {**body, **changes}.items() if v is not None}


def http_call(address: str, method: str, body: str | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.request(method, "/act", body=body, headers=headers or {})
    answer = connection.getresponse()
    found = (answer.status, json.loads(answer.read()))
    connection.close()
    return found


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}])
def test_act_answers_a_chunk_whatever_the_content_type(address: str, policy: StubPolicy, headers: dict[str, str]) -> None:
    status, answer = http_call(address, "POST", json.dumps(act_body()), headers)
    assert status == 200
    assert np.array_equal(from_json_array(answer["actions"]), expected_actions(seen(), policy.contract))
    assert answer["dt_ms"] == pytest.approx(50.0)


def test_act_health_and_openvla_form(address: str, policy: StubPolicy) -> None:
    status, health = http_call(address, "GET")
    assert (status, health["status"], health["num_cameras"], health["state_dim"]) == (200, "ok", 1, 4)
    body = {"image": json_array(picture()), "state": [float(x) for x in STATE], "instruction": "go", "unnorm_key": "stub-arm"}
    first = expected_actions(seen(), policy.contract)[0]
    for text in (json.dumps(body), json.dumps({"encoded": json.dumps(body)})):
        status, answer = http_call(address, "POST", text)
        assert status == 200, answer
        assert np.array_equal(from_json_array(answer), first)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "DECODE"),
        ("[1]", 400, "DECODE"),
        ("[" * 100_000, 400, "DECODE"),
        ('{"state": NaN}', 400, "DECODE"),
        (json.dumps(act_body(front_cam={**json_array(picture()), "dtype": "O"})), 400, "DECODE"),
        (json.dumps(act_body(front_cam={**json_array(picture()), "shape": [16, 16, 4]})), 400, "DECODE"),
        (json.dumps(act_body(front_cam={**json_array(picture()), "__numpy__": "???"})), 400, "DECODE"),
        (json.dumps(act_body(front_cam=json_array(picture(size=15)))), 409, "CONTRACT"),
        (json.dumps(act_body(state=json_array(STATE[:3]))), 409, "CONTRACT"),
        (json.dumps(act_body(state=None)), 409, "CONTRACT"),
        (json.dumps(act_body(front_cam=None)), 409, "CONTRACT"),
        (json.dumps(act_body(unnorm_key="bridge_orig")), 409, "CONTRACT"),
        (json.dumps(act_body(instruction="x" * 300)), 409, "CONTRACT"),
        (json.dumps(act_body(state=json_array(STATE * np.inf))), 422, "NONFINITE"),
    ],
)
def test_act_refuses_with_a_status_and_a_reason(address: str, body: str, status: int, code: str) -> None:
    got, answer = http_call(address, "POST", body)
    assert (got, answer["code"]) == (status, code), answer
    assert answer["error"]
    assert "Traceback" not in answer["error"]


# --- fields -------------------------------------------------------------------------------------------------------------


def test_act_counts_items_before_it_makes_objects_of_them(policy: StubPolicy) -> None:
    with pytest.raises(WireError, match="items"):
        decode_act(b'{"state": [' + b"0," * 200_000 + b"0]}", policy.contract, FieldMap())


def contract_of(cameras: int, **camera: Any) -> PolicyContract:
    contract = stub_contract(cameras=cameras)
    changed = tuple(replace(c, **camera) for c in contract.embodiment.cameras)
    return replace(contract, embodiment=replace(contract.embodiment, cameras=changed))


def test_several_cameras_are_told_apart_by_name_and_never_by_order() -> None:
    contract, state = contract_of(2), {"state": STATE, "prompt": "go"}
    found = observation_of({"observation/wrist_image": picture(2), "observation.images.front": picture(1), **state}, contract, FieldMap())
    assert [int(found.images[name][0, 0, 0]) for name in ("front", "wrist")] == [1, 2]
    with pytest.raises(ContractError, match="'front'"):
        observation_of({"a": picture(1), "b": picture(2), **state}, contract, FieldMap())
    named = FieldMap(cameras={"a": "front", "b": "wrist"})
    assert list(observation_of({"b": picture(2), "a": picture(1), **state}, contract, named).images) == ["front", "wrist"]


def test_a_picture_of_another_name_is_no_picture_of_a_camera_be_it_the_only_one() -> None:
    for pictures in ({"a": picture(1), "b": picture(2)}, {"a": picture(1)}, {"wrist": picture(1)}, {"observation/wrist_image": picture(1)}):
        with pytest.raises(ContractError, match="camera 'front': no image for it among"):
            observation_of({**pictures, "state": STATE, "prompt": "go"}, stub_contract(), FieldMap())


def test_pictures_of_a_blue_first_policy_are_turned_round() -> None:
    reddish = np.zeros((16, 16, 3), np.uint8)
    reddish[..., 0] = 200
    found = observation_of({"front": reddish, "state": STATE, "prompt": "go"}, contract_of(1, color="bgr"), FieldMap())
    assert found.images["front"][0, 0].tolist() == [0, 0, 200]


def test_jpeg_pictures_only_where_the_contract_takes_them() -> None:
    body = act_body(front_cam=None, images_jpeg={"front": base64.b64encode(encode_image(picture(100), "jpeg").data).decode()})
    with pytest.raises(ContractError, match="jpeg"):
        decode_act(json.dumps(body).encode(), stub_contract(), FieldMap())
    found, wants_one = decode_act(json.dumps(body).encode(), contract_of(1, encodings=("raw", "jpeg")), FieldMap())
    assert not wants_one
    assert abs(int(found.images["front"][0, 0, 0]) - 100) < 3


def test_field_maps_come_from_a_file_and_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "dialects.json"
    path.write_text(json.dumps({"act": {"cameras": {"top": "front"}, "state": ["q"], "norm_tags": ["yam"]}}))
    fields = read_field_maps(path)["act"]
    assert (dict(fields.cameras), fields.state, fields.norm_tags) == ({"top": "front"}, ("q",), ("yam",))
    for bad in ("[]", '{"gr00t": {}}', '{"act": {"camera": {}}}', '{"act": {"state": [1]}}', '{"act": {"cameras": []}}', "{"):
        path.write_text(bad)
        with pytest.raises(SpecError, match="dialects"):
            read_field_maps(path)


@pytest.mark.parametrize("dtype", ["|O", "O", "object", "V8", "|S4", "<U4", "c16", "<c8", "m8", ">M8[s]", "", None, 4, b"<f4", "f4,f4"])
def test_only_plain_numbers_are_arrays(dtype: Any) -> None:
    with pytest.raises(WireError, match="plain numbers"):
        array_of(dtype, [2], b"\0" * 8)


def test_vla_eval_payload_types_are_checked() -> None:
    for bad in ({"type": "observation"}, {"type": 1, "payload": {}, "seq": 1}, {"type": "x", "payload": [], "seq": 1}):
        with pytest.raises(WireError):
            decode_vla(msgpack.packb(bad) or b"")
    bomb = {"images": {"front": {"__image__": True, "format": "png", "data": memoryview(b""), "shape": [2**14, 2**14, 3]}}}
    with pytest.raises(WireError):
        observed(bomb, stub_contract(), FieldMap())


def test_no_row_of_a_refused_chunk_is_given_out(address: str, policy: StubPolicy) -> None:
    def shortened(decision: Decision) -> Decision:
        assert decision.chunk is not None
        return replace(decision, chunk=ActionChunk(actions_KA=decision.chunk.actions_KA[:1], control_hz=20.0))

    policy.change = shortened
    with Harness(address) as harness:
        assert harness.observe(1)["payload"]["error"].startswith(("PARSE", "UNSAFE", "CONTRACT"))
        policy.change = lambda decision: decision
        assert np.array_equal(row(harness.observe(2)), expected_actions(seen(2), policy.contract)[0])


def mutants(seed: bytes, count: int) -> Iterator[bytes]:
    """`seed` with bytes changed, cut and put in, mostly near its ends, where the structure is."""
    rng = random.Random(len(seed))
    for _ in range(count):
        data = bytearray(seed)
        for _ in range(rng.randint(1, 4)):
            near = rng.randrange(min(120, len(data)))
            at = rng.choice([rng.randrange(len(data)), near, len(data) - 1 - near])
            match rng.randrange(4):
                case 0:
                    del data[at : at + rng.randint(1, 5)]
                case 1:
                    data[at:at] = rng.randbytes(rng.randint(1, 4))
                case _:
                    data[at] = rng.randrange(256)
            data = data or bytearray(b"0")
        yield bytes(data)


def vla_observation() -> bytes:
    image = {"__image__": True, "format": "png", "data": encode_image(picture(), "png").data, "shape": [16, 16, 3]}
    payload = {"images": {"front": image}, "states": [0.1, 0.2, 0.3, 0.4], "task_description": "go"}
    return msgpack.packb({"type": "observation", "payload": payload, "seq": 1, "timestamp": 0.0}) or b""


@pytest.mark.parametrize(
    ("seed", "decode"),
    [
        (openpi_request(), lambda data: decode_openpi(data, stub_contract(), FieldMap())),
        (json.dumps(act_body()).encode(), lambda data: decode_act(data, stub_contract(), FieldMap())),
        (vla_observation(), lambda data: observed(decode_vla(data)[1], stub_contract(), FieldMap())),
    ],
    ids=["openpi", "act", "vla-eval"],
)
def test_changed_bytes_are_read_or_refused_and_nothing_else(seed: bytes, decode: Callable[[bytes], object]) -> None:
    decode(seed)
    for data in mutants(seed, 3000):
        with contextlib.suppress(WireError, ContractError):
            decode(data)


def test_act_takes_no_more_bodies_at_once_than_there_may_be_sessions(policy: StubPolicy) -> None:
    model = LoadedModel(policy=policy, contract=policy.contract, model_version="stub/1")
    with serve(Gateway(lambda: model, GatewayLimits(max_sessions=1))) as where:
        wait_until(lambda: http_call(where, "GET")[0] == 200)
        host, _, port = where.partition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=5)) as slow:
            slow.putrequest("POST", "/act")
            slow.putheader("Content-Length", "100")
            slow.endheaders()
            slow.send(b"{")
            wait_until(lambda: http_call(where, "POST", "{}")[0] == 429)
        wait_until(lambda: http_call(where, "POST", "{}")[0] == 409)
