"""A cell that says the same body in other words, over a real socket: what READY lists is really done, both ways."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from websockets.sync.client import connect

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, PolicyContract, VectorSpec
from model_core.spec.conversion import unagreed
from model_core.spec.protocol.image_codec import encode_image
from model_core.spec.protocol.wire import Chunk, EncodedImage, Hello, Message, Observe, Ready, Reject, decode_message, encode_message
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions, stub_contract
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from serving.workcell.link.connection_state import LinkCore
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.link.websocket_link import AsyncLink
from tests.loopback import serve, wait_until

SIDE = 12


def contract() -> PolicyContract:
    """Two cameras with roles; state and the first action in metres."""
    base = stub_contract()
    dims = tuple(DimSpec(name=n, unit="m", low=-1.0, high=1.0) for n in ("x", "y"))
    body = replace(
        base.embodiment,
        cameras=(
            CameraSpec(name="front", width=SIDE, height=SIDE, role="front", encodings=("raw", "jpeg")),
            CameraSpec(name="wrist", width=SIDE, height=SIDE, role="wrist"),
        ),
        proprio=VectorSpec(dims=dims),
        action=replace(base.embodiment.action, dims=(replace(base.embodiment.action.dims[0], unit="m"), *base.embodiment.action.dims[1:])),
    )
    return replace(base, embodiment=body)


def other_words() -> EmbodimentSpec:
    """Wrist first, other names, blue first, millimetres."""
    body = contract().embodiment
    front, wrist = body.cameras
    dims = tuple(replace(d, unit="mm", low=-1000.0, high=1000.0) for d in body.proprio.dims)
    first = replace(body.action.dims[0], unit="mm", low=-1000.0, high=1000.0)
    return replace(
        body,
        cameras=(replace(wrist, name="hand", color="bgr"), replace(front, name="base", encodings=("raw", "png"))),
        proprio=VectorSpec(dims=dims),
        action=replace(body.action, dims=(first, *body.action.dims[1:])),
    )


class Cell:
    """A cell that has shaken hands."""

    def __init__(self, address: str, body: EmbodimentSpec) -> None:
        self.socket = connect(f"ws://{address}/v1/session", compression=None, proxy=None)
        self.socket.send(encode_message(Hello(cell="c", epoch=1, embodiment=body)))
        ready = self.receive()
        assert isinstance(ready, Ready), ready
        self.ready, self.seq = ready, 0

    def receive(self) -> Message:
        data = self.socket.recv(timeout=5)
        assert isinstance(data, bytes)
        return decode_message(data)

    def ask(self, observation: Observation, **more: object) -> Message:
        self.seq += 1
        message = Observe(
            session_id=self.ready.session_id, epoch=1, seq=self.seq, episode_id="e", step=1, deadline_ms=4000.0, observation=observation
        )
        self.socket.send(encode_message(replace(message, **more)))
        return self.receive()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    policy = StubPolicy(contract=contract())
    gateway = Gateway(lambda: LoadedModel(policy=policy, contract=policy.contract, model_version="stub/1"))
    with serve(gateway) as where:
        wait_until(lambda: gateway.is_ready)
        yield where


@pytest.fixture
def cell(address: str) -> Iterator[Cell]:
    cell = Cell(address, other_words())
    yield cell
    cell.socket.close()


RNG = np.random.default_rng(3)
FRONT, WRIST = (RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(2))


def truth(front: np.ndarray = FRONT) -> Observation:
    """What the policy must be shown."""
    return Observation(images={"front": front, "wrist": WRIST}, proprio_P=np.array([0.5, -0.25], np.float32), instruction="go")


def told(**images: np.ndarray) -> Observation:
    """The same, as the cell says it."""
    return Observation(images=images, proprio_P=np.array([500.0, -250.0], np.float32), instruction="go")


def in_cell_units(actions_KA: np.ndarray) -> np.ndarray:
    return actions_KA * np.array([1000.0, 1.0, 1.0, 1.0])


def test_ready_lists_what_is_converted_and_both_ways_are(cell: Cell) -> None:
    said = "\n".join(cell.ready.conversions)
    for expected in ("camera order", "'base'", "'hand'", "'bgr'", "proprio.dims[0].unit", "action.dims[0].unit", "encodings"):
        assert expected in said
    chunk = cell.ask(told(hand=np.ascontiguousarray(WRIST[..., ::-1]), base=FRONT))
    assert isinstance(chunk, Chunk), chunk
    assert chunk.actions_KA == pytest.approx(in_cell_units(expected_actions(truth(), contract())), rel=1e-5)


def test_committed_rows_come_back_in_the_units_they_were_sent_in(cell: Cell) -> None:
    rows_DA = np.array([[120.0, 0.1, 0.2, 0.3], [-80.0, 0.0, 0.0, 1.0]], np.float32)
    chunk = cell.ask(told(hand=np.ascontiguousarray(WRIST[..., ::-1]), base=FRONT), committed_DA=rows_DA)
    assert isinstance(chunk, Chunk), chunk
    assert chunk.committed == 2
    assert chunk.actions_KA[:2] == pytest.approx(rows_DA, rel=1e-5)


def test_compressed_pictures_are_opened_or_refused_by_name(cell: Cell) -> None:
    wrist = np.ascontiguousarray(WRIST[..., ::-1])
    chunk = cell.ask(told(hand=wrist), encoded={"base": encode_image(FRONT, "png")})
    assert isinstance(chunk, Chunk), chunk
    assert chunk.actions_KA == pytest.approx(in_cell_units(expected_actions(truth(), contract())), rel=1e-5)
    bad = {
        "wrist": encode_image(WRIST, "jpeg"),  # a name of the policy, and an encoding that this camera does not take
        "base": EncodedImage(encoding="png", data=encode_image(np.zeros((90, 90, 3), np.uint8), "png").data, shape=(SIDE, SIDE, 3)),
    }
    for name, image in bad.items():
        images = {} if name == "wrist" else {"hand": wrist}
        images |= {"base": FRONT} if name == "wrist" else {}
        answer = cell.ask(told(**images), encoded={name: image})
        assert isinstance(answer, Reject), answer
        assert answer.code in {RefusalCode.CONTRACT, RefusalCode.DECODE, RefusalCode.TOO_LARGE}
    assert isinstance(cell.ask(told(hand=wrist, base=FRONT)), Chunk)


def test_a_body_that_differs_otherwise_is_refused_before_anything_moves(address: str) -> None:
    with connect(f"ws://{address}/v1/session", compression=None, proxy=None) as socket:
        flipped = replace(other_words(), gripper_open=1.0)
        socket.send(encode_message(Hello(cell="d", epoch=1, embodiment=flipped)))
        data = socket.recv(timeout=5)
        assert isinstance(data, bytes)
        answer = decode_message(data)
    assert isinstance(answer, Reject)
    assert (answer.code, [d.split(":")[0] for d in answer.details]) == (RefusalCode.CONTRACT, ["gripper_open"])


def test_a_cell_agrees_with_what_is_converted_or_does_not_move(address: str) -> None:
    link = AsyncLink(f"ws://{address}/v1/session", LinkSettings(cell="cell-x", embodiment=other_words()))
    link.start()
    with contextlib.closing(link):
        wait_until_up(link, 10.0)
    ready = link.ready
    assert ready is not None
    assert unagreed(ready.contract, other_words(), ready.conversions) == []
    for said in ((), ready.conversions[1:], (*ready.conversions, "unit scale: action.dims[1].unit: 'cm' of the cell is converted to 'm'")):
        core = LinkCore(LinkSettings(cell="cell-x", embodiment=other_words()))
        core.dialling(0.0)
        core.opened(0.0)
        core.heard(replace(ready, epoch=1, conversions=said), 0.0)
        is_missed = unagreed(ready.contract, other_words(), said) != []
        assert core.is_up is not is_missed
        assert is_missed or said == ready.conversions[1:]  # the order of cameras alone changes no meaning: pictures have names
