"""What a client of another project says and is told: cameras by name, one value of each thing, and every flag in its own fields."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from websockets.sync.client import connect

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, WireError
from model_core.spec.types import Observation
from serving.gateway.dialects import dialect_routes
from serving.gateway.dialects.act import decode as decode_act
from serving.gateway.dialects.fields import FieldMap
from serving.gateway.dialects.openpi import decode as decode_openpi
from serving.gateway.dialects.vla_eval import observed
from serving.gateway.http.auth_middleware import AuthMiddleware
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.inference.stub_policy import StubPolicy, stub_contract
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests.loopback import serve, serve_app, wait_until

Fields = dict[str, Any]
Decode = Callable[[Fields, PolicyContract, FieldMap], Observation]
STATE = np.array([0.3, -0.2, 0.1, 0.4], np.float32)


def scene(value: int) -> np.ndarray:
    """A picture with more than one colour, so that it is not taken for a dead camera."""
    pixels = np.full((16, 16, 3), value, np.uint8)
    pixels[:4] = value + 1
    return pixels


def written(value: Any, array: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, dict):
        return {name: written(item, array) for name, item in value.items()}
    return array(value) if isinstance(value, np.ndarray) else value


def openpi_array(array: np.ndarray) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def vla_array(array: np.ndarray) -> Fields:
    return {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str, "shape": list(array.shape)}


def act_array(array: np.ndarray) -> Fields:
    return {"__numpy__": base64.b64encode(array.tobytes()).decode(), "dtype": array.dtype.str, "shape": list(array.shape)}


def openpi_bytes(fields: Fields) -> bytes:
    return msgpack.packb(written(fields, openpi_array)) or b""


DIALECTS: dict[str, Decode] = {
    "openpi": lambda fields, contract, names: decode_openpi(openpi_bytes(fields), contract, names),
    "act": lambda fields, contract, names: decode_act(json.dumps(written(fields, act_array)).encode(), contract, names)[0],
    "vla-eval": lambda fields, contract, names: observed(written(fields, vla_array), contract, names),
}


@pytest.fixture(params=DIALECTS)
def decode(request: pytest.FixtureRequest) -> Decode:
    return DIALECTS[request.param]


def good(**changes: Any) -> Fields:
    fields = {"front": scene(10), "state": STATE, "prompt": "close the drawer"}
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def body_with(*cameras: tuple[str, str]) -> PolicyContract:
    """A contract of cameras of these (name, role)."""
    contract = stub_contract()
    first = contract.embodiment.cameras[0]
    named = tuple(replace(first, name=name, role=role) for name, role in cameras)
    return replace(
        contract,
        embodiment=replace(contract.embodiment, cameras=named),
        reasoning=replace(contract.reasoning, trace_camera=named[0].name),
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"front": None, "wrist": scene(200)}, r"camera 'front': no image for it among \['wrist'\]\. Fix:"),
        ({"front": None, "observation/wrist_image": scene(200)}, r"camera 'front': no image for it among"),
        ({"front_image": scene(200)}, r"camera 'front': 'front' and 'front_image' say different things"),
        ({"image": scene(200)}, r"camera 'front': 'front' and 'image' say different things"),
        ({"proprio": STATE + 0.05}, r"state: 'state' and 'proprio' say different things"),
        ({"instruction": "open the drawer"}, r"instruction: 'instruction' and 'prompt' say different things"),
        ({"unnorm_key": "bridge_orig"}, r"normalisation 'bridge_orig' is not this policy's; it has one: 'stub-arm'"),
        ({"extra": {"norm_tag": "bridge_orig"}}, r"normalisation 'bridge_orig' is not this policy's"),
        ({"state": np.array([True, False, True, False])}, r"state: 'state' is not a vector of numbers"),
        ({"state": ["0.3", "-0.2", "0.1", "0.4"]}, r"state: 'state' is not a vector of numbers"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_no_dialect_guesses_or_takes_the_first_of_two_values(decode: Decode, changes: Fields, said: str) -> None:
    if "extra" in changes and decode is DIALECTS["act"]:
        changes = changes["extra"]  # /act knows no nested fields
    with pytest.raises(ContractError, match=said):
        decode(good(**changes), stub_contract(), FieldMap())


def test_equal_values_under_two_names_are_no_contradiction(decode: Decode) -> None:
    found = decode(
        good(front_image=scene(10), proprio=STATE.astype(np.float64), instruction="close the drawer"), stub_contract(), FieldMap()
    )
    np.testing.assert_array_equal(found.images["front"], scene(10))
    np.testing.assert_array_equal(found.proprio_P, STATE)
    assert found.instruction == "close the drawer"
    assert decode(good(unnorm_key="stub-arm"), stub_contract(), FieldMap()).instruction == "close the drawer"
    assert decode(good(unnorm_key="their-arm"), stub_contract(), FieldMap(norm_tags=("their-arm",))).instruction == "close the drawer"


def test_the_main_image_is_the_camera_of_a_policy_that_has_one_unless_it_sits_at_the_wrist(decode: Decode) -> None:
    for name, role in (("front", ""), ("agentview", "front")):
        assert list(decode(good(front=None, image=scene(10)), body_with((name, role)), FieldMap()).images) == [name]
    for name, role in (("wrist", ""), ("cam_2", "wrist"), ("hand_cam", "")):
        with pytest.raises(ContractError, match=f"camera '{name}': no image"):
            decode(good(front=None, image=scene(10)), body_with((name, role)), FieldMap())


def test_a_role_names_a_camera_only_where_it_means_no_other_one(decode: Decode) -> None:
    both = good(front=scene(10), wrist=scene(200))
    found = decode(both, body_with(("cam_1", "front"), ("cam_2", "wrist")), FieldMap())
    assert [int(found.images[name][-1, 0, 0]) for name in ("cam_1", "cam_2")] == [10, 200]
    with pytest.raises(ContractError, match="camera 'left'"):  # "front" is the name of the other one
        decode(both, body_with(("left", "front"), ("front", "")), FieldMap())
    with pytest.raises(ContractError, match="camera 'cam_1'"):
        decode(both, body_with(("cam_1", "front"), ("cam_2", "front")), FieldMap())


def test_a_field_that_is_written_twice_is_refused_however_it_is_written() -> None:
    contract, names = stub_contract(), FieldMap()
    with pytest.raises(ContractError, match="'observation/state' comes twice"):
        DIALECTS["openpi"](good(state=None, **{"observation/state": STATE, "observation": {"state": STATE + 1}}), contract, names)
    with pytest.raises(ContractError, match="'front' comes twice"):
        DIALECTS["vla-eval"](good(images={"front": scene(200)}), contract, names)
    text = json.dumps(written(good(), act_array))
    with pytest.raises(WireError, match="twice in one JSON map: prompt"):
        decode_act(text.replace('"prompt"', '"prompt": "open it", "prompt"').encode(), contract, names)


# --- what they are told ---------------------------------------------------------------------------------------------------

BLANK = np.full((16, 16, 3), (0, 90, 200), np.uint8)  # a dead camera that sends one colour, and not a grey one


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    policy = StubPolicy()
    model = LoadedModel(policy=policy, contract=policy.contract, model_version="stub/1")
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=3.0))
    with serve(gateway) as where:
        wait_until(lambda: gateway.is_ready)
        yield where


def ask_openpi(address: str, image: np.ndarray) -> tuple[str, list[str]]:
    with connect(f"ws://{address}/openpi", compression=None, proxy=None) as socket:
        socket.recv(timeout=5)
        socket.send(openpi_bytes(good(front=image)))
        answer = msgpack.unpackb(socket.recv(timeout=10, decode=False))
    return answer["level"], answer["flags"]


def ask_act(address: str, image: np.ndarray, name: str = "front") -> tuple[str, list[str]]:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("POST", "/act", json.dumps(written(good(**{"front": None, name: image}), act_array)))
        answer = connection.getresponse()
        document = json.loads(answer.read())
    told = document if name == "front" else json.loads(answer.headers["x-actwright-notes"])
    return told["level"], told["flags"]


def ask_openvla(address: str, image: np.ndarray) -> tuple[str, list[str]]:
    return ask_act(address, image, "image")


def ask_vla_eval(address: str, *images: np.ndarray) -> tuple[str, list[str]]:
    with connect(f"ws://{address}/vla-eval", compression=None, proxy=None) as socket:
        answer: Fields = {}
        for seq, image in enumerate(images):
            payload = written(good(front=None, images={"front": image}), vla_array)
            socket.send(msgpack.packb({"type": "observation", "payload": payload, "seq": seq, "timestamp": 0.0}))
            answer = msgpack.unpackb(socket.recv(timeout=10, decode=False))
            assert answer["type"] == "action", answer
    return answer["payload"]["level"], answer["payload"]["flags"]


ASK = [ask_openpi, ask_act, ask_openvla, ask_vla_eval]


@pytest.mark.parametrize("ask", ASK)
def test_every_dialect_says_that_an_image_is_blank(address: str, ask: Callable[[str, np.ndarray], tuple[str, list[str]]]) -> None:
    assert ask(address, scene(10)) == ("full", [])
    assert ask(address, BLANK) == ("full", ["blank:front"])


def test_vla_eval_says_that_an_image_stands_still_while_its_actions_are_executed(address: str) -> None:
    still = [scene(10)] * 5  # four rows of a chunk are executed, then it is asked again
    assert ask_vla_eval(address, *still[:4])[1] == []
    assert ask_vla_eval(address, *still)[1] == ["frozen:front"]
    assert ask_vla_eval(address, *still[:4], scene(11))[1] == []


@contextlib.contextmanager
def in_a_hurry() -> Iterator[str]:
    """The dialects of a service whose full answer takes longer than there is time."""
    policy = StubPolicy(service_s=0.4, blocks=8)
    model = LoadedModel(policy=policy, contract=policy.contract, model_version="stub/1")
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=3.0))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.start()
        yield
        gateway.stop()

    routes = dialect_routes(gateway, deadline_s=0.3)
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(AuthMiddleware, tokens=gateway.tokens)])
    with serve_app(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", **SOCKET_OPTIONS)) as where:
        wait_until(lambda: gateway.is_ready, 30.0)
        yield where


def test_every_dialect_says_that_the_answer_is_of_a_cheaper_level() -> None:
    with in_a_hurry() as address:
        for ask in ASK:
            level, flags = ask(address, scene(10))
            assert level in ("reuse-depth", "trace+action", "action")
            assert flags == [f"level:{level}"]
